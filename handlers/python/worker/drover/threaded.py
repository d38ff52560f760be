"""Runs async functions in threads, each of which has an event loop of its own: there
a function that blocks holds up nobody."""

import asyncio
import copy
import threading

from drover.logs import current


class Threaded:
    """The async functions that run in threads."""

    def __init__(self):
        self._own = threading.local()
        self._tasks = {}  # the loop and the task of an invocation, by its number

    def function(self, function):
        """What runs an async function in the thread that calls it."""
        other, call = copy.copy(function), function.call
        other.is_async = False
        other.call = lambda *arguments: self._run(call, arguments)
        return other

    def _run(self, call, arguments):
        loop = getattr(self._own, "loop", None)
        if loop is None or loop.is_closed():
            loop = self._own.loop = asyncio.new_event_loop()
            asyncio.set_event_loop(loop)
        number, task = current.get().number, loop.create_task(_awaited(call, arguments))
        self._tasks[number] = loop, task
        try:
            return loop.run_until_complete(task)
        finally:
            self._tasks.pop(number, None)
            if not task.done():  # something came between, such as a Timeout
                task.cancel()
                loop.run_until_complete(asyncio.wait([task]))

    def cancel(self, number):
        """Cancels a call, in whatever thread it runs; False if it does not run."""
        loop, task = self._tasks.get(number, (None, None))
        if loop is None:
            return False
        loop.call_soon_threadsafe(task.cancel)
        return True


async def _awaited(call, arguments):
    return await call(*arguments)
