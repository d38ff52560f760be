"""Sends ALIVE each second, from its own thread: also while the event loop is
blocked or a function computes, but not while C code holds the GIL. The same thread wakes the
watch if a call that was expected to be short still runs."""

from __future__ import annotations

from drover import unpatched
from drover.frames import Writer

# The time between two of them, in seconds.
PERIOD = 1.0


class Heartbeat:
    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def start(self) -> None:
        unpatched.start(self.run, "drover-pulse")

    def run(self) -> None:
        while True:
            unpatched.sleep(PERIOD)
            if self._writer.heartbeat:
                self._writer.alive()
            self._writer.watch.check()
