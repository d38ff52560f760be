"""What functions print and log goes to the daemon, with the invocation it is of."""

import contextvars
import io
import logging
import sys

from drover.frames import LOG
from drover.timeouts import Running

# What runs here: its number is that of the invocation.
current = contextvars.ContextVar("drover_invocation", default=Running())

_MAX = 16 << 10
_MAX_NAME = 200


class _Lines(io.TextIOBase):
    """A text stream whose lines become log frames."""

    encoding = "utf-8"

    def __init__(self, writer, name, raw, parts):
        self._writer = writer
        self._name = name
        self._raw = raw
        self._parts = parts

    def writable(self):
        return True

    def fileno(self):
        return self._raw.fileno()

    @property
    def buffer(self):
        return self._raw.buffer

    def write(self, text):
        number = current.get().number
        lines = (self._parts.pop((number, self._name), "") + text).split("\n")
        rest = lines.pop()
        if len(rest) > _MAX:
            lines.append(rest)
            rest = ""
        if rest:
            self._parts[number, self._name] = rest
        for line in lines:
            send(self._writer, number, "INFO", self._name, line)
        return len(text)

    def flush(self):
        pass


def _level(number):
    """The protocol's word for a level: the app may have levels of its own between and
    beside those, with names of their own."""
    for least, name in ((50, "CRITICAL"), (40, "ERROR"), (30, "WARNING"), (20, "INFO")):
        if number >= least:
            return name
    return "DEBUG"


class _Handler(logging.Handler):
    def __init__(self, writer):
        super().__init__()
        self._writer = writer

    def createLock(self):
        self.lock = None  # sending takes none, and a Timeout could leave it locked

    def emit(self, record):
        try:
            send(self._writer, current.get().number, _level(record.levelno), record.name, self.format(record))
        except Exception:
            self.handleError(record)


def send(writer, number, level, logger, text):
    if not text.strip():
        return
    if writer.forked:  # a child of the worker's does not speak for it
        stream = sys.__stdout__ if logger == "stdout" else sys.__stderr__
        stream.write(text + "\n" if logger in ("stdout", "stderr") else f"{level} {logger}: {text}\n")
        stream.flush()
        return
    writer.json(LOG, {"id": number, "level": level, "logger": logger[:_MAX_NAME], "text": text[:_MAX]})
    if writer.watch.ident is None:
        writer.flush()  # the code is being loaded, which may take long, and nobody watches yet
    elif not writer.watch.awake:
        writer.watch.busy()  # the call may go on for long


class Output:
    """Stands in for stdout, stderr and the root logger. Where the daemon takes no LOG,
    what is logged goes to standard error."""

    def __init__(self, writer, taken):
        self._writer = writer
        self.parts = {}  # unfinished lines, by invocation and stream
        if not taken:
            logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
            return
        sys.stdout = _Lines(writer, "stdout", sys.__stdout__, self.parts)
        sys.stderr = _Lines(writer, "stderr", sys.__stderr__, self.parts)
        root = logging.getLogger()
        root.addHandler(_Handler(writer))
        root.setLevel(logging.INFO)

    def end(self, number):
        """Sends what an invocation left unfinished."""
        for name in ("stdout", "stderr"):
            rest = self.parts.pop((number, name), "")
            if rest:
                send(self._writer, number, "INFO", name, rest)
