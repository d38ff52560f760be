"""A worker process: reads invocations from file descriptor 3 and answers them.

Functions that are not async run inline, or in threads where the daemon says so
or an async function is beside them; async functions run on one asyncio loop.
"""

import asyncio
import collections
import concurrent.futures
import contextvars
import gc
import json
import os
import platform
import queue
import signal
import socket
import sys
import time
import traceback

from drover import Context, Message, frames, traces
from drover.functions import LoadError, encode, load, outcome
from drover.lag import Lag
from drover.logs import Output, current

_now = time.perf_counter_ns


def main():
    sock = socket.socket(fileno=3)
    sock.set_inheritable(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the daemon's to handle
    writer = frames.Writer(sock)
    reader = frames.Reader(sock)
    try:
        _serve(sock, reader, writer)
    except EOFError:
        pass  # the daemon is gone: so is everyone who would want the answers
    except _Stop:
        pass
    except BaseException:  # of a frame that is wrong; threads must not keep the process
        traceback.print_exc(file=sys.__stderr__)
        _exit(writer, 1)
    _exit(writer)


def _serve(sock, reader, writer):
    hello, rest = _first(reader)
    can = hello["capabilities"]
    writer.max, writer.stats = hello["max_frame"], "stats" in can
    writer.json(
        frames.WELCOME,
        {
            "protocol": frames.PROTOCOL,
            "pid": os.getpid(),
            "language": platform.python_implementation(),
            "version": platform.python_version(),
            "capabilities": frames.CAPABILITIES,
        },
    )
    writer.flush()
    if rest or hello["protocol"] != frames.PROTOCOL:
        return  # the daemon says what is wrong
    reader.max, reader.due = hello["max_frame"], frames.LOAD
    load_frame, rest = _first(reader)
    reader.due, reader.functions = None, len(load_frame["functions"])
    output = Output(writer, "log" in can)
    try:
        functions = load(load_frame["app"], load_frame["functions"])
    except LoadError as error:
        writer.json(frames.FAILED, {"summary": str(error), "detail": error.detail})
        writer.flush()
        return
    # What the app's imports made stays: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    kinds = [{"name": f.name, "kind": "async" if f.is_async else "sync"} for f in functions]
    writer.json(frames.READY, {"functions": kinds})
    writer.flush()
    threads = load_frame["threads"]
    if any(f.is_async for f in functions):
        worker = Loop(sock, reader, writer, output, functions, threads)
    elif threads > 1:
        worker = Threads(sock, reader, writer, output, functions, threads)
    else:
        worker = Inline(sock, reader, writer, output, functions)
    worker.watch.start()
    worker.run(rest)


class _Stop(Exception):
    """The daemon asked the worker to end."""


def _first(reader):
    """What is in the frame of JSON that is to come now, and a DRAIN behind it, if there
    is one."""
    while True:
        got = reader.read()
        if got and got[0] == -1:
            raise _Stop  # nothing was invoked
        if got:
            if not isinstance(got[0], bytes):
                raise ValueError(f"a CANCEL where a frame of type {reader.due} is due")
            return json.loads(got[0]), got[1:]


def _exit(writer, status=0):
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
    os._exit(status)


class _Worker:
    """Invocations are the tuples that Reader.read gives."""

    def __init__(self, sock, reader, writer, output, functions):
        self.sock = sock
        self.reader = reader
        self.writer = writer
        self.output = output
        self.functions = functions
        self.contexts = {}  # of the invocations that asked for one, by number
        self.cancelled = set()  # of those that wait, by number
        self.watch = writer.watch
        self.trace = traces.of_app()  # None in an app without OpenTelemetry

    def call(self, invocation, running):
        """Runs a function that is not async, queues the reply, and returns when it was done."""
        number, index, data, _, body, end, _, _, _ = invocation
        function = self.functions[index]
        running[0] = number
        start = _now()
        try:
            if self.trace is not None:
                with self.trace(invocation):
                    value = function.call(*self.arguments(function, invocation))
            elif function.wants_body:
                value = function.call(data[body:end])
            else:
                value = function.call(*self.arguments(function, invocation))
            payload = b"" if value is None else encode(value)
            status = frames.OK
        except BaseException as error:  # SystemExit and KeyboardInterrupt end a call, not the worker
            status, payload = outcome(error)
        now = _now()
        self.reply(number, status, now - start, payload)
        return now

    def arguments(self, function, invocation):
        """What a function gets."""
        number, _, data, meta, body, end, attempt, enqueued, deadline = invocation
        if function.wants_body:
            return (data[body:end],)
        message = Message(data[body:end], attempt, enqueued, data[meta:body])
        if not function.wants_context:
            return (message,)
        context = self.contexts[number] = Context(function.name, deadline, message)
        if number in self.reader.states:
            context._has_state, context._state = True, self.reader.states.pop(number)
        return message, context

    def reply(self, number, status, took, payload):
        """Queues a reply, after all that the invocation said."""
        if self.contexts:
            context = self.contexts.pop(number, None)
            if context is not None and context._changed and status == frames.OK:
                status, payload = frames.STATE, frames.put_state(context._state, payload)
        if self.reader.states:
            self.reader.states.pop(number, None)  # of a function that does not ask for a context
        if self.output.parts:
            self.output.end(number)
        self.writer.result(number, status, took, payload)

    def cancel(self, number):
        context = self.contexts.get(number)
        if context is not None:
            context._cancelled.set()

    def was_cancelled(self, number):
        """Answers for an invocation that was cancelled while it waited."""
        if number not in self.cancelled:
            return False
        self.cancelled.discard(number)
        self.writer.result(number, frames.NOT_TRIED, 0)
        return True


class Inline(_Worker):
    """One thread: it reads, runs and answers."""

    def run(self, got):
        waiting, cancelled = collections.deque(), self.cancelled
        writer, reader, watch, call = self.writer, self.reader, self.watch, self.call
        running = [-1]
        current.set(running)
        stopping = False

        def take(got):
            nonlocal stopping
            for item in got:
                if type(item) is tuple:
                    waiting.append(item)
                    if cancelled:  # of an earlier one that had this number
                        cancelled.discard(item[0])
                elif item < 0:
                    stopping = True
                else:
                    cancelled.add(item)

        take(got)
        while True:
            while waiting:
                invocation = waiting.popleft()
                if cancelled and self.was_cancelled(invocation[0]):
                    continue
                before = _now()
                now = call(invocation, running)
                if now - writer.last > frames.LINGER:
                    writer.flush()
                elif not watch.awake:
                    watch.busy()
                if now - before > frames.LINGER:
                    # A long call: perhaps some of those behind it were cancelled.
                    try:
                        take(reader.read(socket.MSG_DONTWAIT))
                    except BlockingIOError:
                        pass
            running[0] = -1
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
        self.threads = threads
        self.pool = concurrent.futures.ThreadPoolExecutor(threads, "drover")

    def start(self):
        for _ in range(self.threads):
            self.pool.submit(self.serve)

    def serve(self):
        """One thread of the pool: it lives as long as the worker, since handing
        every call to the pool anew costs more than most calls."""
        waiting, cancelled, writer, watch = self.waiting, self.cancelled, self.writer, self.watch
        running = [-1]
        current.set(running)
        while True:
            invocation = waiting.get()
            if invocation is None:
                return
            if cancelled and self.was_cancelled(invocation[0]):
                now = _now()
            else:
                now = self.call(invocation, running)
            if waiting.empty() or now - writer.last > frames.LINGER:
                writer.flush()
            elif not watch.awake:
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
            for item in got:
                if type(item) is tuple:
                    self.put(item)
                elif item < 0:
                    self.end()
                    raise _Stop
                else:
                    self.cancel(item)
            got = self.reader.read()


class Loop(Threads):
    """The main thread runs an asyncio loop; functions that are not async run in
    the pool of threads beside it."""

    def __init__(self, sock, reader, writer, output, functions, threads):
        super().__init__(sock, reader, writer, output, functions, threads)
        self.ready = collections.deque()  # invocations of async functions that wait for a task
        self.coming = False  # whether a task was made that has not begun
        self.tasks = {}  # by the number of the invocation that they run
        self.flushing = False
        self.loop = None
        self.ended = None
        self.lag = None

    def run(self, got):
        if sys.version_info < (3, 10):
            # What the app's modules made, a lock perhaps, is bound to this one.
            loop = asyncio.get_event_loop()
        else:
            try:
                from uvloop import new_event_loop
            except ImportError:
                from asyncio import new_event_loop
            loop = new_event_loop()
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
        self.lag = Lag(loop, self.writer, lambda: self.ready or self.tasks)
        self.sock.setblocking(False)
        self.take(got)
        loop.add_reader(self.sock.fileno(), self.readable)
        error = await self.ended
        loop.remove_reader(self.sock.fileno())
        if error is not None:
            raise error
        while self.ready or self.tasks:
            await asyncio.sleep(0)
            if self.tasks:
                await asyncio.wait(list(self.tasks.values()))
        self.end()

    def readable(self):
        try:
            self.take(self.reader.read())
        except BlockingIOError:
            pass
        except Exception as error:
            if not self.ended.done():
                self.ended.set_result(error)

    def take(self, got):
        self.lag.came = True
        if not self.lag.awake:
            self.lag.begin()
        ready, functions = self.ready, self.functions
        for item in got:
            if type(item) is tuple:
                if functions[item[1]].is_async:
                    ready.append(item)
                    if self.cancelled:  # of an earlier one that had this number
                        self.cancelled.discard(item[0])
                else:
                    self.put(item)
            elif item < 0:
                if not self.ended.done():
                    self.ended.set_result(None)
            else:
                self.cancel(item)
        self.more()

    def cancel(self, number):
        task = self.tasks.get(number)
        if task is not None:
            _Worker.cancel(self, number)
            task.cancel()
            return
        for at, invocation in enumerate(self.ready):
            if invocation[0] == number:
                del self.ready[at]
                self.writer.result(number, frames.NOT_TRIED, 0)
                self.writer.flush()
                return
        super().cancel(number)

    def more(self):
        """Sees to it that what is ready is run."""
        if self.ready and not self.coming:
            self.coming = True
            self.loop.create_task(self.serve_ready())

    async def serve_ready(self):
        """Runs what is ready, one after the other, in one task. Before each it makes
        the task that goes on if this one has to wait: so functions that wait have a
        task each, and those that do not are spared the making of one, which costs
        more than they do. A task that a function left changed is not used again."""
        self.coming = False
        ready, tasks, functions, writer = self.ready, self.tasks, self.functions, self.writer
        task, running = asyncio.current_task(), [-1]
        current.set(running)
        before = contextvars.copy_context()
        began = _now()
        while ready:
            invocation = ready.popleft()
            if ready and not self.coming:
                self.more()
            number, index, data, _, body, end, _, _, _ = invocation
            function = functions[index]
            running[0] = number
            tasks[number] = task
            start = _now()
            try:
                if self.trace is not None:
                    with self.trace(invocation):
                        value = await function.call(*self.arguments(function, invocation))
                elif function.wants_body:
                    value = await function.call(data[body:end])
                else:
                    value = await function.call(*self.arguments(function, invocation))
                payload = b"" if value is None else encode(value)
                status = frames.OK
            except BaseException as error:  # a cancelled task answers too
                status, payload = outcome(error)
            now = _now()
            tasks.pop(number, None)
            self.reply(number, status, now - start, payload)
            if now - writer.last > frames.LINGER:
                writer.flush()
            elif not self.flushing:
                self.flushing = True
                if not self.watch.awake:
                    self.watch.busy()
                self.loop.call_soon(self.flush)
            if not _SHARED or now - began > _SLICE or task.cancelling() or _changed(before):
                break
        self.more()

    def flush(self):
        self.flushing = False
        self.writer.flush()


# Whether a task can tell that it is being cancelled: Python 3.11 and newer.
_SHARED = hasattr(asyncio.Task, "cancelling")
# How long functions run before the loop looks at sockets and timers, in ns.
_SLICE = 1_000_000


def _changed(before):
    """Whether a function left a context variable behind."""
    try:
        return contextvars.copy_context() != before
    except Exception:  # of a value's own comparison
        return True
