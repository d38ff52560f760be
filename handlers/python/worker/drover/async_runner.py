"""The main thread runs an asyncio loop; sync functions run in the pool of threads."""

from __future__ import annotations

import asyncio
import collections
import contextvars
import socket
from typing import Any, Callable, NoReturn, Sequence

from drover import frames
from drover.awaitables import is_awaitable
from drover.event_loops import worker_loop
from drover.exit import broken, end_child, fail, leave_loop
from drover.frames import Cancel, Credit, Drain, Frame, Invocation, Profile, Settings
from drover.functions import Function, outcome
from drover.logs import Output, current
from drover.loop_lag import LoopLag
from drover.loop_watchdog import LoopWatchdog
from drover.measures import INTERVAL, Steps, now
from drover.profiling import profiler
from drover.results import PLAIN, refuse, streamed_body
from drover.runner import NOT_TRIED, NOTHING
from drover.stack_locations import StackLocations
from drover.streaming import send_parts_async, streams
from drover.thread_pool_runner import ThreadPoolRunner
from drover.timeouts import RunningCall


class AsyncRunner(ThreadPoolRunner):
    def __init__(
        self,
        sock: socket.socket,
        reader: frames.Reader,
        writer: frames.Writer,
        output: Output,
        functions: list[Function],
        threads: int,
    ) -> None:
        super().__init__(sock, reader, writer, output, functions, threads)
        self.loop: asyncio.AbstractEventLoop
        self.ready: collections.deque[Invocation] = collections.deque()  # invocations of async functions that wait for a task
        self.coming: asyncio.Task[None] | None = None  # a task that was created and has not started
        self.tasks: dict[int, asyncio.Task[None]] = {}  # by the number of their invocation
        self.flushing = False
        self.has_pool = any(not f.is_async for f in functions)
        self.lag: LoopLag
        self.leaving: asyncio.Task[None] | None = None  # the task that ends the process
        self.locations = StackLocations(self)
        self.watchdog = LoopWatchdog(self) if writer.blocked else None

    def run(self, got: Sequence[Frame]) -> NoReturn:
        self.loop = loop = worker_loop()
        self.lag = LoopLag(loop, self.writer, self.busy)
        if self.watchdog is not None:
            self.watch.woke = self.watchdog.peek
            self.watchdog.start()
        if self.has_pool:
            self.start()
        self.sock.setblocking(False)
        self.take(got)
        loop.add_reader(self.sock.fileno(), self.readable)
        while True:
            try:
                loop.run_forever()
                why = "the event loop was stopped"
            except (SystemExit, KeyboardInterrupt) as error:
                # asyncio does not catch these when a callback, or a task that is not a
                # function's own, raises them. An await of the task raises them, too.
                why = f"{type(error).__name__} was raised in a task or a callback"
            if self.writer.forked:
                end_child(None)
            self.warn(why + ": the worker continues; to fail a message, raise in its function")

    def set(self, payload: bytes) -> None:
        """Applies SETTINGS."""
        threads = self.settings(payload)
        if threads == self.threads or self.draining:
            return
        if self.has_pool:
            self.resize(threads)
        self.threads = threads

    def to_threads(self, functions: Sequence[int]) -> None:
        for index in functions:
            if self.functions[index].is_async and not getattr(self.functions[index], "stays", False):
                self.functions[index] = self.threaded.function(self.functions[index])
        if functions and not self.has_pool:
            self.has_pool = True
            self.start()
        for invocation in [i for i in self.ready if i[1] in functions]:
            self.ready.remove(invocation)
            self.put(invocation)

    def revoke_unstarted(self, functions: Sequence[int]) -> None:
        for invocation in [i for i in self.ready if i[1] in functions]:
            self.ready.remove(invocation)
            self.reply(invocation[0], 0, *NOT_TRIED)
        self.writer.flush()

    def replace(self, why: str) -> None:
        super().replace(why)
        self.loop.call_soon_threadsafe(self.revoke_unstarted, range(len(self.functions)))

    def forked(self) -> None:
        super().forked()
        self.loop.stop()  # the child must not run the other tasks

    def readable(self) -> None:
        try:
            self.take(self.reader.read())
        except BlockingIOError:
            pass
        except (OSError, EOFError) as error:
            broken(error)
        except ValueError:  # a frame is invalid
            fail()

    def take(self, got: Sequence[Frame]) -> None:
        self.lag.came = True
        if not self.lag.awake:
            self.lag.begin()
        if self.watchdog is not None and not self.watchdog.awake:
            self.watchdog.begin()
        ready, functions = self.ready, self.functions
        for item in got:
            if type(item) is Invocation:
                if functions[item[1]].is_async:
                    if self.replaced:
                        self.reply(item[0], 0, *NOT_TRIED)
                        self.writer.flush()
                        continue
                    if self.cancelled:  # an earlier invocation with this number was cancelled
                        self.cancelled.discard(item[0])
                    ready.append(item)
                else:
                    self.put(item)
            elif type(item) is Settings:
                self.set(item.payload)
            elif type(item) is Drain:
                self.draining = True
                self.end_if_drained()
            elif type(item) is Cancel:
                self.cancel(item.number)
            elif type(item) is Credit:
                streams.grant(item.number, item.amount)
            elif type(item) is Profile:
                profiler.take(item.payload)
        self.more()

    def cancel(self, number: int) -> None:
        task = self.tasks.get(number)
        if task is not None:
            context = self.contexts.get(number)
            if context is not None:
                context._cancelled = True
            streams.hooks.get(number, task.cancel)()
            return
        for at, invocation in enumerate(self.ready):
            if invocation[0] == number:
                del self.ready[at]
                self.reply(number, 0, *NOT_TRIED)
                self.writer.flush()
                self.end_if_drained()
                return
        super().cancel(number)

    def end_if_drained(self) -> None:
        if self.draining and not self.ready and not self.tasks:
            if self.has_pool:
                self.drain()
            else:
                self.drained()

    def drained(self) -> None:
        """Called on the loop, or in the last thread of the pool."""
        self.loop.call_soon_threadsafe(self.leave)

    def leave(self) -> None:
        if self.leaving is None:
            self.leaving = self.loop.create_task(leave_loop(self.writer))

    def more(self) -> None:
        """Ensures that a task runs the ready invocations."""
        if self.ready and self.coming is None:
            self.coming = self.loop.create_task(self.serve_safely())

    def busy(self) -> bool:
        """Called regularly; returns whether an invocation is in flight."""
        if self.coming is not None and self.coming.done():  # a function cancelled all tasks
            self.coming = None
            self.more()
        return bool(self.ready or self.tasks)

    async def serve_safely(self) -> None:
        try:
            await self.serve_ready()
        except BaseException:
            fail()

    async def serve_ready(self) -> None:
        """Runs ready invocations, one after the other, in one task. Before each it creates
        the task that continues if this one has to wait. So functions that wait have a task
        each, and those that do not wait need none: creating a task costs more than a short
        function. A task whose context a function has changed is not reused."""
        self.coming = None
        ready, tasks, functions, writer = self.ready, self.tasks, self.functions, self.writer
        task: Any = asyncio.current_task()
        running = RunningCall()
        current.set(running)
        before = contextvars.copy_context()
        began = now()
        while ready and not writer.forked:
            invocation = ready.popleft()
            if ready and self.coming is None:
                self.more()
            number, index, body, _, _, _, _, _ = invocation
            function = functions[index]
            running.number = number
            tasks[number] = task
            call, steps = function.call, None
            start = now()
            if start >= function.due:
                function.due = start + INTERVAL
                if self.measures:
                    call = steps = Steps(call, self.own_times, index)
            try:
                if self.trace is not None:
                    with self.trace(invocation):
                        value = await call(*self.arguments(function, invocation))
                elif function.wants_body:
                    value = await call(body)
                elif function.wants_invocation:
                    value = await call(invocation)
                else:
                    value = await call(*self.arguments(function, invocation))
                while type(value) not in PLAIN and value is not None:
                    if is_awaitable(value):
                        value = await value
                        continue
                    stream = streamed_body(value) if function.streams else None
                    if stream is not None:
                        value = await send_parts_async(number, value, stream, self.in_thread)
                    else:
                        refuse(value)
                    break
                answer = NOTHING if value is None else self.encoded(function, value)
                error = None
            except BaseException as raised:  # a cancelled task sends a result, too
                answer = outcome(raised)
                error = raised
            if writer.forked:
                end_child(error)
            del error
            ended = now()
            running.number = -1
            tasks.pop(number, None)
            status, payload = answer
            if steps is None:
                self.reply(number, ended - start, status, payload)
            else:
                self.reply(number, ended - start, status, payload, steps.cpu, steps.held)
            if ended - writer.last > frames.LINGER:
                writer.flush()
            elif not self.flushing:
                self.flushing = True
                if not self.watch.awake:
                    self.watch.busy()
                self.loop.call_soon(self.flush)
            if self.draining:
                self.end_if_drained()
            if not _SHARED or ended - began > _SLICE or task.cancelling() or _changed(before):
                break
        self.more()

    async def in_thread(self, call: Callable[[], Any]) -> Any:
        """Calls a function in a thread of the executor, with the context of this task."""
        return await self.loop.run_in_executor(None, contextvars.copy_context().run, call)

    def flush(self) -> None:
        self.flushing = False
        self.writer.flush()


# Whether a task knows that it is being cancelled: Python 3.11 and newer.
_SHARED = hasattr(asyncio.Task, "cancelling")
# The time that functions may run before the loop handles sockets and timers, in ns.
_SLICE = 1_000_000


def _changed(before: contextvars.Context) -> bool:
    """Returns whether a function has changed a context variable."""
    try:
        return contextvars.copy_context() != before
    except Exception:  # raised by a value's own comparison
        return True
