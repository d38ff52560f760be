"""What functions print and log goes to the daemon, with the invocation it is of."""

import contextvars
import logging
import sys

from drover.frames import LOG
from drover.streams import MAX, Parts, Text
from drover.timeouts import RunningCall

# What runs here: its number is that of the invocation.
current = contextvars.ContextVar("drover_invocation", default=RunningCall())

_MAX_NAME = 200


def _level(number):
    """The protocol's word for a level: the app may have levels of its own between and
    beside those, with names of their own."""
    for least, name in ((50, "CRITICAL"), (40, "ERROR"), (30, "WARNING"), (20, "INFO")):
        if number >= least:
            return name
    return "DEBUG"


class _NoLock:
    """The lock of a handler that needs none: sending is one step, and a Timeout could
    leave a real one locked."""

    def acquire(self, *_):
        return True

    def release(self):
        pass

    def __enter__(self):
        return True

    def __exit__(self, *_):
        return False

    def _at_fork_reinit(self):
        pass


class _Handler(logging.Handler):
    def __init__(self, writer):
        super().__init__()
        self._writer = writer

    def createLock(self):
        self.lock = _NoLock()

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
        if stream is not None:
            stream.write(text + "\n" if logger in ("stdout", "stderr") else f"{level} {logger}: {text}\n")
            stream.flush()
        return
    writer.json(LOG, {"id": number, "level": level, "logger": logger[:_MAX_NAME], "text": text[:MAX]})
    writer.soon()


class Output:
    """Stands in for stdout, stderr and the root logger. Where the daemon takes no LOG,
    what is logged goes to standard error."""

    def __init__(self, writer, taken):
        self._writer = writer
        self.parts = Parts()
        if not taken:
            logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
            return
        # Kept, since a stream that is collected closes what is below it.
        self._streams = sys.stdout, sys.stderr = self._stream("stdout", 1), self._stream("stderr", 2)
        root = logging.getLogger()
        root.addHandler(_Handler(writer))
        root.setLevel(logging.INFO)
        logging.basicConfig = _BasicConfig(root.handlers[-1], logging.basicConfig, self._streams)

    def _stream(self, name, fd):
        writer, parts = self._writer, self.parts

        def say(text):
            number = current.get().number
            for line in parts.lines(number, name, text):
                send(writer, number, "INFO", name, line)

        return Text(name, fd, say)

    def end(self, number):
        """Sends what an invocation left unfinished."""
        for name in ("stdout", "stderr"):
            rest = self.parts.pop((number, name), "")
            if rest:
                send(self._writer, number, "INFO", name, rest)


class _BasicConfig:
    """Stands in for logging.basicConfig, which does nothing where the root logger has a
    handler, and has ours. What it asks for on a standard stream our handler does instead:
    its format, and its level; a file, or a handler of the app's own, is added."""

    def __init__(self, handler, real, streams):
        self._handler, self._real, self._streams = handler, real, streams
        self._done = False
        self.__doc__, self.__name__ = real.__doc__, real.__name__

    def __call__(self, **wanted):
        root, own = logging.getLogger(), self._handler
        others = [h for h in root.handlers if h is not own]
        if (others or self._done) and not wanted.get("force"):
            self._real(**wanted)
            return
        formats = any(wanted.get(key) is not None for key in ("format", "datefmt", "style"))
        root.removeHandler(own)
        try:
            self._real(**wanted)
            self._done = True
            for handler in root.handlers[:]:
                if type(handler) is logging.StreamHandler and handler.stream in (*self._streams, sys.__stdout__, sys.__stderr__):
                    if formats or "handlers" in wanted:
                        own.setFormatter(handler.formatter if handler.formatter is not None or formats else None)
                    own.setLevel(handler.level)
                    root.removeHandler(handler)
        finally:
            root.addHandler(own)
