"""The event loops of threads, and the awaitables that run on them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
from typing import Any, Awaitable


def is_awaitable(value: object) -> bool:
    return inspect.isawaitable(value) or isinstance(value, concurrent.futures.Future)


async def awaited(awaitable: Awaitable[Any]) -> Any:
    """Makes a coroutine of any awaitable."""
    return await awaitable


def set_loop() -> asyncio.AbstractEventLoop | None:
    """Returns the open event loop that the app has set for this thread, like
    asyncio.get_event_loop; None if there is none."""
    policy = getattr(asyncio.events, "_get_event_loop_policy", asyncio.get_event_loop_policy)()  # the second is deprecated
    loop: asyncio.AbstractEventLoop | None = getattr(getattr(policy, "_local", None), "_loop", None)
    return None if loop is None or loop.is_closed() else loop
