"""Ends a worker process. No function here waits for threads that may never return."""

from __future__ import annotations

import asyncio
import atexit
import inspect
import os
import sys
import traceback
from typing import Callable, Iterator, NoReturn, Protocol

import drover
from drover import unpatched
from drover.awaitables import awaited
from drover.event_loops import set_loop
from drover.streams import flush_foreign

# The time limit for all at_exit functions of the app together, in seconds.
HOOKS = 2.0


class _Writer(Protocol):
    """The part of frames.Writer that this module uses."""

    forked: bool
    before_end: Callable[[], object]

    def flush(self) -> None: ...


def leave(writer: _Writer) -> NoReturn:
    """Ends the worker after its last result; it does not return. Called in a thread without
    a running event loop."""
    if begin_hooks(writer):
        for hook in hooks():
            try:
                value = hook()
                if inspect.isawaitable(value):
                    (set_loop() or asyncio.new_event_loop()).run_until_complete(awaited(value))
            except BaseException:
                hook_failed(hook)
    finish(writer)


async def leave_loop(writer: _Writer) -> NoReturn:
    """Like leave, in the event loop of async functions."""
    if begin_hooks(writer):
        for hook in hooks():
            try:
                value = hook()
                if inspect.isawaitable(value):
                    await value
            except BaseException:
                hook_failed(hook)
    finish(writer)


def hooks() -> Iterator[Callable[[], object]]:
    return reversed(drover._at_exit)


def begin_hooks(writer: _Writer) -> bool:
    """Ensures that the process ends in time; returns whether the app has at_exit functions."""
    if not writer.forked:
        writer.before_end()
    writer.flush()
    if writer.forked:
        return False
    unpatched.start(_limit, "drover-exit")
    return bool(drover._at_exit)


def hook_failed(hook: Callable[[], object]) -> None:
    name = getattr(hook, "__qualname__", hook)
    _last_words(f"drover: {name}, which is marked with drover.at_exit, failed:\n{traceback.format_exc()}")


def finish(writer: _Writer) -> NoReturn:
    """Calls the functions that the app has registered with atexit, and ends the process."""
    if not writer.forked:
        try:
            atexit._run_exitfuncs()
        except BaseException:
            _last_words(f"drover: a function registered with atexit failed:\n{traceback.format_exc()}")
    writer.flush()
    _exit(0)


def _limit() -> NoReturn:
    unpatched.sleep(HOOKS)
    _last_words(f"drover: the functions of drover.at_exit and atexit did not end within {HOOKS:.0f} s; the worker ends without them\n")
    os._exit(0)


def broken(error: Exception) -> NoReturn:
    """Ends the worker when its socket failed: it can send no more results."""
    if isinstance(error, (EOFError, BrokenPipeError, ConnectionResetError)):
        os._exit(0)  # the daemon is gone
    _last_words(f"drover: the socket to the daemon, file descriptor 3: {error}; did a function close it?\n")
    _exit(1)


def fail() -> NoReturn:
    """Ends the worker because of the exception that is being handled. It was not raised by
    a function: a frame was invalid, memory for a result ran out, or a signal
    handler of the app raised it in the worker's code."""
    _last_words("drover: the worker ends, as it cannot continue after this:\n" + traceback.format_exc())
    _exit(1)


def end_child(error: BaseException | None) -> NoReturn:
    """Ends a process that a function forked, when the function has ended in it, as the
    interpreter would: it is not a worker, and sends no results."""
    status = 0
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        status = (error.code or 0) & 0xFF
    elif isinstance(error, SystemExit):
        _last_words(f"{error.code}\n")
        status = 1
    elif error is not None:
        _last_words("".join(traceback.format_exception(type(error), error, error.__traceback__)))
        status = 1
    _exit(status)


def _last_words(text: str) -> None:
    try:
        os.write(2, text.encode("utf-8", "replace"))
    except OSError:
        pass


def _exit(status: int) -> NoReturn:
    flush_foreign()
    for stream in (sys.__stdout__, sys.__stderr__):
        try:
            if stream is not None:
                stream.flush()
        except (AttributeError, OSError, ValueError):  # it is closed, or not a stream
            pass
    os._exit(status)
