"""Stacks that C code writes to a file, by faulthandler in handlers of signals: so
also while an extension holds the GIL, and of threads that wait.

A signal stops the main thread where it is, which makes it a safe time to look at its
frames. faulthandler.dump_traceback_later does not: it reads them from a thread of its
own while they change, which can crash the interpreter.
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

# Real-time signals that nobody uses; 0 where there are none.
LAST = signal.SIGRTMAX - 2 if hasattr(signal, "SIGRTMAX") else 0
HELD = signal.SIGRTMAX - 3 if hasattr(signal, "SIGRTMAX") else 0

_LINE = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)
_ONE_THREAD = 4  # SIGEV_THREAD_ID


def at_fatal_signals() -> None:
    """Has the stacks of all threads written to standard error at a signal that ends the
    process: SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL. They are the detail of the failed
    call."""
    try:
        if not faulthandler.is_enabled():  # else PYTHONFAULTHANDLER has done it
            options: dict[str, Any] = {"c_stack": False} if sys.version_info >= (3, 14) else {}
            faulthandler.enable(file=2, all_threads=True, **options)
    except (OSError, RuntimeError, ValueError):
        pass  # there is no standard error


def last_words() -> int:
    """Has the stacks of all threads written to standard error at a signal, for the
    daemon to send before it kills the worker. Returns the signal's number; 0: none."""
    try:
        if not LAST or signal.getsignal(LAST) != signal.SIG_DFL:
            return 0
        faulthandler.register(LAST, file=2, all_threads=True, chain=False)
    except (OSError, RuntimeError, ValueError):
        return 0
    return int(LAST)


def high(fd: int) -> int:
    """The same file by a number that is not low: functions close what they take for
    their own."""
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100)
    finally:
        os.close(fd)


class Alarm:
    """Has the stack of the main thread kept when it has computed for a while and the
    alarm was not put off: by a timer of the kernel's, which costs two microseconds to set.
    Its signal interrupts nothing that waits, since it goes by processor time. Raises
    OSError where there is no such timer."""

    def __init__(self, clock: int, after: int) -> None:
        """Clock is the main thread's, and after in nanoseconds, less than a second."""
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
            self._give_up()  # the app has taken it
        elif self._often % 32 == 0 and self._identity() != self._file:
            faulthandler.unregister(HELD)  # the app has closed the file, and has one of its own there
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
        """What was kept since this was called last, as (file, line, function), the
        innermost first; empty if nothing was."""
        if self._file is None or self._identity() != self._file:
            return []
        length = os.lseek(self._fd, 0, os.SEEK_CUR)
        if length == 0:
            return []
        text = os.pread(self._fd, length, 0).decode("utf-8", "replace")
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        return [(file, int(line), name) for file, line, name in _LINE.findall(text)]
