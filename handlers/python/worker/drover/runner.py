"""The common part of all runners: a call and its result."""

from __future__ import annotations

import collections
import json
import os
import socket
import time
from typing import Any, Sequence, Set

from drover import Context, Message, frames, payloads, traces
from drover.async_in_threads import AsyncInThreads
from drover.awaitables import is_awaitable
from drover.exit import end_child
from drover.frames import HOLD, LINGER, Frame, Invocation
from drover.functions import Function, outcome
from drover.invocations import ids
from drover.logs import Output, send
from drover.measures import HAS_CPU_CLOCK, INTERVAL, OwnTimes, cpu_now, now
from drover.profiling import profiler
from drover.results import PLAIN, Misaddressed, Unsendable, refuse, streamed_body
from drover.stack_locations import StackLocations
from drover.streaming import Stream, send_parts, streams
from drover.timeouts import Interrupter, RunningCall

OK = payloads.OK
NOTHING = OK, b""
NOT_TRIED = payloads.NOT_TRIED, b""
_ADDED = payloads.DESCRIBED | payloads.SENT
# A call of up to SHORT ns does not wake the watch, unless its deadline is within SOON µs.
SHORT, SOON = 500_000, 2_000_000
# After calls of some duration, results may wait for this many further calls, at most for HOLD.
BURST = 8


class _All(Set[int]):
    """A set that contains every number."""

    def __contains__(self, _: object) -> bool:
        return True

    def __bool__(self) -> bool:
        return True

    def add(self, _: int) -> None:
        pass

    def discard(self, _: object) -> None:
        pass


