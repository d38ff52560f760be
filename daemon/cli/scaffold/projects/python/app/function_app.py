"""The functions of drover.yaml."""

import json
import logging

log = logging.getLogger("orders")


def orders(message):
    """Called once for each message; any exception is a failed attempt.

    `def orders(body)` would receive the bytes alone, and `async def` works as well.
    The return value is sent to the function's output, if drover.yaml names one.
    """
    try:
        order = json.loads(message.body)
    except ValueError as error:
        import drover  # exists in workers; for tests see README.md

        # A retry would not help: dead-letter the message at once. The counterpart is
        # drover.Retry(after=30), which retries after that many seconds.
        raise drover.Reject(f"no JSON: {error}") from error
    log.info("order %s, attempt %d", order["id"], message.attempt)
    return {"id": order["id"], "total": total(order)}


def total(order):
    return sum(line["price"] * line["count"] for line in order["lines"])
