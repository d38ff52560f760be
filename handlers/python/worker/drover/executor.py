"""The default executor of event loops. It runs the blocking calls of async code: those of
run_in_executor(None, ...) and asyncio.to_thread, and those that libraries make in the same way.

asyncio's own has min(32, processors + 4) threads: on two processors, ten calls that an async
function makes at once would take two waits. Here the number follows the calls, and does not
depend on the threads of sync functions."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, TypeVar

from drover import unpatched

_Result = TypeVar("_Result")

# Up to this number, a call for which no thread is idle starts one at once. It is the most that
# asyncio's own executor has on any machine.
FEW = 32
# The most threads: as many as drover tries for the sync functions of a worker (maxThreads in
# daemon/internal/autoscale/tuner.go).
MOST = 512
# While calls wait and there are FEW threads or more, the number is doubled this often, in seconds:
# 80 ms for the most.
STEP = 0.02
# No thread is added while the process uses so much of a processor: the threads compute, and more
# of them only wait for the GIL, as does the event loop.
BUSY = 0.8
# A thread beyond FEW ends after this many idle seconds, like the threads of Java's cached pool.
IDLE = 60.0

_default: Executor | None = None


def default() -> Executor:
    """Returns the executor of this process. All its event loops share it."""
    global _default
    if _default is None:
        _default = Executor()
    return _default


class Executor(ThreadPoolExecutor):  # asyncio accepts no other class as its default
    def __init__(self) -> None:
        super().__init__(1)
        # Futures and their calls.
        self._waiting: unpatched.SimpleQueue[tuple[Future[Any], Callable[..., Any], Any, Any]] = unpatched.SimpleQueue()
        self._guard = unpatched.Lock()
        self._open = 0  # calls that were submitted and have not ended
        self._live = 0  # threads
        self._started = 0
        self._growing = False  # whether a thread runs _grow

    def submit(self, call: Callable[..., _Result], /, *arguments: Any, **named: Any) -> Future[_Result]:
        future: Future[_Result] = Future()
        with self._guard:
            if self._open >= self._live:
                self._add_threads()
            self._open += 1
            self._waiting.put((future, call, arguments, named))
        return future

    def _add_threads(self) -> None:
        """Adds a thread, or has threads added if the call still waits after a STEP. If a limit of
        the sandbox, the container or the user permits no more, the call waits for those that
        there are."""
        try:
            if self._live < FEW:
                self._start()
            elif self._live < MOST and not self._growing:
                unpatched.start(self._grow, "drover-executor-growth")
                self._growing = True
        except RuntimeError:
            if self._live == 0:
                raise

    def _start(self) -> None:
        unpatched.start(self._serve, f"drover-executor_{self._started}")
        self._started += 1
        self._live += 1

    def _grow(self) -> None:
        """Adds threads while calls wait. Nothing else does once there are FEW."""
        while True:
            share = cpu_share(STEP)
            with self._guard:
                more = min(self._open - self._live, self._live, MOST - self._live)
                if more <= 0:
                    self._growing = False
                    return
            if share >= BUSY:
                continue
            try:
                for _ in range(more):
                    with self._guard:  # not longer, since the event loop submits calls
                        self._start()
            except RuntimeError:
                pass  # as above

    def _serve(self) -> None:
        while True:
            try:
                item = self._waiting.get(timeout=IDLE)
            except unpatched.Empty:
                with self._guard:
                    if self._live > FEW and self._open < self._live:
                        self._live -= 1
                        return
                continue
            future, call, arguments, named = item
            if not future.set_running_or_notify_cancel():
                self._count_ended()
            else:
                try:
                    result = call(*arguments, **named)
                except BaseException as error:
                    self._count_ended()
                    future.set_exception(error)
                else:
                    self._count_ended()
                    future.set_result(result)
                result = None
            del item, future, call, arguments, named  # so that this thread does not keep them alive while it waits

    def _count_ended(self) -> None:
        """Counts a call that has ended. It comes before the result: who waits for that may submit
        the next call at once, and finds this thread idle."""
        with self._guard:
            self._open -= 1

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Does nothing. A loop calls it when it is closed; the others still use this executor.
        Its threads end with the process."""


def cpu_share(seconds: float) -> float:
    """Sleeps, and returns how much of a processor the process used meanwhile."""
    began, cpu = time.perf_counter(), time.process_time()
    unpatched.sleep(seconds)
    return (time.process_time() - cpu) / max(time.perf_counter() - began, 1e-6)
