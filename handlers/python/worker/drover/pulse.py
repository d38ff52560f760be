"""Sends ALIVE each second, from a thread of its own: so also while the event loop is
blocked or a function computes. Only while C code holds the GIL it cannot."""

from drover import real

# Between two of them, in seconds.
PERIOD = 1.0


class Pulse:
    def __init__(self, writer):
        self._writer = writer

    def start(self):
        real.start(self.run, "drover-pulse")

    def run(self):
        while True:
            real.sleep(PERIOD)
            self._writer.alive()
