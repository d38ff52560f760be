"""A worker process: reads invocations from file descriptor 3 and answers them.

Functions that are not async run inline, or in threads where the daemon says so
or an async function is beside them; async functions run on one asyncio loop.
"""

import asyncio
import collections
import concurrent.futures
import functools
import json
import os
import platform
import queue
import signal
import socket
import sys
import time

from drover import frames
from drover.functions import LoadError, encode, load, outcome
from drover.logs import Output, current

_now = time.perf_counter
_unpack = frames.INVOCATION.unpack_from
_FIXED = frames.INVOCATION.size


def main():
    sock = socket.socket(fileno=3)
    sock.set_inheritable(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the daemon's to handle
    writer = frames.Writer(sock)
    reader = frames.Reader(sock, 64 << 20)
    hello, rest = _hello(reader)
    if hello["protocol"] != frames.PROTOCOL:
        writer.json(frames.FAILED, {"summary": f"the daemon speaks protocol {hello['protocol']}, this worker {frames.PROTOCOL}"})
        writer.flush()
        return
    reader._max = writer.max = hello["max_frame"]
    output = Output(writer)
    try:
        functions = load(hello["app"], hello["functions"])
    except LoadError as error:
        writer.json(frames.FAILED, {"summary": str(error), "detail": error.detail})
        writer.flush()
        return
    writer.json(
        frames.READY,
        {
            "pid": os.getpid(),
            "version": f"{platform.python_implementation()} {platform.python_version()}",
            "functions": [{"name": f.name, "kind": "async" if f.is_async else "sync"} for f in functions],
        },
    )
    writer.flush()
    threads = hello["threads"]
    if any(f.is_async for f in functions):
        worker = Loop(sock, reader, writer, output, functions, threads)
    elif threads > 1:
        worker = Threads(sock, reader, writer, output, functions, threads)
    else:
        worker = Inline(sock, reader, writer, output, functions)
    worker.watch.start()
    try:
        worker.run(rest)
    except EOFError:
        _exit(writer)  # the daemon is gone: so is everyone who would want the answers
    except _Stop:
        pass
    _exit(writer)


class _Stop(Exception):
    """The daemon asked the worker to end."""


def _hello(reader):
    while True:
        try:
            got = reader.read()
        except EOFError:
            os._exit(0)
        if got:
            kind, buffer, start, end = got[0]
            if kind != frames.HELLO:
                raise ValueError(f"the first frame has type {kind}, not HELLO")
            return json.loads(bytes(buffer[start:end])), got[1:]


def _exit(writer):
    """Ends the process without waiting for threads that may never return."""
    try:
        writer.flush()
    except OSError:
        pass
    for stream in (sys.__stdout__, sys.__stderr__):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
    os._exit(0)


class _Worker:
    def __init__(self, sock, reader, writer, output, functions):
        self.sock = sock
        self.reader = reader
        self.writer = writer
        self.output = output
        self.functions = functions
        self.contexts = {}  # of the invocations that asked for one, by number
        self.watch = writer.watch

    def call(self, invocation):
        """Runs a function that is not async, and queues the reply."""
        number, function, body, attempt, enqueued, deadline, meta = invocation
        writer = self.writer
        current.set(number)
        start = _now()
        try:
            if function.wants_body:
                value = function.call(body)
            else:
                context = function.context(deadline)
                if context is not None:
                    self.contexts[number] = context
                value = function.call(*function.arguments(body, attempt, enqueued, meta, context))
            payload = b"" if value is None else encode(value)
            status = frames.OK
        except BaseException as error:  # SystemExit and KeyboardInterrupt end a call, not the worker
            status, payload = outcome(error)
        end = _now()
        if self.contexts:
            self.contexts.pop(number, None)
        self.output.end(number)
        writer.result(number, status, end - start, payload)
        current.set(-1)
        return end

    def parse(self, buffer, start, end):
        """An INVOKE frame as what call and run take."""
        number, index, _, attempt, enqueued, deadline, meta_length = _unpack(buffer, start)
        at = start + _FIXED
        body = bytes(buffer[at + meta_length : end])
        return number, self.functions[index], body, attempt, enqueued, deadline, bytes(buffer[at : at + meta_length])

    def cancel(self, number):
        context = self.contexts.get(number)
        if context is not None:
            context._cancelled.set()


class Inline(_Worker):
    """One thread: it reads, runs and answers."""

    def run(self, got):
        waiting, cancelled = collections.deque(), set()
        writer, reader, watch, call = self.writer, self.reader, self.watch, self.call
        stopping = False

        def take(got):
            nonlocal stopping
            for kind, buffer, start, end in got:
                if kind == frames.INVOKE:
                    waiting.append(self.parse(buffer, start, end))
                    if cancelled:  # of an earlier one that had this number
                        cancelled.discard(waiting[-1][0])
                elif kind == frames.CANCEL:
                    cancelled.add(frames.ID.unpack_from(buffer, start)[0])
                elif kind == frames.STOP:
                    stopping = True

        take(got)
        while True:
            while waiting:
                invocation = waiting.popleft()
                if cancelled and invocation[0] in cancelled:
                    writer.result(invocation[0], frames.NOT_TRIED, 0)
                    continue
                before = _now()
                now = call(invocation)
                if now - writer.last > frames.LINGER:
                    writer.flush()
                else:
                    watch.busy()
                if now - before > frames.LINGER:
                    # A long call: perhaps some of those behind it were cancelled.
                    try:
                        take(reader.read(socket.MSG_DONTWAIT))
                    except BlockingIOError:
                        pass
            cancelled.clear()
            writer.flush()
            if stopping:
                raise _Stop
            take(reader.read())


class Threads(_Worker):
    """The main thread reads; a pool of threads runs and answers."""

    def __init__(self, sock, reader, writer, output, functions, threads):
        super().__init__(sock, reader, writer, output, functions)
        self.waiting = queue.SimpleQueue()
        self.cancelled = set()
        self.threads = threads
        self.pool = concurrent.futures.ThreadPoolExecutor(threads, "drover")

    def start(self):
        for _ in range(self.threads):
            self.pool.submit(self.serve)

    def serve(self):
        """One thread of the pool: it lives as long as the worker, since handing
        every call to the pool anew costs more than most calls."""
        waiting, cancelled, writer, watch = self.waiting, self.cancelled, self.writer, self.watch
        while True:
            invocation = waiting.get()
            if invocation is None:
                return
            if cancelled and invocation[0] in cancelled:
                cancelled.discard(invocation[0])
                writer.result(invocation[0], frames.NOT_TRIED, 0)
                now = _now()
            else:
                now = self.call(invocation)
            if waiting.empty() or now - writer.last > frames.LINGER:
                writer.flush()
            else:
                watch.busy()

    def put(self, invocation):
        if self.cancelled:  # of an earlier one that had this number
            self.cancelled.discard(invocation[0])
        self.waiting.put(invocation)

    def cancel(self, number):
        super().cancel(number)
        if not self.waiting.empty():
            self.cancelled.add(number)
        else:
            self.cancelled.clear()

    def end(self):
        """Lets what was accepted finish."""
        for _ in range(self.threads):
            self.waiting.put(None)
        self.pool.shutdown(wait=True)

    def run(self, got):
        self.start()
        while True:
            for kind, buffer, start, end in got:
                if kind == frames.INVOKE:
                    self.put(self.parse(buffer, start, end))
                elif kind == frames.CANCEL:
                    self.cancel(frames.ID.unpack_from(buffer, start)[0])
                elif kind == frames.STOP:
                    self.end()
                    raise _Stop
            got = self.reader.read()


class Loop(Threads):
    """The main thread runs an asyncio loop; functions that are not async run in
    the pool of threads beside it."""

    def __init__(self, sock, reader, writer, output, functions, threads):
        super().__init__(sock, reader, writer, output, functions, threads)
        self.tasks = {}
        self.flushing = False
        self.loop = None
        self.ended = None

    def run(self, got):
        factory = None
        try:
            import uvloop

            factory = uvloop.new_event_loop
        except ImportError:
            pass
        loop = factory() if factory else asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        # run_in_executor(None, ...) has as many threads as the functions.
        loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(self.threads, "drover-executor"))
        loop.run_until_complete(self.serve_loop(loop, got))
        raise _Stop

    async def serve_loop(self, loop, got):
        if any(not f.is_async for f in self.functions):
            self.start()
        self.loop = loop
        self.ended = loop.create_future()
        self.sock.setblocking(False)
        self.take(got)
        loop.add_reader(self.sock.fileno(), self.readable)
        error = await self.ended
        loop.remove_reader(self.sock.fileno())
        if error is not None:
            raise error
        if self.tasks:
            await asyncio.wait(list(self.tasks.values()))
        self.end()

    def readable(self):
        try:
            self.take(self.reader.read())
        except BlockingIOError:
            pass
        except EOFError as error:
            if not self.ended.done():
                self.ended.set_result(error)
        except Exception as error:
            if not self.ended.done():
                self.ended.set_result(error)

    def take(self, got):
        tasks, create = self.tasks, self.loop.create_task
        for kind, buffer, start, end in got:
            if kind == frames.INVOKE:
                invocation = self.parse(buffer, start, end)
                if invocation[1].is_async:
                    tasks[invocation[0]] = create(self.run_async(invocation))
                else:
                    self.put(invocation)
            elif kind == frames.CANCEL:
                number = frames.ID.unpack_from(buffer, start)[0]
                self.cancel(number)
                task = tasks.get(number)
                if task is not None:
                    task.add_done_callback(functools.partial(self.not_begun, number))
                    task.cancel()
            elif kind == frames.STOP and not self.ended.done():
                self.ended.set_result(None)

    async def run_async(self, invocation):
        number, function, body, attempt, enqueued, deadline, meta = invocation
        current.set(number)
        start = _now()
        try:
            if function.wants_body:
                value = await function.call(body)
            else:
                context = function.context(deadline)
                if context is not None:
                    self.contexts[number] = context
                value = await function.call(*function.arguments(body, attempt, enqueued, meta, context))
            payload = b"" if value is None else encode(value)
            status = frames.OK
        except BaseException as error:  # a cancelled task answers too
            status, payload = outcome(error)
        self.tasks.pop(number, None)
        if self.contexts:
            self.contexts.pop(number, None)
        self.output.end(number)
        self.writer.result(number, status, _now() - start, payload)
        if not self.flushing:
            self.flushing = True
            self.watch.busy()
            self.loop.call_soon(self.flush)

    def not_begun(self, number, task):
        """Answers for a task that was cancelled before its first step."""
        if self.tasks.get(number) is task:
            del self.tasks[number]
            self.writer.result(number, frames.NOT_TRIED, 0)
            self.flush()

    def flush(self):
        self.flushing = False
        self.writer.flush()
