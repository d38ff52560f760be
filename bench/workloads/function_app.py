"""The workloads that concurrency is measured with: each function is of a kind that is known.

Run as a program it prints the settings that make them take so long on this machine, as
JSON; the functions read them from workloads.json beside this file.
"""

import asyncio
import hashlib
import http.client
import importlib.util
import json
import mmap
import os
import sys
import threading
import time
from urllib.parse import urlsplit

HERE = os.path.dirname(os.path.abspath(__file__))
CPU, WAIT = 0.020, 0.100  # seconds


def spin(iterations):
    """Python alone: the GIL is held throughout."""
    x = 0
    for i in range(iterations):
        x = (x * 31 + i) & 0xFFFF
    return x


def hashed(size):
    """hashlib: the GIL is released throughout."""
    return hashlib.sha256(memoryview(BLOCK)[:size]).digest()


def calibrate(work, n):
    """How much work takes CPU seconds of this thread, alone."""
    best = float("inf")
    for _ in range(15):  # the least is what nobody disturbed
        start = time.thread_time()
        work(n)
        best = min(best, time.thread_time() - start)
    return int(n * CPU / best)


if __name__ == "__main__":
    BLOCK = bytes(1 << 24)
    json.dump({"spin": calibrate(spin, 200_000), "hash": calibrate(hashed, 1 << 24),
               "numpy": importlib.util.find_spec("numpy") is not None}, sys.stdout)
    sys.exit()

with open(os.path.join(HERE, "workloads.json")) as file:
    SET = json.load(file)
BLOCK = bytes(SET["hash"])
with open(os.path.join(HERE, "mode"), "rb") as file:
    MODE = mmap.mmap(file.fileno(), 1, prot=mmap.PROT_READ)  # the driver writes there


def noop(body):
    pass


def cpu(body):
    spin(SET["spin"])


def releases_gil(body):
    hashed(SET["hash"])


MATRIX = None


def matmul(body):
    """NumPy, whose library has threads of its own. The others do not import it."""
    global MATRIX
    if MATRIX is None:
        import numpy
        MATRIX = numpy.random.default_rng(1).random((300, 300))
    MATRIX @ MATRIX


def blocking(body):
    time.sleep(WAIT)


async def coroutine(body):
    await asyncio.sleep(WAIT)


def mixed(body):
    spin(int(SET["spin"] * 1.5))
    time.sleep(0.7 * WAIT)


OWN = threading.local()


def get():
    """A connection for each thread: with one for each request, the ports of this machine
    would be used up within a minute."""
    if not hasattr(OWN, "connection"):
        OWN.connection = http.client.HTTPConnection(urlsplit(SET["url"]).netloc)
    OWN.connection.request("GET", urlsplit(SET["url"]).path or "/")
    return OWN.connection.getresponse().read()


async def guide(body):
    """The example of Microsoft's guide, with what the standard library has for requests.get."""
    loop = asyncio.get_running_loop()
    await asyncio.wait([asyncio.ensure_future(loop.run_in_executor(None, get)) for _ in range(10)])


async def never_awaits(body):
    spin(SET["spin"])


def flips(body):
    """Of one kind or of another, whichever the driver says."""
    if MODE[0] == ord("c"):
        spin(SET["spin"])
    else:
        time.sleep(WAIT)


async def second(body):
    await asyncio.sleep(1)
