"""Finds the code that the main thread runs: the callback or task of the loop, its
invocation, and the line of the app."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import linecache
import os
import selectors
import sys
from types import CodeType, FrameType
from typing import Any, Mapping, Protocol, Tuple

from drover import Message
from drover.logs import current
from drover.timeouts import RunningCall

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_LIBRARIES = os.sep + "site-packages" + os.sep, os.sep + "dist-packages" + os.sep
_STANDARD = os.path.dirname(os.__file__) + os.sep

# Bounds of a report: a place and a stack, in characters, and the frames of a stack; and the
# number of places whose stack is reported, once each.
_MAX_PLACE, _MAX_STACK, _MAX_FRAMES, _MAX_TOLD = 500, 16_000, 50, 1000

# The files of the loop itself: a main thread in one of them is idle.
_MACHINERY = {
    f.__code__.co_filename
    for f in (
        asyncio.BaseEventLoop.run_forever,
        asyncio.Handle._run,
        asyncio.SelectorEventLoop.add_reader,
        asyncio.SelectorEventLoop.add_signal_handler,
        selectors.SelectSelector.select,
    )
}


Line = Tuple[str, int, str]  # file, line and function


class Owner(Protocol):
    """The part of AsyncRunner that this module uses: its method run runs the loop, and its
    method serve_ready the app's async functions."""

    loop: asyncio.AbstractEventLoop
    tasks: dict[int, asyncio.Task[None]]

    def run(self, got: Any) -> Any: ...

    async def serve_ready(self) -> None: ...


class StackLocations:
    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._app = os.path.abspath(sys.path[0]) + os.sep  # load has inserted it there
        self._base: CodeType = type(owner).run.__code__
        self._serving: CodeType = type(owner).serve_ready.__code__
        self._told: set[str] = set()  # the places whose stack was reported

    def root(self, frame: FrameType | None) -> FrameType | None:
        """Returns the frame of the callback or task that the loop runs; None if it waits."""
        root, base = None, self._base
        while frame is not None and frame.f_code is not base:
            if frame.f_code.co_filename not in _MACHINERY:
                root = frame
            frame = frame.f_back
        return root

    def invocation(self, frame: FrameType | None) -> tuple[int, int, str]:
        """Returns the number, the function's index and the message's ID of the invocation
        whose code runs; -1, -1 and "" if they are unknown."""
        while frame is not None:
            if frame.f_code is self._serving:
                return _of(frame.f_locals)
            frame = frame.f_back
        number = self._running_number()
        task = self._owner.tasks.get(number)
        coroutine: Any = task.get_coro() if task is not None else None
        while coroutine is not None:
            if getattr(coroutine, "cr_code", None) is self._serving and coroutine.cr_frame is not None:
                return _of(coroutine.cr_frame.f_locals)
            coroutine = getattr(coroutine, "cr_await", None)
        return -1, -1, ""

    def _running_number(self) -> int:
        """Returns the number of the invocation that created the running task; -1 if unknown."""
        task = asyncio.current_task(self._owner.loop)
        if task is None:
            return -1
        if hasattr(task, "get_context"):  # Python 3.12
            contexts = [task.get_context()]
        else:
            contexts = [c for c in gc.get_referents(task) if isinstance(c, contextvars.Context)]
        for context in contexts:
            running: RunningCall | None = context.get(current)
            if running is not None:
                return running.number
        return -1

    def step(self, frame: FrameType | None) -> list[FrameType]:
        """Returns the frames of the callback or step that the loop runs, the innermost first: those of
        the function, if it began in this step."""
        stack: list[FrameType] = []
        length = 0
        while frame is not None and frame.f_code is not self._base:
            if frame.f_code is self._serving:
                return stack or [frame]
            stack.append(frame)
            if frame.f_code.co_filename not in _MACHINERY:
                length = len(stack)
            frame = frame.f_back
        return stack[:length]

    def lines(self, frame: FrameType | None) -> list[Line]:
        """Returns a stack as (file, line, function), the innermost first."""
        lines: list[Line] = []
        while frame is not None and frame.f_code is not self._base and len(lines) < _MAX_FRAMES:
            lines.append((frame.f_code.co_filename, frame.f_lineno or 0, frame.f_code.co_name))
            frame = frame.f_back
        return lines

    def describe(self, lines: list[Line]) -> tuple[str | None, str | None]:
        """Returns the place of a stack, or None if it is the worker's own code; and the stack's
        text, or None if it was reported before."""
        for at, line in enumerate(lines):
            if line[0] == self._serving.co_filename and line[2] == self._serving.co_name:
                lines = lines[:at]
                break
        others = [line[0] for line in lines if not line[0].startswith(_HERE) and line[0] not in _MACHINERY]
        calls_standard = any(line[0].startswith(_HERE) for line in lines) and all(self._is_standard(file) for file in others)
        if not others or calls_standard:
            return None, None
        place = self._place(lines)
        if place in self._told or len(self._told) >= _MAX_TOLD:
            return place, None
        self._told.add(place)
        return place, _format(lines)

    def _place(self, lines: list[Line]) -> str:
        own = next((at for at, line in enumerate(lines) if self._is_app(line[0])), None)
        if own is None:
            own = next((at for at, line in enumerate(lines) if not line[0].startswith(_HERE)), 0)
        text = self._name(lines[own])
        if own > 0:
            text += f", which calls {self._name(lines[own - 1])}"
        return text[:_MAX_PLACE]

    def _is_standard(self, file: str) -> bool:
        return file.startswith(_STANDARD) and not any(part in file for part in _LIBRARIES)

    def _is_app(self, file: str) -> bool:
        return file.startswith(self._app) and not file.startswith(_HERE) and not any(part in file for part in _LIBRARIES)

    def _name(self, line: Line) -> str:
        file, number, name = line
        for root in (self._app, _STANDARD):
            if file.startswith(root):
                file = file[len(root) :]
                break
        for part in _LIBRARIES:
            file = file.rpartition(part)[2]
        return f"{file}:{number} in {name}"


def _of(local: Mapping[str, Any]) -> tuple[int, int, str]:
    """Returns the invocation in the variables of serve_ready, as invocation does."""
    running, invocation = local.get("running"), local.get("invocation")
    if running is None or running.number < 0 or invocation is None or invocation[0] != running.number:
        return -1, -1, ""
    number, index, meta = invocation[0], invocation[1], invocation[3]
    if not meta:
        return number, index, ""  # a batch: the daemon names its first message
    return number, index, Message(b"", meta=meta).id[:_MAX_PLACE]


class StackSample:
    """The frame that the main thread ran at a sample. The frame continues to run: its
    locations are those at the first call of detail."""

    def __init__(self, locations: StackLocations, frame: FrameType | None) -> None:
        self._locations, self._frame = locations, frame
        self._detail: tuple[int, int, str, list[Line]] | None = None
        self.root = locations.root(frame)

    def detail(self) -> tuple[int, int, str, list[Line]]:
        """Returns the number, function and message of the invocation, and the stack."""
        if self._detail is None:
            lines = self._locations.lines(self._frame)
            self._detail = (*self._locations.invocation(self._frame), lines)
            self._frame = None
        return self._detail


def _format(lines: list[Line]) -> str:
    """Formats a stack as a traceback, the innermost last."""
    text: list[str] = []
    for file, number, name in reversed([line for line in lines if not line[0].startswith(_HERE) and line[0] not in _MACHINERY]):
        text.append(f'  File "{file}", line {number}, in {name}\n')
        source = linecache.getline(file, number).strip()
        if source:
            text.append(f"    {source}\n")
    return "".join(text)[-_MAX_STACK:]
