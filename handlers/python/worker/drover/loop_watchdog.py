"""Detects that the loop of async functions is blocked, and reports the code that blocks it.

While an invocation is in flight, a thread samples every 20 ms which code the main thread
runs. The loop is blocked if several consecutive samples show the same callback or step of a
task, and the loop has not run a callback of the watchdog meanwhile, as it would between
two steps: so a loop that is busy with many short steps is not blocked. A busy machine does
not count as a block: the main thread must have slept, or have computed for a while, and not
only have waited for a processor. It may also have waited for another thread of the process, which
held the GIL or was just starting, and that thread for a processor: this does not count either.

While C code holds the GIL, the thread cannot take samples. Its delay shows that when the C
code returns; a kernel timer has recorded the stack in the middle of the delay.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
import threading
import time
from types import FrameType
from typing import Any, Mapping, NamedTuple, NoReturn, Protocol, Sized

from drover import frames, unpatched
from drover.stack_locations import Line, Owner, StackLocations, StackSample
from drover.stacks import Alarm, high

_now = time.perf_counter_ns

# The time between two samples; after a sample with the same code as before; and during a
# block. In ns.
LOOK, AGAIN, UNDER_WAY = 20_000_000, 5_000_000, 10_000_000
# The loop is blocked if this many consecutive samples found the same code and its thread asleep,
# or if the code has used so much processor time, in ns.
LOOKS, WORK = 3, 20_000_000
# The least delay of a sample that shows that C code held the GIL while it computed, and while
# it waited; and the processor time after which the stack of the former is recorded. In ns.
LATE, LONG, DEEP = 25_000_000, 80_000_000, 60_000_000
# The number of times that the kernel runs the main thread between two samples, from which on it
# was not in C code that waited: it woke up again and again to get the GIL.
WAKES = 16
# The place of a block by Python's garbage collector, which holds the GIL in any code.
GARBAGE = "the garbage collector"
# The number of samples without an invocation in flight after which sampling stops.
REST = 10


class _Facts(NamedTuple):
    """The measurements of a sample: the time, and the processor time of the main thread and
    of the process, all in ns; and how often the kernel took the processor from a thread that was
    running."""

    at: int
    main: int
    all: int
    preempted: int


class _Owner(Owner, Protocol):
    """The part of AsyncRunner that this module uses."""

    writer: frames.Writer

    @property
    def ready(self) -> Sized:
        """The invocations that wait for a task."""


class LoopWatchdog:
    def __init__(self, owner: _Owner) -> None:
        self._owner, self._writer = owner, owner.writer
        self._locations = StackLocations(owner)
        self._wake: unpatched.SimpleQueue[None] = unpatched.SimpleQueue()
        self.awake = False  # whether it samples; if so, begin need not be called
        self._asked = self._answered = 0
        self._turned = 0  # the time of the loop's last answer
        self._key: FrameType | None = None  # the running callback or step
        self._looks = 0  # the number of consecutive samples with it
        self._pause = LOOK  # the time to the next sample
        self._asleep = self._counted = 0  # of these samples: those with the thread asleep, and all
        self._peeked: StackSample | None = None  # the sample of peek
        self._last = 0  # the time of the last sample
        self._block: dict[str, Any] | None = None  # the report of the current block
        self._blocks = 0
        self._collecting, self._collected = 0, (0, 0)  # the start of the current collection; the start and end of the last long one
        gc.callbacks.append(self._garbage)
        self._alarm: Alarm | None = None
        self._clock: int | None = None
        try:
            self._clock = time.pthread_getcpuclockid(unpatched.MAIN)
            self._alarm = Alarm(self._clock, DEEP)
        except (AttributeError, OSError, RuntimeError, ValueError):
            pass
        self._since = self._first = self._facts()  # of begin; of the first sample of the running code
        self._main = _Schedule(threading.get_native_id())
        self._main_runs = 0  # the reading after the last sample, or of begin
        self._state = _State(threading.get_native_id())
        self._starvation = _Starvation(threading.get_native_id())
        self._waits_of_others = _Starvation(threading.get_native_id())

    def start(self) -> None:
        unpatched.start(self.run, "drover-blocked")

    def begin(self) -> None:
        """Called by the loop when an invocation has arrived. Its code may hold the GIL before
        this thread is awake."""
        self.awake = True
        self._since = self._facts()
        self._main_runs = self._main.runs()
        self._last, self._peeked = self._since.at, None
        if self._alarm is not None:
            self._alarm.put_off()
        self._wake.put(None)

    def run(self) -> NoReturn:
        self._own = _Schedule(threading.get_native_id())
        self._waited = self._own.waited()
        while True:
            self._wake.get()
            self._watch()
            self.awake = False
            if self._in_flight():  # it arrived after the last sample
                self.begin()

    def _in_flight(self) -> bool:
        return bool(self._owner.ready or self._owner.tasks)

    def _watch(self) -> None:
        idle, looks, last = 0, 0, self._since
        due, waited, self._pause = last.at, self._waited, LOOK
        preempted = last.preempted
        while idle < REST:
            due += self._pause
            left = due - _now()
            if left > 0:
                unpatched.sleep(left / 1e9)
            # If C code has just released the GIL, nothing here may pass it to the main thread
            # before that thread's stack is read.
            now = self._facts()
            late, seen = now.at - due, self._peeked
            held: list[Line] | None = None
            if late > LATE:
                due = now.at
                if seen is None:
                    seen = StackSample(self._locations, self._frame())
                    seen.detail()
                held = self._held(last, now, late, late - (self._own.waited() - waited))
            if self._alarm is not None and looks % 2 == 0:  # it costs as much as the rest of a sample
                self._alarm.put_off()
            if held is None or seen is None:
                self._look(now, StackSample(self._locations, self._frame()), now)
            else:
                self._look(now, seen, last, held)
            last, self._last, self._peeked = now, now.at, None
            self._main_runs = self._main.runs()
            looks += 1
            if looks % 10 == 0:
                waited = self._own.waited()
                if now.preempted != preempted:  # the machine is busy
                    preempted = now.preempted
                    self._waits_of_others.begin()
            idle = 0 if self._in_flight() else idle + 1
        if self._alarm is not None:
            self._alarm.end()
        self._over(now)
        self._key = None
        self._waited = self._own.waited()

    def peek(self) -> None:
        """Called by another thread, which may get the GIL before this one when C code
        releases it. A little later the main thread runs other code."""
        if self._peeked is None and self.awake and _now() - self._last > self._pause + LATE:
            seen = StackSample(self._locations, self._frame())
            seen.detail()
            self._peeked = seen

    def _garbage(self, phase: str, _: Mapping[str, int]) -> None:
        """Called by Python before and after a collection, in any thread."""
        if phase == "start":
            self._collecting = _now()
        else:
            if _now() - self._collecting >= WORK:
                self._collected = self._collecting, _now()
            self._collecting = 0

    def _frame(self) -> FrameType | None:
        return sys._current_frames().get(unpatched.MAIN)

    def _facts(self) -> _Facts:
        main = time.clock_gettime_ns(self._clock) if self._clock is not None else 0
        return _Facts(_now(), main, time.process_time_ns(), resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw)

    def _held(self, last: _Facts, now: _Facts, late: int, net: int) -> list[Line] | None:
        """Returns the stack of the main thread while its C code held the GIL; [] if the stack
        is unknown. None if no C code held it."""
        stack = self._alarm.stack() if self._alarm is not None else []
        if net < LATE or self._clock is None:
            return None
        if now.main - last.main >= WORK:
            return stack
        # C code that waits and holds the GIL: no other thread has computed. A thread that took the
        # GIL and was preempted would look the same, but it has waited for a processor; and where
        # several threads did so in turns, the main thread has tried to get the GIL many times.
        if net < LONG or now.all - last.all >= late / 5:
            return None
        if now.preempted == last.preempted:
            return []
        return None if self._main.runs() - self._main_runs >= WAKES or self._waits_of_others.exceed(late // 2) else []

    def _look(self, now: _Facts, seen: StackSample, since: _Facts, held: list[Line] | None = None) -> None:
        """Evaluates a sample of code that was running at since. held is the result of _held."""
        answered = self._asked == self._answered
        if self._block is not None and (answered or seen.root is not self._key):
            self._over(now)
        self._pause = LOOK
        if seen.root is None:
            self._key = None
            return
        if seen.root is not self._key or answered:
            self._key, self._looks, self._first = seen.root, 0, since
            self._asleep = self._counted = 0
            if answered:
                self._ask()
        self._looks += 1
        asleep = False
        if self._looks > 1:
            asleep = self._state.asleep()
            self._asleep, self._counted, self._pause = self._asleep + asleep, self._counted + 1, AGAIN
        if self._block is None:
            if held is not None:
                self._asleep, self._counted = now.main - since.main < WORK, 1
                self._tell(seen, now, held)
            elif self._looks > 1 and now.main - self._first.main >= WORK:
                self._tell(seen, now)
            elif self._looks > 1 and not asleep:
                self._looks = 1
            elif self._looks == 2:
                self._starvation.begin()
            elif self._looks >= LOOKS:
                if self._starvation.found():
                    self._looks, self._pause = 1, LOOK
                else:
                    self._tell(seen, now)
        if self._block is not None:
            self._pause = UNDER_WAY

    def _ask(self) -> None:
        self._asked += 1
        try:
            self._owner.loop.call_soon_threadsafe(self._answer, self._asked)
        except RuntimeError:  # the app has closed the loop
            self._asked -= 1

    def _answer(self, number: int) -> None:
        """Called by the loop."""
        self._answered, self._turned = number, _now()

    def _tell(self, seen: StackSample, now: _Facts, held: list[Line] | None = None) -> None:
        number, index, message, lines = seen.detail()
        # The GIL is released where a collection's end is recorded, in _garbage; and another may have begun since.
        collections = [self._collected, (self._collecting, now.at if self._collecting else 0)]
        code = self._garbage.__code__
        ending = bool(lines) and lines[0][0] == code.co_filename and lines[0][2] == code.co_name
        least = WORK if ending else (now.at - self._first.at) / 2
        if any(ended > self._first.at and ended - began >= least for began, ended in collections):
            self._blocks += 1
            self._block = {"block": self._blocks, "id": -1, "function": -1, "message": "", "place": GARBAGE, "gil": True}
            self._send(now.at, now, {})
            return
        if held and held[0][2] == ascii(lines[0][2])[1:-1]:
            lines = held
        place, stack = self._locations.describe(lines)
        if place is None:  # it is the worker's own code
            return
        self._blocks += 1
        self._block = {"block": self._blocks, "id": number, "function": index, "message": message, "place": place, "gil": held is not None}
        self._send(now.at, now, {"stack": stack} if stack else {})

    def _over(self, now: _Facts) -> None:
        if self._block is not None:
            at = self._turned if self._asked == self._answered else now.at
            self._send(at, now, {"over": True})
            self._block = None

    def _send(self, at: int, now: _Facts, more: Mapping[str, Any]) -> None:
        took = max(at - self._first.at, 0)
        slept = took * self._asleep // max(self._counted, 1)
        self._writer.json(frames.BLOCKED, {**(self._block or {}), "took_us": took // 1000, "asleep_us": slept // 1000, **more})
        self._writer.flush()


class _Starvation:
    """Finds threads of this process that wait for a processor, other than the main thread. Reading
    all threads takes a while, so it happens only when the main thread is suspected."""

    def __init__(self, main: int) -> None:
        self._main = main
        self._began = 0
        self._before: dict[int, tuple[int, int]] = {}

    def begin(self) -> None:
        self._began, self._before = _now(), self._read()[0]

    def found(self) -> bool:
        """Returns whether a thread has waited for a processor during half of the time since
        begin. The kernel counts a wait when it ends, so for a thread that is ready to run, all time
        except its processor time counts as waiting."""
        after, ready = self._read()
        least = (_now() - self._began) // 2
        for thread, (ran, waited) in after.items():
            ran_before, waited_before = self._before.get(thread, (0, 0))
            if waited - waited_before >= least or thread in ready and ran - ran_before < least:
                return True
        return False

    def exceed(self, least: int) -> bool:
        """Returns whether a thread has waited for a processor for at least that many ns since begin,
        or since it started, or all threads together twice as long. Waits that have not ended are not
        counted."""
        waits = [waited - self._before.get(thread, (0, 0))[1] for thread, (_, waited) in self._read()[0].items()]
        return max(waits, default=0) >= least or sum(waits) >= 2 * least

    def _read(self) -> tuple[dict[int, tuple[int, int]], set[int]]:
        """Returns the processor time and the waits of each other thread, in ns, and the threads that
        are ready to run."""
        times: dict[int, tuple[int, int]] = {}
        ready: set[int] = set()
        own = threading.get_native_id()
        try:
            threads = [int(name) for name in os.listdir("/proc/self/task")]
        except OSError:
            return times, ready
        for thread in threads:
            if thread in (self._main, own):
                continue
            try:
                with open(f"/proc/self/task/{thread}/stat", "rb") as stat, open(f"/proc/self/task/{thread}/schedstat", "rb") as schedstat:
                    ran, waited = schedstat.read().split()[:2]
                    times[thread] = int(ran), int(waited)
                    if stat.read().rpartition(b") ")[2][:1] == b"R":
                        ready.add(thread)
            except (OSError, ValueError):
                continue  # it has ended
        return times, ready


class _Thread:
    """A file of /proc about a thread, which is read often. Without the file, the methods
    return defaults."""

    def __init__(self, name: str, thread: int) -> None:
        try:
            self._fd = high(os.open(f"/proc/self/task/{thread}/{name}", os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            self._fd = -1

    def _read(self) -> bytes:
        return os.pread(self._fd, 512, 0)


class _State(_Thread):
    def __init__(self, thread: int) -> None:
        super().__init__("stat", thread)

    def asleep(self) -> bool:
        """Returns whether the thread waits for anything but a processor. The GIL is free during
        the read, so the thread does not wait for the GIL."""
        try:
            return self._read().rpartition(b") ")[2][:1] in (b"S", b"D")
        except OSError:
            return True


class _Schedule(_Thread):
    def __init__(self, thread: int) -> None:
        super().__init__("schedstat", thread)

    def waited(self) -> int:
        """Returns how long the thread has waited for a processor, in ns."""
        return self._field(1)

    def runs(self) -> int:
        """Returns how many times the thread got a processor."""
        return self._field(2)

    def _field(self, index: int) -> int:
        try:
            return int(self._read().split()[index])
        except (OSError, ValueError, IndexError):
            return 0
