"""The work of one message: the same code in drover's functions and in its peers'.

BENCH_WORK is cpu or wait, BENCH_SECONDS how long, and BENCH_COUNTS a directory in which each
process keeps its counters, which the driver reads while it runs. With BENCH_LATENCY a body starts
with the time at which it was sent, in nanoseconds.
"""

import asyncio
import itertools
import mmap
import os
import time

SECONDS = float(os.environ.get("BENCH_SECONDS", "0"))
WAITS = os.environ.get("BENCH_WORK") == "wait"
LATENCY = "BENCH_LATENCY" in os.environ

# The counters are words of eight bytes; counts.go has the same layout.
STARTED, ENDED, OWN_CALLS, LATENCIES, RING = range(5)
RING_SIZE = 4096


def open_counters():
    """Gives this process its own counters; also after a fork."""
    global words, started, ended, own_calls, latencies
    size = 8 * (RING + RING_SIZE)
    with open(os.path.join(os.environ["BENCH_COUNTS"], str(os.getpid())), "w+b") as file:
        file.truncate(size)
        words = memoryview(mmap.mmap(file.fileno(), size)).cast("Q")
    # next() of a count is atomic, also without the GIL.
    started, ended, own_calls, latencies = (itertools.count(1) for _ in range(4))


open_counters()
os.register_at_fork(after_in_child=open_counters)


def begin(body):
    words[STARTED] = next(started)
    if LATENCY:
        took = time.time_ns() - int(body[:19])
        n = next(latencies)
        words[RING + n % RING_SIZE] = max(took, 0)
        words[LATENCIES] = n


def burn():
    """Takes SECONDS of this thread's CPU time. Reading that clock is a system call: they are
    counted, so that the driver can leave them out."""
    end = time.thread_time() + SECONDS
    words[OWN_CALLS] = next(own_calls)
    while time.thread_time() < end:
        words[OWN_CALLS] = next(own_calls)
        for _ in range(700):  # about 10 µs
            pass


def job(body):
    begin(body)
    if WAITS:
        time.sleep(SECONDS)
    elif SECONDS:
        burn()
    words[ENDED] = next(ended)


async def async_job(body):
    begin(body)
    if WAITS:
        await asyncio.sleep(SECONDS)
    elif SECONDS:
        burn()
    words[ENDED] = next(ended)
