"""Samples the stacks of one function's calls, for a profile that the daemon requests by PROFILE.

While a profile runs, a thread reads the stacks of the threads that run a call of the function. Of
the main thread's event loop, it reads the stack of the step that runs: an async call that waits has
none. Each stack is kept once, with the number of its samples and the time since the sample before
each of them, which they stand for."""

from __future__ import annotations

import json
import os
import sys
import time
from types import CodeType, FrameType
from typing import Any, Protocol

from drover import frames, unpatched
from drover.stack_locations import StackLocations
from drover.timeouts import RunningCall

# Bounds of a result, as in docs/worker-protocol.md: its stacks, the frames of each, its lines of code, and the
# characters of a name.
MAX_STACKS, MAX_FRAMES, MAX_LINES, MAX_TEXT = 10_000, 128, 20_000, 500
# Samples are taken less often if they would use more than a hundredth of a core: stacks may be
# deep, and threads many.
COST = 100
# The time in seconds after which the thread that computes must pass the GIL to the one that samples. Without
# a profile it is 5 ms: code that computes for a shorter time, and then waits, would have no samples.
SWITCH = 0.0005
# How long the end of the process waits for the last result, in seconds.
LAST = 1.0

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_LIBRARIES = os.sep + "site-packages" + os.sep, os.sep + "dist-packages" + os.sep
_STANDARD = os.path.dirname(os.__file__) + os.sep
_now = time.perf_counter_ns
_cpu = time.thread_time_ns if hasattr(time, "thread_time_ns") else _now


class Owner(Protocol):
    """The part of a runner that this module uses. Its method call runs a sync function."""

    running: list[RunningCall]
    locations: StackLocations | None  # of an event loop in the main thread

    @property
    def functions(self) -> list[Any]: ...

    def call(self, invocation: Any, running: RunningCall) -> int: ...


class Profiler:
    """Starts and ends profiles. Its methods are called by the thread that handles frames, finish
    also by the one that ends the process."""

    def __init__(self) -> None:
        self.owner: Owner | None = None  # the runner of this process, now
        self.writer: frames.Writer | None = None
        self._running: _Profile | None = None

    def take(self, payload: bytes) -> None:
        """Handles a PROFILE. Raises ValueError if it is invalid."""
        owner, writer = self.owner, self.writer
        try:
            wanted = json.loads(payload)
            number, index, period = (int(wanted[key]) for key in ("profile", "function", "period_us"))
        except (LookupError, TypeError) as error:
            raise ValueError(f"a PROFILE that lacks a number: {error}") from None
        if owner is None or writer is None or not 0 <= index < len(owner.functions) or period < 0:
            raise ValueError(f"a PROFILE of function {index}, with the period {period}")
        running = self._running
        if period > 0:
            self.finish()
            self._running = running = _Profile(self, writer, number, index, period * 1000)
            unpatched.start(running.run, "drover-profile")
        elif running is not None and running.number == number:
            running.orders.put(None)

    def finish(self) -> None:
        """Ends a running profile, and waits until its result is queued."""
        running, self._running = self._running, None
        if running is not None:
            running.orders.put(None)
            running.ended.acquire(timeout=LAST)


