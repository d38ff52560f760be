"""Measures the lag of an asyncio loop."""

from __future__ import annotations

import asyncio
import time
from typing import Callable

from drover import frames

_now = time.perf_counter_ns

# The time between two measurements, in nanoseconds, and the number of measurements in a frame.
PERIOD = 100_000_000
MANY = 10


class LoopLag:
    """Measures how late the loop runs a timer, and reports that to the daemon each
    second, if the daemon accepts STATS. It stops when the loop was idle for a second."""

    def __init__(self, loop: asyncio.AbstractEventLoop, writer: frames.Writer, busy: Callable[[], bool]) -> None:
        self._loop = loop
        self._writer = writer
        self._busy = busy  # returns whether anything is in flight
        self._lags: list[int] = []  # in µs
        self._due = 0
        self._idle = 0  # the number of consecutive measurements without an invocation
        self.awake = False  # whether it measures; if so, begin need not be called
        self.came = False  # whether an invocation has arrived since the last measurement

    def begin(self) -> None:
        """Called when an invocation has arrived."""
        self.awake = True
        self._idle = 0
        if self._writer.stats:
            self._wait()

    def _wait(self) -> None:
        self._due = _now() + PERIOD
        self._loop.call_later(PERIOD / 1e9, self._measure)

    def _measure(self) -> None:
        self._lags.append(max(_now() - self._due, 0) // 1000)
        self._idle = 0 if self.came or self._busy() else self._idle + 1
        self.came = False
        if len(self._lags) >= MANY:
            lags, self._lags = self._lags, []
            self._writer.json(frames.STATS, {"period_us": PERIOD // 1000, "lags_us": lags})
            self._writer.flush()
            if self._idle >= MANY:
                self.awake = False
                return
        self._wait()
