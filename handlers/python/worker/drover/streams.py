"""The replacements of sys.stdout and sys.stderr: each line becomes a log frame."""

from __future__ import annotations

import codecs
import io
import sys
from typing import Any, Callable, Dict, Iterable, Iterator, Tuple

MAX = 16 << 10  # characters of a line; longer lines are split


class Parts(Dict[Tuple[int, str], str]):
    """Unfinished lines, by invocation and stream."""

    def lines(self, number: int, name: str, text: str) -> Iterator[str]:
        """Yields the lines that text completes, and keeps the rest."""
        lines = (self.pop((number, name), "") + text).split("\n")
        rest = lines.pop()
        while len(rest) > MAX:
            lines.append(rest[:MAX])
            rest = rest[MAX:]
        if rest:
            self[number, name] = rest
        for line in lines:
            for at in range(0, len(line), MAX):
                yield line[at : at + MAX]


class Bytes(io.BufferedIOBase):
    """The replacement of sys.stdout.buffer: it accepts any bytes, not only UTF-8."""

    mode = "wb"

    def __init__(self, name: str, fd: int, say: Callable[[str], None]) -> None:
        self.name = name
        self._fd = fd
        self._say = say
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    @property
    def raw(self) -> Any:
        return self

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self._say(self._decoder.decode(view.tobytes()))
        return view.nbytes

    def close(self) -> None:
        """Does nothing: the worker continues to write to the stream."""


class Text(io.TextIOWrapper):
    """The replacement of a standard stream. Text is UTF-8 and is sent line by line, even if
    the app reconfigures the stream. It cannot be closed, and works after detach."""

    def __init__(self, name: str, fd: int, say: Callable[[str], None]) -> None:
        super().__init__(Bytes(f"<{name}>", fd, say), encoding="utf-8", errors="backslashreplace", line_buffering=True, write_through=True)
        self.mode = "w"  # type: ignore[misc]  # the documentation of TextIOWrapper allows this
        self._fd = fd
        self._say = say

    @property
    def name(self) -> str:
        return "<stdout>" if self._fd == 1 else "<stderr>"

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._say(text)
        return len(text)

    def writelines(self, lines: Iterable[Any]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def __del__(self) -> None:
        """Does nothing: the base class would close the stream."""


def has_foreign() -> bool:
    """Returns whether the app has replaced a standard stream."""
    return type(sys.stdout) is not Text or type(sys.stderr) is not Text


def flush_foreign() -> None:
    """Flushes streams with which the app has replaced the worker's: they may buffer."""
    for stream in (sys.stdout, sys.stderr):
        if not isinstance(stream, Text):
            try:
                stream.flush()
            except Exception:  # it is None, or closed, or a class of the app
                pass
