"""Functions whose load is known, for the scaler."""

import os
import random
import time

LOG = os.open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def burn(body):
    """20 ms of processor time."""
    end = time.process_time() + 0.02
    while time.process_time() < end:
        pass


def tell(message):
    """Says which process had it, when, and at which attempt; takes 50 ms."""
    os.write(LOG, b"%d %f %d %s\n" % (os.getppid(), time.time(), message.attempt, message.body))
    time.sleep(0.05)


def vary(message):
    """The same, when it ends, which takes 5 to 200 ms."""
    time.sleep(random.uniform(0.005, 0.2))
    os.write(LOG, b"%d %f %d %s\n" % (os.getppid(), time.time(), message.attempt, message.body))
