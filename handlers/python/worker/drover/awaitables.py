"""Awaitables that functions return instead of a value."""

from __future__ import annotations

import concurrent.futures
import inspect
from typing import Any, Awaitable


def is_awaitable(value: object) -> bool:
    return inspect.isawaitable(value) or isinstance(value, concurrent.futures.Future)


async def awaited(awaitable: Awaitable[Any]) -> Any:
    """Returns a coroutine for any awaitable."""
    return await awaitable
