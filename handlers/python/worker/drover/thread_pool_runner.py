"""The main thread reads; a pool of threads runs functions and sends results."""

from __future__ import annotations

import os
import socket
from typing import Sequence

from drover import frames, unpatched
from drover.exit import fail, leave
from drover.frames import Cancel, Credit, Drain, Frame, Invocation, Profile, Settings
from drover.functions import Function
from drover.logs import Output, current
from drover.measures import GilSampler
from drover.profiling import profiler
from drover.runner import Runner
from drover.streaming import streams
from drover.timeouts import RunningCall, ThreadInterrupter


class ThreadPoolRunner(Runner):
    def __init__(
        self,
        sock: socket.socket,
        reader: frames.Reader,
        writer: frames.Writer,
        output: Output,
        functions: list[Function],
        threads: int,
        before: Runner | None = None,
    ) -> None:
        super().__init__(sock, reader, writer, output, functions, before)
        self.queue: unpatched.SimpleQueue[Invocation | None] = unpatched.SimpleQueue()  # invocations; None ends one thread
        self.threads = threads  # the number of threads that have no order to end
        self.started = 0
        self.live = 0  # threads that have not ended
        self.ending = unpatched.Lock()  # guards live
        self.last: int | None = None  # a pipe that the last thread writes to, when all must end
        self.watch.look = GilSampler(writer, self.running).sample

    def start(self) -> None:
        """Starts the threads, which also run the invocations that wait already."""
        try:
            self.interrupter = ThreadInterrupter()
        except ImportError as error:
            self.warn(
                f"sync functions are not interrupted when their time is up, as this Python has no ctypes ({error}):"
                " they can check context.cancelled, and their process is killed if they do not end within kill_grace"
            )
        for invocation in self.waiting:
            self.queue.put(invocation)
        self.waiting.clear()
        self.more_threads(self.threads)
        if self.draining:
            self.drain()

    def more_threads(self, n: int) -> None:
        with self.ending:
            self.live += n
        for _ in range(n):
            unpatched.start(self.serve, f"drover_{self.started}")
            self.started += 1

    def resize(self, threads: int) -> None:
        """Changes the number of threads. Surplus threads end after the functions that they run."""
        wanted, self.threads = self.threads, threads
        if threads > wanted:
            self.more_threads(threads - wanted)
        for _ in range(wanted - threads):
            self.queue.put(None)

    def serve(self) -> None:
        """Runs one thread of the pool."""
        try:
            self.serve_all()
        except BaseException:
            fail()

    def serve_all(self) -> None:
        get, empty, writer, watch, call = self.queue.get, self.queue.empty, self.writer, self.watch, self.call
        running = RunningCall()
        current.set(running)
        self.running.append(running)
        while True:
            invocation = get()
            if invocation is None:
                break
            ended = call(invocation, running)
            invocation = None  # a thread that waits must not keep a body
            if empty() or ended - writer.last > running.hold:
                writer.flush()
            elif not watch.awake:
                watch.busy()
        self.running.remove(running)
        self.own_times.leave()
        with self.ending:
            self.live -= 1
            last = self.live == 0
        if last and self.last is not None:
            os.write(self.last, b"x")
        elif last and self.draining:
            self.drained()

    def put(self, invocation: Invocation) -> None:
        if self.cancelled:  # an earlier invocation with this number was cancelled
            self.cancelled.discard(invocation[0])
        self.queue.put(invocation)

    def withdraw(self, number: int) -> bool:
        """Removes a waiting invocation; returns whether it was waiting. Called by the only
        thread that queues invocations, so the others keep their order."""
        kept: list[Invocation | None] = []
        found = False
        try:
            while True:
                item = self.queue.get_nowait()
                if item is not None and item[0] == number:
                    found = True
                else:
                    kept.append(item)
        except unpatched.Empty:
            pass
        for item in kept:
            self.queue.put(item)
        return found or super().withdraw(number)

    def take_waiting(self, functions: Sequence[int]) -> list[Invocation]:
        taken = super().take_waiting(functions)
        kept: list[Invocation | None] = []
        try:
            while True:
                item = self.queue.get_nowait()
                if item is not None and item[1] in functions:
                    taken.append(item)
                else:
                    kept.append(item)
        except unpatched.Empty:
            pass
        for item in kept:
            self.queue.put(item)
        return taken

    def drain(self) -> None:
        """Finishes the accepted invocations; then drained is called."""
        self.draining = True
        self.resize(0)

    def drained(self) -> None:
        leave(self.writer)

    def run(self, got: Sequence[Frame]) -> int:
        """Runs until one thread is requested; returns the requested number."""
        self.start()
        while True:
            for at, item in enumerate(got):
                if type(item) is Invocation:
                    self.put(item)
                elif type(item) is Settings:
                    wanted = self.settings(item.payload)
                    if self.draining or wanted == self.threads:
                        continue
                    if wanted == 1:
                        return self.end_threads(got[at + 1 :])
                    self.resize(wanted)
                elif type(item) is Drain:
                    self.drain()
                elif type(item) is Cancel:
                    self.cancel(item.number)
                elif type(item) is Credit:
                    streams.grant(item.number, item.amount)
                elif type(item) is Profile:
                    profiler.take(item.payload)
            got = self.reader.read()

    def end_threads(self, got: Sequence[Frame]) -> int:
        """Waits until the threads have ended: afterwards the main thread runs functions.
        Meanwhile it handles cancellations; the invocations in got and those that arrive
        wait. Returns the number of threads requested by then."""
        ended, self.last = os.pipe()
        self.resize(0)
        wanted = 1
        try:
            while True:
                for item in got:
                    if type(item) is Invocation:
                        if self.cancelled:
                            self.cancelled.discard(item[0])
                        self.waiting.append(item)
                    elif type(item) is Settings:
                        wanted = self.settings(item.payload)
                    elif type(item) is Drain:
                        self.draining = True
                    elif type(item) is Cancel:
                        self.cancel(item.number)
                    elif type(item) is Credit:
                        streams.grant(item.number, item.amount)
                    elif type(item) is Profile:
                        profiler.take(item.payload)
                if ended in unpatched.select([self.sock.fileno(), ended], [], [])[0]:
                    break
                got = self.reader.read()
        finally:
            os.close(ended)
            os.close(self.last)
        return wanted
