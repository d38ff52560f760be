"""Runs functions in the main thread, which also reads and sends results."""

from __future__ import annotations

import socket
from typing import Sequence

from drover import frames, unpatched
from drover.exit import broken, fail, leave
from drover.frames import Cancel, Credit, Drain, Frame, Invocation, Profile, Settings
from drover.functions import Function
from drover.logs import Output, current
from drover.measures import GilSampler, now
from drover.profiling import profiler
from drover.runner import Runner
from drover.streaming import Stream, streams
from drover.streams import has_foreign
from drover.timeouts import MainThreadInterrupter, RunningCall


class MainThreadRunner(Runner):
    def __init__(
        self,
        sock: socket.socket,
        reader: frames.Reader,
        writer: frames.Writer,
        output: Output,
        functions: list[Function],
        before: Runner | None = None,
    ) -> None:
        super().__init__(sock, reader, writer, output, functions, before)
        self.threads = 1  # the requested number of threads
        self.here = RunningCall()
        self.running.append(self.here)
        self.interrupter = MainThreadInterrupter(self.here)
        self.reading = unpatched.Lock()  # held by the thread that reads the socket
        self.working = False  # whether invocations wait or run
        self.gil_sampler = GilSampler(writer, self.running)
        self.watch.look = self.look

    def take(self, got: Sequence[Frame]) -> None:
        for item in got:
            if type(item) is Invocation:
                if self.cancelled:  # an earlier invocation with this number was cancelled
                    self.cancelled.discard(item[0])
                self.waiting.append(item)
            elif type(item) is Settings:
                self.threads = self.settings(item.payload)
            elif type(item) is Drain:
                self.draining = True
            elif type(item) is Cancel:
                self.cancel(item.number)
            elif type(item) is Credit:
                streams.grant(item.number, item.amount)
            elif type(item) is Profile:
                profiler.take(item.payload)

    def look(self, late: float) -> bool:
        """Called by the watch while functions run: if one takes long, its cancellation may
        arrive meanwhile. Returns whether functions run."""
        self.gil_sampler.sample(late)
        if self.here.number >= 0 and now() - self.writer.last > frames.WATCH * 1e9:
            self.read_more()
        return self.working

    def read_more(self) -> None:
        """Handles the frames that have arrived, without waiting."""
        if self.reading.acquire(blocking=False):
            try:
                self.read_and_take(socket.MSG_DONTWAIT)
            finally:
                self.reading.release()

    def read_and_take(self, flags: int) -> None:
        """Reads frames while a function runs, and handles them. The caller holds reading."""
        try:
            self.take(self.reader.read(flags))
        except BlockingIOError:
            pass
        except (OSError, EOFError) as error:
            broken(error)
        except ValueError:  # a frame is invalid
            fail()

    def await_credit(self, stream: Stream) -> None:
        """Reads instead of the watch, which would detect credit only after some milliseconds. No
        Timeout is raised meanwhile, since it could be raised between reading data and storing it.
        A cancellation sets stream.cancelled."""
        number, self.here.number = self.here.number, -1
        while not stream.has_credit() and not stream.cancelled:
            with self.reading:
                if not stream.has_credit() and not stream.cancelled:
                    self.read_and_take(0)
        self.here.number = number

    def run(self, got: Sequence[Frame]) -> int:
        """Runs until more than one thread is requested; returns the requested number."""
        waiting, here, writer, watch, call = self.waiting, self.here, self.writer, self.watch, self.call
        current.set(here)
        self.take(got)
        last_read = now()
        while True:
            self.working = True
            while waiting and self.threads == 1:
                try:
                    invocation = waiting.popleft()
                except IndexError:
                    break  # it was cancelled just now
                ended = call(invocation, here)
                if ended - writer.last > here.hold:
                    if waiting and here.hold > frames.LINGER and ended - last_read > frames.HOLD:
                        self.read_more()  # those that wait may have been cancelled
                        last_read = ended
                    writer.flush()
                elif not watch.awake and waiting:
                    watch.busy()
            self.working = False
            writer.flush()
            if not watch.awake and has_foreign():
                watch.busy()
            if self.threads > 1:
                self.reading.acquire()  # never released: the watch reads no more
                return self.threads
            if self.draining and not waiting:
                leave(writer)
            with self.reading:
                if not waiting and not self.draining:
                    self.take(self.reader.read())
                    last_read = now()