class Runner:
    """Runs functions. before is the previous runner, if any: its method run has returned,
    with the requested number of threads."""

    serving: Runner | None = None  # the runner of this process, now

    def __init__(
        self,
        sock: socket.socket,
        reader: frames.Reader,
        writer: frames.Writer,
        output: Output,
        functions: list[Function],
        before: Runner | None = None,
    ) -> None:
        self.sock = sock
        self.reader = reader
        self.writer = writer
        self.output = output
        self.functions = functions
        self.waiting: collections.deque[Invocation] = collections.deque()  # invocations of sync functions
        self.contexts: dict[int, Context] = {}  # of the invocations whose function takes one, by number
        self.cancelled: set[int] = set()  # the numbers of cancelled invocations; one stays until it is reused
        self.replaced = False  # whether this worker has requested its replacement
        self.running: list[RunningCall] = []  # the calls that a Timeout can interrupt
        self.interrupter: Interrupter | None = None  # raises Timeout; None if that is impossible
        self.locations: StackLocations | None = None  # of an event loop in the main thread
        self.threaded = AsyncInThreads()  # runs coroutines on event loops of threads
        self.watch = writer.watch
        self.watch.runs = self.runs
        self.measures = writer.measures and HAS_CPU_CLOCK
        self.own_times: OwnTimes = OwnTimes(writer) if before is None else before.own_times
        self.trace = traces.of_app()  # None in an app without OpenTelemetry
        self.draining = False
        if Runner.serving is None:
            os.register_at_fork(after_in_child=_forked)
        Runner.serving = self
        streams.wait = self.await_credit
        profiler.owner = self
        if before is not None:
            self.waiting, self.contexts, self.cancelled, self.draining = before.waiting, before.contexts, before.cancelled, before.draining
            self.replaced = before.replaced

    def run(self, got: Sequence[Frame]) -> int:
        """Handles the frames in got, and then those that arrive. Returns when another runner
        must take over, with the requested number of threads."""
        raise NotImplementedError

    def settings(self, payload: bytes) -> int:
        """Applies SETTINGS; returns the number of threads that they request."""
        wanted = json.loads(payload)
        threads = wanted["threads"]
        if not isinstance(threads, int) or threads < 1:
            raise ValueError(f"SETTINGS with {threads!r} threads")
        self.revoke_unstarted(wanted.get("away") or ())
        self.to_threads(wanted.get("threaded") or ())
        return threads

    def runs(self) -> bool:
        """Returns whether a function runs in a thread."""
        return any(running.number >= 0 for running in list(self.running))

    def to_threads(self, functions: Sequence[int]) -> None:
        """Runs some async functions in threads from now on."""

    def revoke_unstarted(self, functions: Sequence[int]) -> None:
        """Sends "not tried" for the invocations of some functions that have not started."""
        if functions:
            for invocation in self.take_waiting(functions):
                self.reply(invocation[0], 0, *NOT_TRIED)
            self.writer.flush()

    def take_waiting(self, functions: Sequence[int]) -> list[Invocation]:
        """Removes and returns the waiting invocations of some functions."""
        return [i for i in list(self.waiting) if i[1] in functions and Runner.withdraw(self, i[0])]

    def call(self, invocation: Invocation, running: RunningCall) -> int:
        """Runs a sync function, queues its result, and returns the time at which it ended."""
        number, index, body, _, _, _, deadline, _ = invocation
        function = self.functions[index]
        answer = None
        cpu = -1
        measured = False
        examined = None
        start = now()
        if start >= function.due:
            function.due = start + INTERVAL
            running.index = index
            measured = True
            self.expect(function.took, deadline)
            if self.measures:
                examined = self.own_times.begin(index)
            start = now()
            if self.measures:
                cpu = cpu_now()
        try:
            running.number = number  # from here on a Timeout may be raised, once
            try:
                if self.cancelled and number in self.cancelled:
                    answer = NOT_TRIED
                else:
                    if self.trace is not None:
                        with self.trace(invocation):
                            value = function.call(*self.arguments(function, invocation))
                    elif function.wants_body:
                        value = function.call(body)
                    elif function.wants_invocation:
                        value = function.call(invocation)
                    else:
                        value = function.call(*self.arguments(function, invocation))
                    answer = NOTHING if value is None else self.answer(number, function, value)
            except BaseException as error:  # SystemExit and KeyboardInterrupt end a call, not the worker
                if running.is_child():
                    end_child(error)
                answer = outcome(error)
            running.number = -1
            if running.interruption:
                self.settle(running)
        except BaseException as error:  # a Timeout that was raised after the function had ended
            running.number = -1
            if running.interruption:
                self.settle(running)
            if answer is None:
                answer = outcome(error)
        ended = now()
        if cpu >= 0:
            cpu = cpu_now() - cpu
        if examined is not None:
            self.own_times.end(index, examined)
        if measured:
            took = function.took = ended - start
            running.hold = LINGER if function.urgent or took < LINGER else min(BURST * took, HOLD)
        status, payload = answer
        self.reply(number, ended - start, status, payload, cpu, ended - start)
        return ended

    def expect(self, took: int, deadline: int) -> None:
        """Called before a call that is measured. took is the duration of an earlier one. Wakes the
        watch unless the call is short, and sends results that would wait behind it."""
        watch = self.watch
        if not watch.awake and (took > SHORT or deadline and deadline < time.time_ns() // 1000 + SOON):
            watch.busy()
        if took > HOLD and self.writer.waits():
            self.writer.flush()

    def answer(self, number: int, function: Function, value: Any) -> tuple[int, bytes]:
        """Returns the status and payload of a result with the return value of a sync function."""
        if type(value) not in PLAIN:
            if is_awaitable(value):
                self.warn_of_awaitable(function, value)
                value = self.threaded.wait(number, value)
            body = streamed_body(value) if function.streams else None
            if body is not None:
                value = send_parts(number, value, body, lambda awaitable: self.threaded.wait(number, awaitable))
            else:
                refuse(value)
        return self.encoded(function, value)

    def encoded(self, function: Function, value: object) -> tuple[int, bytes]:
        if value is None:
            return NOTHING
        try:
            return function.encode(value)
        except Unsendable as error:
            if not function.shown or isinstance(error, Misaddressed):
                raise
            self.warn(f"{function.name} {error}")
            return NOTHING

    def warn_of_awaitable(self, function: Function, value: object) -> None:
        if not function.warned:
            function.warned = True
            kind = type(value).__name__
            self.warn(
                f"{function.name} returned a {kind}, but is not declared async: it is awaited, and each thread of a worker runs one call of it"
                f" at a time; declare it async, as in: async def {function.name}(message): return await ..."
            )

    def settle(self, running: RunningCall) -> None:
        if running.is_child():
            end_child(None)
        running.settle(self.interrupter)
        if running.cut:
            running.cut = False
            self.replace("a call timed out while it imported a module, which may stay half imported")

    def replace(self, why: str) -> None:
        """Requests a replacement for this worker from the daemon. The worker starts no more
        calls: it sends "not tried" for them."""
        if not self.replaced:
            self.replaced, self.cancelled = True, _All()
            self.writer.json(frames.REPLACE, {"why": why})

    def arguments(self, function: Function, invocation: Invocation) -> tuple[Any, ...]:
        """Returns a function's arguments."""
        number, _, body, meta, attempt, enqueued, deadline, _ = invocation
        if function.wants_body:
            return (body,)
        if function.wants_invocation:
            return (invocation,)
        message = Message(body, attempt, enqueued, meta)
        if not function.wants_context:
            return (message,)
        context = self.contexts[number] = Context(function.name, deadline, message)
        if number in self.reader.states:
            context._has_state, context._state = True, self.reader.states.pop(number)
        if self.cancelled and number in self.cancelled:
            context._cancelled = True
        return message, context

    def reply(self, number: int, took: int, status: int, payload: bytes, cpu: int = -1, held: int = -1) -> None:
        """Queues a result, after the invocation's output lines."""
        if self.contexts:
            context = self.contexts.pop(number, None)
            if context is not None and context._changed and status & ~_ADDED == OK:
                status, payload = payloads.STATE | status & _ADDED, frames.put_state(context._state, payload)
        if self.reader.states:
            self.reader.states.pop(number, None)  # the function takes no context
        if self.output.parts:
            self.output.end(number)
        if ids:
            ids.pop(number, None)
        self.writer.result(number, status, took, payload, cpu, held)

    def cancel(self, number: int) -> None:
        """Interrupts a call of a sync function, or prevents its start. Called by the thread
        that reads."""
        self.cancelled.add(number)
        streams.cancel(number)
        context = self.contexts.get(number)
        if context is not None:
            context._cancelled = True
        if self.threaded.cancel(number):
            return
        for running in self.running:
            if running.number == number:
                if self.interrupter is not None and not self.interrupter.interrupt(running, number):
                    self.warn("a function was not interrupted at its timeout, because the app handles the signal that drover uses for it")
                return
        if self.withdraw(number):  # otherwise a thread has just taken it, and checks whether it is cancelled
            self.reply(number, 0, *NOT_TRIED)
            self.writer.flush()

    def await_credit(self, stream: Stream) -> None:
        """Waits until a stream has credit or is cancelled. Called in the thread of its call."""
        stream.wait()

    def withdraw(self, number: int) -> bool:
        """Removes a waiting invocation; returns whether it was waiting."""
        for invocation in list(self.waiting):
            if invocation[0] == number:
                try:
                    self.waiting.remove(invocation)
                except ValueError:
                    return False
                return True
        return False

    def warn(self, text: str) -> None:
        send(self.writer, -1, "WARNING", "drover", text)

    def forked(self) -> None:
        """Called in a child process that a function forked. It sends no results. If the
        function ends there, the process ends."""
        self.sock.close()
        self.writer.forked = True
        self.output.parts.clear()
        for running in self.running:
            running.forked()


def _forked() -> None:
    if Runner.serving is not None:
        Runner.serving.forked()
