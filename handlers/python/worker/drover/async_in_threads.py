"""Runs coroutines in threads, each of which has an event loop of its own: there a
function that blocks holds up nobody."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import threading
from typing import Any, Awaitable

from drover.event_loops import awaited, is_awaitable, set_loop
from drover.functions import Function
from drover.logs import current


class AsyncInThreads:
    """The async functions that run in threads, and what functions that are not async
    return to be awaited."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._tasks: dict[int, tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = {}  # the loop and the task of an invocation, by its number

    def function(self, function: Function) -> Function:
        """What runs an async function in the thread that calls it."""
        other, call = copy.copy(function), function.call
        other.is_async = False
        other.call = lambda *arguments: self._run(current.get().number, self._loop(), call(*arguments))
        return other

    def wait(self, number: int, value: Any) -> Any:
        """Returns what a call's awaitable comes to, and what that comes to if it is one,
        too."""
        while is_awaitable(value):
            if isinstance(value, concurrent.futures.Future):
                value = value.result()
                continue
            loop = value.get_loop() if asyncio.isfuture(value) else self._loop()
            if loop.is_running():  # a future of another thread's loop
                value = asyncio.run_coroutine_threadsafe(awaited(value), loop).result()
            else:
                value = self._run(number, loop, value)
        return value

    def _loop(self) -> asyncio.AbstractEventLoop:
        loop: asyncio.AbstractEventLoop | None = getattr(self._own, "loop", None)
        if loop is None or loop.is_closed():
            loop = set_loop() or asyncio.new_event_loop()
            self._own.loop = loop
            asyncio.set_event_loop(loop)
        return loop

    def _run(self, number: int, loop: asyncio.AbstractEventLoop, awaitable: Awaitable[Any]) -> Any:
        task = loop.create_task(awaited(awaitable))
        self._tasks[number] = loop, task
        try:
            return loop.run_until_complete(task)
        finally:
            self._tasks.pop(number, None)
            if not task.done():  # something came between, such as a Timeout
                task.cancel()
                loop.run_until_complete(asyncio.wait([task]))

    def cancel(self, number: int) -> bool:
        """Cancels a call, in whatever thread it runs; False if it does not run."""
        if number not in self._tasks:
            return False
        loop, task = self._tasks[number]
        loop.call_soon_threadsafe(task.cancel)
        return True
