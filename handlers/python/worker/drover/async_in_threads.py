"""Runs coroutines in threads, each of which has its own event loop: so a
function that blocks does not delay others."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import threading
from typing import Any, Awaitable

from drover import executor
from drover.awaitables import awaited, is_awaitable
from drover.event_loops import set_loop
from drover.functions import Function
from drover.logs import current


class AsyncInThreads:
    """Runs async functions in threads, and awaits awaitables that sync functions return."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._tasks: dict[int, tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = {}  # the loop and the task of each invocation, by number

    def function(self, function: Function) -> Function:
        """Returns a sync function that runs an async function in the thread that calls it."""
        other, call = copy.copy(function), function.call
        other.is_async = False
        other.call = lambda *arguments: self._run(current.get().number, self._loop(), call(*arguments))
        return other

    def wait(self, number: int, value: Any) -> Any:
        """Awaits a call's awaitable, and again if the result is one, too. Returns the last result."""
        while is_awaitable(value):
            if isinstance(value, concurrent.futures.Future):
                value = value.result()
                continue
            loop = value.get_loop() if asyncio.isfuture(value) else self._loop()
            if loop.is_running():  # the awaitable is a future of another thread's loop
                value = asyncio.run_coroutine_threadsafe(awaited(value), loop).result()
            else:
                value = self._run(number, loop, value)
        return value

    def _loop(self) -> asyncio.AbstractEventLoop:
        loop: asyncio.AbstractEventLoop | None = getattr(self._own, "loop", None)
        if loop is None or loop.is_closed():
            loop = set_loop()
            if loop is None:
                loop = asyncio.new_event_loop()
                loop.set_default_executor(executor.default())
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
            if not task.done():  # it was interrupted, for example by a Timeout
                task.cancel()
                loop.run_until_complete(asyncio.wait([task]))

    def cancel(self, number: int) -> bool:
        """Cancels a call, in any thread; returns False if it does not run."""
        if number not in self._tasks:
            return False
        loop, task = self._tasks[number]
        loop.call_soon_threadsafe(task.cancel)
        return True
