"""Checks drover.executor without a worker. The test sets PYTHONPATH to the worker's directory."""

import asyncio
import threading
import time

from drover import executor, unpatched

LIMIT = 60  # seconds; everything here takes far less


class Calls:
    """Calls that wait until they are released."""

    def __init__(self, pool):
        self.pool, self.released, self.began = pool, threading.Event(), threading.Semaphore(0)
        self.futures = []

    def submit(self, n):
        self.futures += [self.pool.submit(self.call) for _ in range(n)]

    def call(self):
        self.began.release()
        return self.released.wait(LIMIT)

    def run(self, n):
        """Waits until n more calls run."""
        for _ in range(n):
            assert self.began.acquire(timeout=LIMIT), "a call does not run"

    def end(self):
        self.released.set()
        assert all(f.result(LIMIT) for f in self.futures)


def few_start_at_once():
    measured = []
    executor.cpu_share = lambda seconds: measured.append(seconds) or 1.0
    calls = Calls(executor.Executor())
    calls.submit(executor.FEW)
    calls.run(executor.FEW)
    assert not measured, measured
    calls.end()


def an_idle_thread_is_reused():
    pool = executor.Executor()
    for _ in range(100):
        pool.submit(int).result(LIMIT)
    assert pool._live == 1, pool._live


def more_are_added_while_calls_wait():
    executor.cpu_share = lambda seconds: time.sleep(0) or 0.0
    calls = Calls(executor.Executor())
    calls.submit(executor.MOST + 10)
    calls.run(executor.MOST)
    with calls.pool._guard:
        assert calls.pool._live == executor.MOST, calls.pool._live
    calls.end()


def none_are_added_while_threads_compute():
    seen, twice = [], threading.Event()

    def computing(seconds):
        seen.append(seconds)
        if len(seen) == 3:
            twice.set()
        time.sleep(0.001)
        return 0.95

    executor.cpu_share = computing
    calls = Calls(executor.Executor())
    calls.submit(3 * executor.FEW)
    assert twice.wait(LIMIT)
    with calls.pool._guard:
        assert calls.pool._live == executor.FEW, calls.pool._live
    calls.end()


def surplus_threads_end_when_idle():
    executor.cpu_share = lambda seconds: time.sleep(0) or 0.0
    executor.IDLE = 0.05
    calls = Calls(executor.Executor())
    calls.submit(3 * executor.FEW)
    calls.run(3 * executor.FEW)
    calls.end()
    end = time.monotonic() + LIMIT
    while calls.pool._live > executor.FEW and time.monotonic() < end:
        time.sleep(0.01)
    assert calls.pool._live == executor.FEW, calls.pool._live
    again = Calls(calls.pool)
    again.submit(executor.FEW)
    again.run(executor.FEW)
    again.end()
    executor.IDLE = 60.0


def calls_run_although_no_thread_can_start():
    executor.cpu_share = lambda seconds: time.sleep(0) or 0.0
    start, left = unpatched.start, [40]

    def limited(target, name):
        if left[0] == 0:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        start(target, name)

    unpatched.start = limited
    try:
        pool = executor.Executor()
        calls = Calls(pool)
        calls.submit(100)
        calls.run(executor.FEW)
        calls.end()
        left[0] = 0
        try:
            executor.Executor().submit(int)
        except RuntimeError as error:
            assert "new thread" in str(error), error
        else:
            raise AssertionError("a call was accepted that nothing runs")
    finally:
        unpatched.start = start


def growth_without_its_thread():
    """The thread that adds others cannot start: calls wait for the existing ones."""
    start = unpatched.start

    def limited(target, name):
        if name == "drover-executor-growth":
            raise RuntimeError("can't start new thread")
        start(target, name)

    unpatched.start = limited
    try:
        calls = Calls(executor.Executor())
        calls.submit(2 * executor.FEW)
        calls.run(executor.FEW)
        calls.end()
    finally:
        unpatched.start = start


def all_loops_share_it():
    async def name():
        return await asyncio.get_running_loop().run_in_executor(None, lambda: threading.current_thread().name)

    for _ in range(2):
        loop = asyncio.new_event_loop()
        loop.set_default_executor(executor.default())
        assert loop.run_until_complete(name()) == "drover-executor_0"
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()  # the next loop uses it all the same


def errors_and_cancellations():
    pool = executor.Executor()
    error = pool.submit(int, "x").exception(LIMIT)
    assert isinstance(error, ValueError), error
    calls = Calls(pool)
    calls.submit(executor.FEW)
    calls.run(executor.FEW)
    executor.cpu_share = lambda seconds: time.sleep(0.001) or 1.0  # no more threads
    last = pool.submit(int)
    assert last.cancel()
    calls.end()
    assert pool.submit(int, "7", base=8).result(LIMIT) == 7


for test in (
    few_start_at_once,
    an_idle_thread_is_reused,
    more_are_added_while_calls_wait,
    none_are_added_while_threads_compute,
    surplus_threads_end_when_idle,
    calls_run_although_no_thread_can_start,
    growth_without_its_thread,
    all_loops_share_it,
    errors_and_cancellations,
):
    test()
    print(test.__name__)
