"""Sends ALIVE each second, from a thread of its own: so also while the event loop is
blocked or a function computes. Only while C code holds the GIL it cannot."""

from drover import unpatched

# Between two of them, in seconds.
PERIOD = 1.0


class Heartbeat:
    def __init__(self, writer):
        self._writer = writer

    def start(self):
        unpatched.start(self.run, "drover-pulse")

    def run(self):
        while True:
            unpatched.sleep(PERIOD)
            self._writer.alive()