class _Profile:
    def __init__(self, profiler: Profiler, writer: frames.Writer, number: int, index: int, period: int) -> None:
        """period is in ns."""
        self.number = number
        self.orders: unpatched.SimpleQueue[None] = unpatched.SimpleQueue()  # None ends it
        self.ended = unpatched.Lock()  # released at its end
        self.ended.acquire()
        self._profiler, self._writer, self._index, self._period = profiler, writer, index, period
        self._lines: dict[tuple[int, int], int] = {}  # the index of a line, by the code's id and the instruction
        self._codes: list[tuple[CodeType, int]] = []  # the code and the line number of each; it keeps the ids valid
        self._stacks: dict[tuple[int, ...], list[int]] = {}  # samples and time, by lines
        self._dropped = [0, 0]

    def run(self) -> None:
        interval = sys.getswitchinterval()
        sys.setswitchinterval(min(interval, SWITCH))
        try:
            self._sample_all()
            payload = self._encode()
        except Exception as error:
            payload = self._payload([], error=f"{type(error).__name__}: {error}"[:MAX_TEXT])
        finally:
            sys.setswitchinterval(interval)
        if not self._writer.forked:
            self._writer.encoded(frames.PROFILED, payload)
            self._writer.flush()
        self.ended.release()

    def _sample_all(self) -> None:
        last, pause = _now(), self._period
        while True:
            try:
                self.orders.get(timeout=pause / 1e9)
                return
            except unpatched.Empty:
                pass
            began, at = _cpu(), _now()
            self._sample(at - last)
            last, pause = at, max(self._period, COST * (_cpu() - began))

    def _sample(self, elapsed: int) -> None:
        """Adds a sample of each call of the function that runs."""
        owner = self._profiler.owner
        if owner is None:
            return
        found = sys._current_frames()
        base = type(owner).call.__code__
        for running in list(owner.running):
            if running.number >= 0:
                self._add(_cut_call(found.get(running.thread), base, self._index), elapsed)
        locations = owner.locations
        if locations is not None:
            frame = found.get(unpatched.MAIN)
            if locations.invocation(frame)[1] == self._index:
                self._add(locations.step(frame), elapsed)

    def _add(self, stack: list[FrameType], elapsed: int) -> None:
        """Adds a sample of a stack, the innermost frame first; nothing if it is empty."""
        stack = _without_own(stack)
        if not stack:
            return
        key = tuple(self._line(frame) for frame in stack[:MAX_FRAMES])
        counts = self._stacks.get(key)
        if counts is None:
            counts = self._dropped
            if len(self._stacks) < MAX_STACKS and -1 not in key:
                counts = self._stacks[key] = [0, 0]
        counts[0] += 1
        counts[1] += elapsed

    def _line(self, frame: FrameType) -> int:
        """Returns the index of the line that a frame runs; -1 if there are too many."""
        code, at = frame.f_code, frame.f_lasti
        line = self._lines.get((id(code), at))
        if line is None:
            if len(self._codes) == MAX_LINES:
                return -1
            line = self._lines[id(code), at] = len(self._codes)
            self._codes.append((code, frame.f_lineno or 0))
        return line

    def _encode(self) -> bytes:
        """Returns the payload of PROFILED. If it would be too long, the stacks with the least time are dropped."""
        stacks = sorted(self._stacks.items(), key=lambda item: -item[1][1])
        while True:
            payload = self._payload(stacks)
            if len(payload) < frames.MAX_LOAD or not stacks:
                return payload
            for _, counts in stacks[len(stacks) // 2 :]:
                self._dropped[0] += counts[0]
                self._dropped[1] += counts[1]
            del stacks[len(stacks) // 2 :]

    def _payload(self, stacks: list[tuple[tuple[int, ...], list[int]]], **more: str) -> bytes:
        used = {line: at for at, line in enumerate(dict.fromkeys(line for key, _ in stacks for line in key))}
        result = {
            "profile": self.number,
            "lines": [_describe(*self._codes[line]) for line in used],
            "stacks": [{"stack": [used[line] for line in key], **_counts(counts)} for key, counts in stacks],
            "dropped": _counts(self._dropped),
            **more,
        }
        return json.dumps(result, separators=(",", ":")).encode()


def _counts(counts: list[int]) -> dict[str, int]:
    return {"samples": counts[0], "time_us": counts[1] // 1000}


def _describe(code: CodeType, line: int) -> dict[str, object]:
    name: str = getattr(code, "co_qualname", code.co_name)  # Python 3.11
    return {"function": name[:MAX_TEXT], "file": code.co_filename[:MAX_TEXT], "line": line, "start": code.co_firstlineno}


def _cut_call(frame: FrameType | None, base: CodeType, index: int) -> list[FrameType]:
    """Returns the frames of a thread that runs a call of a function, the innermost first; [] if it
    runs none. base is the code of Runner.call."""
    stack: list[FrameType] = []
    while frame is not None:
        if frame.f_code is base:
            # A frame of call itself runs before or after the function.
            return (stack or [frame]) if frame.f_locals.get("index") == index else []
        stack.append(frame)
        frame = frame.f_back
    return []


def _without_own(stack: list[FrameType]) -> list[FrameType]:
    """Returns a stack without the worker's own frames that call the function; empty if it has no others."""
    for at in range(len(stack) - 1, -1, -1):
        file = stack[at].f_code.co_filename
        if not file.startswith(_HERE):
            if file.startswith(_STANDARD) and not any(part in file for part in _LIBRARIES):
                return stack  # the worker encodes a result, for example
            return stack[: at + 1]
    return []


profiler = Profiler()
