"""The main thread reads; a pool of threads runs and answers."""

import queue
import threading

from drover import frames
from drover.calls import Calls, now
from drover.ends import fail, leave
from drover.logs import current
from drover.timeouts import Running, Threads


class Pool(Calls):
    def __init__(self, sock, reader, writer, output, functions, threads):
        super().__init__(sock, reader, writer, output, functions)
        self.tokens = queue.SimpleQueue()  # True for each that was put there; False: end
        self.threads = threads
        self.ended = []  # a number for each thread that has

    def start(self):
        try:
            self.striker = Threads()
        except ImportError as error:
            self.warn(
                f"sync functions are not interrupted when their time is up, as this Python has no ctypes ({error}):"
                " they are told by context.cancelled, and their process is killed if they do not end within kill_grace"
            )
        for i in range(self.threads):
            threading.Thread(target=self.serve, name=f"drover_{i}", daemon=True).start()

    def serve(self):
        """One thread of the pool: it lives as long as the worker."""
        try:
            self.serve_all()
        except BaseException:
            fail()

    def serve_all(self):
        waiting, tokens, writer, watch = self.waiting, self.tokens, self.writer, self.watch
        running = Running()
        current.set(running)
        self.running.append(running)
        while tokens.get():
            try:
                invocation = waiting.popleft()
            except IndexError:
                continue  # it was cancelled while it waited
            ended = self.call(invocation, running)
            if not waiting or ended - writer.last > frames.LINGER:
                writer.flush()
            elif not watch.awake:
                watch.busy()
        self.ended.append(running.thread)
        if len(self.ended) == self.threads:
            self.drained()

    def put(self, invocation):
        if self.cancelled:  # an earlier one that had this number was
            self.cancelled.discard(invocation[0])
        self.waiting.append(invocation)
        self.tokens.put(True)

    def drain(self):
        """Lets what was accepted finish; then drained is called."""
        for _ in range(self.threads):
            self.tokens.put(False)

    def drained(self):
        leave(self.writer)

    def run(self, got):
        self.start()
        while True:
            for item in got:
                if type(item) is tuple:
                    self.put(item)
                elif item < 0:
                    self.drain()
                else:
                    self.cancel(item)
            got = self.reader.read()
