"""Measures the processor time of calls, their delays, and how often threads wait for the GIL.

Reading a thread's clock is a system call, which costs as much as a short function. So at
most one call of each function is measured in INTERVAL: all calls that take longer, and so
few of the others that measuring costs at most 1 % of a core."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any, Callable, Generator, NamedTuple, Sequence

from drover import frames, unpatched
from drover.stacks import high
from drover.timeouts import RunningCall

# The shortest time between the starts of two measured calls of a function, in ns.
INTERVAL = 500_000
# A thread that wakes up later than this waited for another one that held the GIL: Python
# requests the GIL from its holder after 5 ms. In seconds.
HELD = 0.0025
# The time between two reports to the daemon, in seconds.
TELL = 1.0
# The shortest time between the starts of two examined calls of a worker, and between two reports of
# their delays, in ns. With several functions, each has its turn. An examined call costs about 10 µs, or 25 µs in a process of 500 threads.
EXAMINE = 4_000_000
REPORT = 100_000_000
# The number of steps of an async call that are examined at most.
STEPS = 100
# The number of threads whose calls are examined. Each needs a file descriptor.
THREADS = 8
# The factor by which the other threads may have been delayed more than they ran.
MOST_DELAYED = 3

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
        self._waits: ThreadWaits | None = None  # of the thread that samples
        self._delayed = 0
        self._read = 0.0  # when these waits were read

    def _delay(self, woke: float, late: float) -> float:
        """Returns for how long the thread waited for a core in a sleep that ended at woke, in seconds; 0
        if the system does not report it. That wait delays a sample even if the GIL is free. A wait
        between the last sample and the sleep does not: reading a file releases the GIL, and
        a thread that then waits for the GIL waits for a core, too."""
        between, self._read = woke - late - frames.WATCH - self._read, woke
        try:
            if self._waits is None:
                self._waits = ThreadWaits()
            before, self._delayed = self._delayed, self._waits.read()[0]
        except (OSError, ValueError, IndexError):
            return 0.0
        return max((self._delayed - before) / 1e9 - between, 0.0) if before else 0.0

    def sample(self, late: float) -> bool:
        """Called by one thread at each poll; late is its delay in seconds. Returns whether
        functions run."""
        if not self._tells:
            return False
        late -= self._delay(time.perf_counter(), late)
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


class ThreadWaits:
    """Reads how long, and how often, the thread that made it waited for a core."""

    __slots__ = ("_file",)

    def __init__(self) -> None:
        self._file = high(os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY | os.O_CLOEXEC))

    def read(self) -> tuple[int, int]:
        """Returns the time that the thread has waited for a core, in ns, and how often it got one."""
        _, waited, turns = os.pread(self._file, 96, 0).split()
        return int(waited), int(turns)

    def close(self) -> None:
        os.close(self._file)


class Examined(NamedTuple):
    """The state of a thread and its process at a moment. Times are in ns."""

    process: int  # the CPU time of all threads
    cpu: int
    at: int
    waited: int
    turns: int


class OwnTimes:
    """Measures the delays of some calls: the time in which they were ready to run, and waited for a
    core or for the GIL.

    The system reports the waits for a core. The wait for the GIL is at most the time in which the call
    neither ran nor waited for a core; and at most the time in which other threads of the process ran,
    prolonged by delays like those of the call; and at most 5 ms for each time that the thread
    got a core again, because Python passes on the GIL after that time. The estimate is half of the last
    bound: a thread that waits for the GIL wakes up once when the time is over, and once when it gets the GIL."""

    def __init__(self, writer: frames.Writer) -> None:
        self._writer = writer
        self._examines = writer.stats and writer.measures and HAS_CPU_CLOCK
        self._has_gil = getattr(sys, "_is_gil_enabled", lambda: True)
        self._due: dict[int, int] = {}  # the time from which a call is examined, by the function's index
        self._threads: dict[int, ThreadWaits] = {}  # by the ident of a thread
        self._lock = unpatched.Lock()  # guards _sums
        self._sums: dict[int, list[int]] = {}  # by the function's index: wall, cpu, delayed, locked, at most locked
        self._told = 0

    def begin(self, index: int, again: bool = False) -> Examined | None:
        """Called by the thread of a call of the function with this index, before the call or a step
        of it. Returns None if it is not examined. Functions have times of their own, and a step is
        examined if an earlier one of its call was (again). Otherwise a call or a step that always
        follows a short one might never be."""
        at, due = now(), self._due.get(index, 0)
        if not self._examines or at < due and not again:
            return None
        self._due[index] = max(due, at) + EXAMINE * max(len(self._due), 1)
        ident = unpatched.get_ident()
        if ident not in self._threads:
            if len(self._threads) >= THREADS:
                return None
            try:
                self._threads[ident] = ThreadWaits()
            except OSError:  # the system does not report it
                self._examines = False
                return None
        return self._examine(ident)

    def _examine(self, ident: int) -> Examined | None:
        waits = self._threads.get(ident)
        try:
            return Examined(time.process_time_ns(), cpu_now(), now(), *waits.read()) if waits is not None else None
        except (OSError, ValueError):  # a thread with this ident has ended without leave
            self.leave()
            return None

    def end(self, index: int, before: Examined) -> None:
        """Called by the same thread after it, with the function's index. No Timeout may be raised."""
        after = self._examine(unpatched.get_ident())
        if after is None or self._writer.forked:
            return
        wall = after.at - before.at
        cpu = min(after.cpu - before.cpu, wall)
        delayed = min(after.waited - before.waited, wall - cpu)
        locked = most = 0
        if self._has_gil():
            others = max(after.process - before.process - cpu, 0)
            others += min(others * delayed // max(cpu, 1), MOST_DELAYED * others)
            turns = int((after.turns - before.turns) * sys.getswitchinterval() * 1e9)
            most = min(wall - cpu - delayed, others, turns)
            locked = min(most, turns // 2)
        self._add(index, (wall, cpu, delayed, locked, most), after.at)

    def _add(self, index: int, times: Sequence[int], at: int) -> None:
        with self._lock:
            sums = self._sums.setdefault(index, [0] * len(times))
            for i, ns in enumerate(times):
                sums[i] += ns
            if at - self._told < REPORT:
                return
            self._told = at
            told, self._sums = self._sums, {}
        self._writer.json(frames.STATS, {"delays_us": [[i, *(ns // 1000 for ns in s)] for i, s in told.items()]})

    def leave(self) -> None:
        """Called by a thread that runs no more calls."""
        waits = self._threads.pop(unpatched.get_ident(), None)
        if waits is not None:
            waits.close()


class Steps:
    """Calls an async function, and measures each of its steps. own, if not None, examines some."""

    __slots__ = ("_call", "_coroutine", "_index", "_own", "cpu", "held")

    def __init__(self, call: Callable[..., Any], own: OwnTimes | None = None, index: int = 0) -> None:
        self._call = call
        self._own, self._index = own, index
        self.cpu = self.held = 0

    def __call__(self, *arguments: Any) -> Steps:
        self._coroutine = self._call(*arguments)
        return self

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine, own = self._coroutine, self._own
        step, value = coroutine.send, None
        left = STEPS
        try:
            while True:
                examined = None
                if own is not None and left > 0:
                    examined = own.begin(self._index, left < STEPS)
                    left = left - 1 if examined is not None else 0
                cpu, start = cpu_now(), now()
                try:
                    waits = step(value)
                except StopIteration as end:
                    return end.value
                finally:
                    self.held += now() - start
                    self.cpu += cpu_now() - cpu
                    if examined is not None and own is not None:
                        own.end(self._index, examined)
                try:
                    step, value = coroutine.send, (yield waits)
                except GeneratorExit:
                    raise
                except BaseException as error:
                    step, value = coroutine.throw, error
        finally:
            coroutine.close()
