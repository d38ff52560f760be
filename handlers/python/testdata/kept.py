"""Checks how much of what was read is kept by a call, and by a thread that waits. The test sets PYTHONPATH to
the worker's directory."""

import struct
import threading
import time
import tracemalloc
import types

from drover import frames, thread_pool_runner

FRAMES, BODY = 150, 1000
LIMIT = 60  # seconds; everything here takes far less


def invoke(number):
    content = struct.pack("<BIHHIqqI", frames.INVOKE, number, 0, 0, 1, 0, 0, 0) + b"x" * BODY
    return struct.pack("<I", len(content)) + content


class Socket:
    def recv(self, size, flags):
        return b"".join(map(invoke, range(FRAMES)))


def a_call_keeps_its_message():
    reader = frames.Reader(Socket())
    reader.due, reader.functions, reader.max = None, 1, 1 << 20
    reader.read()  # what is made once is not counted
    tracemalloc.start()
    kept = reader.read()[FRAMES // 2]
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept[2] == b"x" * BODY
    assert size < 10 * BODY, f"a call of a message of {BODY} bytes keeps {size}"


def a_thread_that_waits_keeps_no_body():
    runner = object.__new__(thread_pool_runner.ThreadPoolRunner)
    runner.queue = thread_pool_runner.unpatched.SimpleQueue()
    runner.running, runner.live, runner.last, runner.draining = [], 1, None, False
    runner.ending = threading.Lock()
    runner.watch = types.SimpleNamespace(awake=True)
    runner.writer = types.SimpleNamespace(last=0, flush=lambda: None)
    runner.call = lambda invocation, running: 0
    thread = threading.Thread(target=runner.serve_all, daemon=True)
    thread.start()
    tracemalloc.start()
    runner.queue.put((0, 0, bytes(1_000_000)))
    end = time.monotonic() + LIMIT
    while tracemalloc.get_traced_memory()[0] > 100_000:
        assert time.monotonic() < end, "the thread keeps the body of its last call"
        time.sleep(0.001)
    tracemalloc.stop()
    runner.queue.put(None)
    thread.join(LIMIT)


a_call_keeps_its_message()
a_thread_that_waits_keeps_no_body()
