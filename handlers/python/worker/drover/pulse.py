"""Sends ALIVE each second, from a thread of its own: so also while the event loop is
blocked or a function computes. Only while C code holds the GIL it cannot."""

import threading
from time import sleep  # whatever the app makes of time.sleep

# Between two of them, in seconds.
PERIOD = 1.0


class Pulse(threading.Thread):
    def __init__(self, writer):
        super().__init__(name="drover-pulse", daemon=True)
        self._writer = writer

    def run(self):
        while True:
            sleep(PERIOD)
            self._writer.alive()
