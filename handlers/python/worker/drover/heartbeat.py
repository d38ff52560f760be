"""Sends ALIVE each second, from a thread of its own: also while the event loop is
blocked or a function computes, but not while C code holds the GIL."""

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
            self._writer.alive()
