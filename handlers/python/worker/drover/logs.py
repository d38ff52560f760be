"""Sends the output and the logs of functions to the daemon, with the number of their invocation."""

from __future__ import annotations

import contextvars
import logging
import sys
from typing import Any, Callable

from drover import invocations
from drover.frames import LOG, Writer
from drover.streams import MAX, Parts, Text
from drover.timeouts import RunningCall

# The running call; it has the number of the invocation.
current: contextvars.ContextVar[RunningCall] = contextvars.ContextVar("drover_invocation", default=RunningCall())

_MAX_NAME = 200


def _level(number: int) -> str:
    """Returns the protocol's name for a level: the app may define other levels."""
    for least, name in ((50, "CRITICAL"), (40, "ERROR"), (30, "WARNING"), (20, "INFO")):
        if number >= least:
            return name
    return "DEBUG"


class _NoLock:
    """The lock of a handler that needs none: sending is atomic, and a Timeout could
    leave a real lock locked."""

    def acquire(self, *_: object) -> bool:
        return True

    def release(self) -> None:
        pass

    def __enter__(self) -> bool:
        return True

    def __exit__(self, *_: object) -> None:
        pass

    def _at_fork_reinit(self) -> None:
        pass


class _Handler(logging.Handler):
    def __init__(self, writer: Writer) -> None:
        super().__init__()
        self._writer = writer

    def createLock(self) -> None:
        self.lock: Any = _NoLock()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            send(self._writer, current.get().number, _level(record.levelno), record.name, self.format(record))
        except Exception:
            self.handleError(record)


def send(writer: Writer, number: int, level: str, logger: str, text: str) -> None:
    if not text.strip():
        return
    if writer.forked:  # a child of the worker must not send for it
        stream = sys.__stdout__ if logger == "stdout" else sys.__stderr__
        if stream is not None:
            stream.write(text + "\n" if logger in ("stdout", "stderr") else f"{level} {logger}: {text}\n")
            stream.flush()
        return
    line = {"id": number, "level": level, "logger": logger[:_MAX_NAME], "text": text[:MAX]}
    if invocations.active:
        line["id"], known = invocations.find(number)
        if known:
            line["invocation"] = known
    writer.json(LOG, line)
    writer.soon()


class Output:
    """Replaces stdout, stderr and the root logger's handler. If the daemon does not accept
    LOG, log records are written to standard error."""

    def __init__(self, writer: Writer, taken: bool) -> None:
        self._writer = writer
        self.parts = Parts()
        if not taken:
            logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
            return
        # Kept, because a stream that is collected closes the stream below it.
        self._streams = sys.stdout, sys.stderr = self._stream("stdout", 1), self._stream("stderr", 2)
        root = logging.getLogger()
        handler = _Handler(writer)
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        setattr(logging, "basicConfig", _BasicConfig(handler, logging.basicConfig, self._streams))

    def _stream(self, name: str, fd: int) -> Text:
        writer, parts = self._writer, self.parts

        def say(text: str) -> None:
            number = current.get().number
            for line in parts.lines(number, name, text):
                send(writer, number, "INFO", name, line)

        return Text(name, fd, say)

    def end(self, number: int) -> None:
        """Sends the unfinished lines of an invocation."""
        for name in ("stdout", "stderr"):
            rest = self.parts.pop((number, name), "")
            if rest:
                send(self._writer, number, "INFO", name, rest)


class _BasicConfig:
    """Replaces logging.basicConfig, which does nothing if the root logger has a handler, and
    it has drover's. A format and a level for a standard stream are applied to drover's
    handler; a file, or a handler of the app's own, is added."""

    def __init__(self, handler: _Handler, real: Callable[..., None], streams: tuple[Text, Text]) -> None:
        self._handler, self._real, self._streams = handler, real, streams
        self._done = False
        self.__doc__, self.__name__ = real.__doc__, real.__name__

    def __call__(self, **wanted: Any) -> None:
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
