"""The functions of drover.yaml."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # workers have this module; README.md says where editors and mypy get it
    import drover

log = logging.getLogger("orders")


@dataclass
class Line:
    price: int
    count: int


@dataclass
class Order:
    id: int
    lines: list[Line]


def orders(order: Order, message: drover.Message) -> dict[str, int]:
    """Called once for each message, with its body as an Order; any exception is a failed attempt.

    A message whose body does not fit is dead-lettered at once. `def orders(body: bytes)` would
    receive only the bytes, and `async def` also works. drover.Reject("why") dead-letters a message,
    and drover.Retry(after=30) retries it after that many seconds.
    The return value is sent to the function's output, if drover.yaml names one.
    """
    log.info("order %s, attempt %d", order.id, message.attempt)
    return {"id": order.id, "total": total(order)}


def total(order: Order) -> int:
    return sum(line.price * line.count for line in order.lines)
