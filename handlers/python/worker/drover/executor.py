"""The event loop's default executor, whose number of threads can change while it runs.

The number of threads of the standard library's executor is fixed. If a new executor replaced
it, the waiting calls would still run in the threads of the old one."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, TypeVar

_Result = TypeVar("_Result")


class Executor(ThreadPoolExecutor):  # asyncio accepts no other class as its default
    def __init__(self, threads: int) -> None:
        super().__init__(1)
        # Futures and their calls; None ends one thread.
        self._waiting: queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], Any, Any] | None] = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._wanted = threads
        self._live = 0  # threads that have no order to end
        self._started = 0
        self._closed = False
        self._all: list[threading.Thread] = []  # threads that may still run

    def submit(self, call: Callable[..., _Result], /, *arguments: Any, **named: Any) -> Future[_Result]:
        future: Future[_Result] = Future()
        with self._guard:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._waiting.put((future, call, arguments, named))
            if self._live < self._wanted:
                self._start(1)
        return future

    def resize(self, threads: int) -> None:
        """Limits the number of threads, also for calls that wait already."""
        with self._guard:
            self._wanted = threads
            self._start(min(threads - self._live, self._waiting.qsize()))
            while self._live > threads:
                self._live -= 1
                self._waiting.put(None)

    def _start(self, n: int) -> None:
        for _ in range(n):
            thread = threading.Thread(target=self._serve, name=f"drover-executor_{self._started}", daemon=True)
            self._all = [t for t in self._all if t.is_alive()] + [thread]
            thread.start()
            self._started += 1
            self._live += 1

    def _serve(self) -> None:
        while True:
            item = self._waiting.get()
            if item is None:
                return
            future, call, arguments, named = item
            if future.set_running_or_notify_cancel():
                try:
                    result = call(*arguments, **named)
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
                result = None
            del item, future, call, arguments, named  # so that this thread does not keep them alive while it waits

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accepts no more calls. Runs those that it has accepted, except cancelled ones."""
        with self._guard:
            self._closed = True
            if cancel_futures:
                kept = []
                try:
                    while True:
                        item = self._waiting.get_nowait()
                        if item is None or not item[0].cancel():
                            kept.append(item)
                except queue.Empty:
                    pass
                for item in kept:
                    self._waiting.put(item)
            ending, self._live = self._live, 0
        for _ in range(ending):
            self._waiting.put(None)
        if wait:
            for thread in self._all:
                thread.join()
