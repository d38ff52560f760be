"""What functions print and log goes to the daemon, with the invocation it is of."""

import contextvars
import io
import logging
import sys

from drover.frames import LOG

# The number of the invocation that runs here; -1 outside of one.
current = contextvars.ContextVar("drover_invocation", default=-1)

_MAX = 16 << 10


class _Lines(io.TextIOBase):
    """A text stream whose lines become log frames."""

    encoding = "utf-8"

    def __init__(self, writer, name, raw):
        self._writer = writer
        self._name = name
        self._raw = raw
        self._part = {}  # an unfinished line, by invocation

    def writable(self):
        return True

    def fileno(self):
        return self._raw.fileno()

    @property
    def buffer(self):
        return self._raw.buffer

    def write(self, text):
        number = current.get()
        lines = (self._part.pop(number, "") + text).split("\n")
        rest = lines.pop()
        if len(rest) > _MAX:
            lines.append(rest)
            rest = ""
        if rest:
            self._part[number] = rest
        for line in lines:
            send(self._writer, number, "INFO", self._name, line)
        return len(text)

    def flush(self):
        pass

    def end(self, number):
        """Sends what an invocation left unfinished."""
        rest = self._part.pop(number, "")
        if rest:
            send(self._writer, number, "INFO", self._name, rest)


class _Handler(logging.Handler):
    def __init__(self, writer):
        super().__init__()
        self._writer = writer

    def emit(self, record):
        try:
            send(self._writer, current.get(), record.levelname, record.name, self.format(record))
        except Exception:
            self.handleError(record)


def send(writer, number, level, logger, text):
    if text.strip():
        writer.json(LOG, {"id": number, "level": level, "logger": logger, "text": text[:_MAX]})
        writer.watch.busy()  # the call may go on for long


class Output:
    """Stands in for stdout, stderr and the root logger."""

    def __init__(self, writer):
        self._streams = [_Lines(writer, "stdout", sys.__stdout__), _Lines(writer, "stderr", sys.__stderr__)]
        sys.stdout, sys.stderr = self._streams
        root = logging.getLogger()
        root.addHandler(_Handler(writer))
        root.setLevel(logging.INFO)

    def end(self, number):
        for stream in self._streams:
            if stream._part:
                stream.end(number)
