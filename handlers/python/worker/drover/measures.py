"""Measures the processor time of calls, and how often threads wait for the GIL.

Reading a thread's clock is a system call, which costs as much as a short function. So at
most one call of each function is measured in INTERVAL: all calls that take longer, and so
few of the others that measuring costs at most 1 % of a core."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from typing import Any, Callable, Generator, Sequence

from drover import frames
from drover.timeouts import RunningCall

# The shortest time between the starts of two measured calls of a function, in ns.
INTERVAL = 500_000
# A thread that wakes up later than this waited for another one that held the GIL: Python
# requests the GIL from its holder after 5 ms. In seconds.
HELD = 0.0025
# The time between two reports to the daemon, in seconds.
TELL = 1.0

now = time.perf_counter_ns
HAS_CPU_CLOCK = hasattr(time, "thread_time_ns")  # without it, no call is measured
cpu_now = time.thread_time_ns if HAS_CPU_CLOCK else now


class GilSampler:
    """Samples how often a thread that wakes up while functions run has to wait for the GIL."""

    def __init__(self, writer: frames.Writer, running: Sequence[RunningCall]) -> None:
        self._writer = writer
        self._tells = writer.stats and writer.measures
        self._running = running  # the calls in threads
        self._seen: dict[int, list[int]] = {}  # by the function's index: all samples, and those that waited
        self._told = time.monotonic()
        self._delays: int | None = None  # a file with the time that this thread waited for a core
        self._delayed = 0

    def _delay(self) -> float:
        """Returns how long the thread waited for a core since the last call, in seconds; 0 if
        the system does not report it. That wait delays a sample even if the GIL is free."""
        try:
            if self._delays is None:
                opened = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
                # Not a low number: functions may close low ones that they do not own.
                self._delays = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, 100)
                os.close(opened)
            before, self._delayed = self._delayed, int(os.pread(self._delays, 64, 0).split()[1])
        except (OSError, ValueError, IndexError):
            self._delays = -1
            return 0.0
        return (self._delayed - before) / 1e9 if before else 0.0

    def sample(self, late: float) -> bool:
        """Called by one thread at each poll; late is its delay in seconds. Returns whether
        functions run."""
        if not self._tells:
            return False
        late -= self._delay()
        runs = False
        for running in list(self._running):
            if running.number >= 0:
                runs = True
                seen = self._seen.setdefault(running.index, [0, 0])
                seen[0] += 1
                if late > HELD:
                    seen[1] += 1
        if self._seen and time.monotonic() - self._told > TELL:
            self._told = time.monotonic()
            samples, self._seen = self._seen, {}
            self._writer.json(frames.STATS, {"gil": [[index, *counts] for index, counts in samples.items()]})
            self._writer.flush()
        return runs


class Steps:
    """Calls an async function, and measures each of its steps."""

    __slots__ = ("_call", "_coroutine", "cpu", "held")

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call
        self.cpu = self.held = 0

    def __call__(self, *arguments: Any) -> Steps:
        self._coroutine = self._call(*arguments)
        return self

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine = self._coroutine
        step, value = coroutine.send, None
        try:
            while True:
                cpu, start = cpu_now(), now()
                try:
                    waits = step(value)
                except StopIteration as end:
                    return end.value
                finally:
                    self.held += now() - start
                    self.cpu += cpu_now() - cpu
                try:
                    step, value = coroutine.send, (yield waits)
                except GeneratorExit:
                    raise
                except BaseException as error:
                    step, value = coroutine.throw, error
        finally:
            coroutine.close()
