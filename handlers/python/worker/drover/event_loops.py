"""The event loops of threads."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Callable, Coroutine

from drover import executor


def set_loop() -> asyncio.AbstractEventLoop | None:
    """Returns the open event loop that the app has set for this thread, like
    asyncio.get_event_loop; None if there is none."""
    policy = getattr(asyncio.events, "_get_event_loop_policy", asyncio.get_event_loop_policy)()  # the second is deprecated
    loop: asyncio.AbstractEventLoop | None = getattr(getattr(policy, "_local", None), "_loop", None)
    return None if loop is None or loop.is_closed() else loop


class StartError(Exception):
    """An error that an app has reported instead of raising it, in one line, and its traceback."""

    def __init__(self, summary: str, detail: str) -> None:
        super().__init__(summary)
        self.detail = detail


# Coroutine functions to run on the worker's loop before READY, in each process that serves.
startups: list[Callable[[], Coroutine[Any, Any, None]]] = []

_worker_loop: asyncio.AbstractEventLoop | None = None


def worker_loop() -> asyncio.AbstractEventLoop:
    """Returns the event loop of the worker's async functions. The first call creates it. Called
    in the main thread."""
    global _worker_loop
    if _worker_loop is None:
        if sys.version_info < (3, 10):
            # Objects that the app's modules created, such as locks, may be bound to this loop.
            _worker_loop = asyncio.get_event_loop()
        else:
            try:
                from uvloop import new_event_loop
            except ImportError:
                from asyncio import new_event_loop
            _worker_loop = set_loop() or new_event_loop()
            asyncio.set_event_loop(_worker_loop)
        _worker_loop.set_default_executor(executor.default())
    return _worker_loop
