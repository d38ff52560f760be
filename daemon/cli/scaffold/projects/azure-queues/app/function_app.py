"""The functions of drover.yaml and of servicebus.yaml."""

import json
import logging

log = logging.getLogger("orders")


def orders(message):
    """Called once for each message; any exception is a failed attempt.

    message.body is what msg.get_body() is in Azure Functions, message.json() what
    msg.get_json() is. message.attempt counts failures alone; message.dequeue_count
    and message.delivery_count are what they are in Azure Functions.
    """
    order = json.loads(message.body)
    total = sum(line["price"] * line["count"] for line in order["lines"])
    log.info("order %s, attempt %d: %s", order["id"], message.attempt, total)
    return {"id": order["id"], "total": total}  # sent to the output as JSON


def receipts(message):
    log.info("receipt: %s", message.body.decode())
