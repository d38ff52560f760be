"""Writes stacks to a file with faulthandler, in C signal handlers: so it works while an
extension holds the GIL, and for threads that wait.

A signal stops the main thread, so its frames can be read safely.
faulthandler.dump_traceback_later reads them from its own thread while they change,
which can crash the interpreter.
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
import re
import signal
import sys
import threading
from typing import Any

try:
    import ctypes
except ImportError:
    ctypes = None  # type: ignore[assignment]

# Real-time signals without another use; 0 if the system has none.
LAST = signal.SIGRTMAX - 2 if hasattr(signal, "SIGRTMAX") else 0
HELD = signal.SIGRTMAX - 3 if hasattr(signal, "SIGRTMAX") else 0

_LINE = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)
_ONE_THREAD = 4  # SIGEV_THREAD_ID


def at_fatal_signals() -> None:
    """Makes signals that end the process, SIGSEGV, SIGABRT, SIGBUS, SIGFPE and SIGILL, write
    the stacks of all threads to standard error. They are the detail of the failed call."""
    try:
        if not faulthandler.is_enabled():  # otherwise PYTHONFAULTHANDLER has enabled it
            options: dict[str, Any] = {"c_stack": False} if sys.version_info >= (3, 14) else {}
            faulthandler.enable(file=2, all_threads=True, **options)
    except (OSError, RuntimeError, ValueError):
        pass  # the process has no standard error


def last_words() -> int:
    """Makes a signal write the stacks of all threads to standard error. The daemon sends it
    before it kills the worker. Returns the signal's number; 0: none."""
    try:
        if not LAST or signal.getsignal(LAST) != signal.SIG_DFL:
            return 0
        faulthandler.register(LAST, file=2, all_threads=True, chain=False)
    except (OSError, RuntimeError, ValueError):
        return 0
    return int(LAST)


def high(fd: int) -> int:
    """Moves a file descriptor to a high number, because functions may close low ones that
    they do not own."""
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100)
    finally:
        os.close(fd)


class Alarm:
    """Records the stack of the main thread when it has computed for a while without a call
    of put_off. It uses a kernel timer of processor time, which takes two microseconds to set
    and does not interrupt a thread that waits. Raises OSError if there is no such timer."""

    def __init__(self, clock: int, after: int) -> None:
        """clock is the main thread's, and after is in nanoseconds, less than a second."""
        if ctypes is None or not sys.platform.startswith("linux") or signal.getsignal(HELD) != signal.SIG_DFL:
            raise OSError("there is no timer for it, or no signal")
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            create, self._set = libc.timer_create, libc.timer_settime
        except AttributeError as error:
            raise OSError(str(error)) from None
        # struct sigevent: value, signal, how, thread; and struct itimerspec: no repetition.
        event = (ctypes.c_int * 16)(0, 0, HELD, _ONE_THREAD, threading.main_thread().native_id or 0)
        self._on, self._off = (ctypes.c_long * 4)(0, 0, 0, after), (ctypes.c_long * 4)()
        self._timer = ctypes.c_void_p()
        self._fd = high(os.memfd_create("drover-stack"))
        self._file = self._identity()
        self._often = 0
        faulthandler.register(HELD, file=self._fd, all_threads=False, chain=False)
        if create(clock, event, ctypes.byref(self._timer)) != 0:
            faulthandler.unregister(HELD)
            os.close(self._fd)
            raise OSError(ctypes.get_errno(), "timer_create")

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = os.fstat(self._fd)
            return found.st_dev, found.st_ino
        except OSError:
            return None

    def put_off(self) -> None:
        if self._file is None:
            return
        if signal.getsignal(HELD) != signal.SIG_DFL:
            self._give_up()  # the app uses the signal
        elif self._often % 32 == 0 and self._identity() != self._file:
            faulthandler.unregister(HELD)  # the app has closed the file, and uses its number
            self._give_up()
        else:
            self._set(self._timer, 0, self._on, None)
        self._often += 1

    def _give_up(self) -> None:
        self.end()
        self._file = None

    def end(self) -> None:
        self._set(self._timer, 0, self._off, None)

    def stack(self) -> list[tuple[str, int, str]]:
        """Returns the stack recorded since the last call, as (file, line, function), the
        innermost first; empty if none was recorded."""
        if self._file is None or self._identity() != self._file:
            return []
        length = os.lseek(self._fd, 0, os.SEEK_CUR)
        if length == 0:
            return []
        text = os.pread(self._fd, length, 0).decode("utf-8", "replace")
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        return [(file, int(line), name) for file, line, name in _LINE.findall(text)]
