"""Raises Timeout in the thread of a call while the call runs, and never later.

A call's number is set before it runs, and unset afterwards. An interrupter first announces
the interruption, and then reads the number. The thread first unsets the number, and then
checks for an announcement. So one of the two notices the other, without a lock for each call.
A Timeout may be raised anywhere in the thread's code between the two.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Protocol

from drover import Timeout, unpatched

_INTERRUPTING, _INTERRUPTED, _FORKED = 1, 2, 3


class Interrupter(Protocol):
    """Raises Timeout in the thread of a call."""

    def interrupt(self, running: RunningCall, number: int) -> bool:
        """Interrupts a call, unless it has ended. Returns whether that is possible."""

    def take_back(self, running: RunningCall) -> None:
        """Revokes an interruption that was not raised during the call."""


class RunningCall:
    """The call that runs in a thread, or in a task."""

    __slots__ = ("cut", "hold", "index", "interruption", "number", "thread")

    def __init__(self) -> None:
        self.number = -1  # of the invocation; -1 is none
        self.index = 0  # of the last measured function
        self.hold = 0  # how long results may wait for others after such a call, in ns
        self.cut = False  # whether the Timeout was raised during an import
        self.interruption = 0  # not 0: settle must be called at the end of the call
        self.thread = unpatched.get_ident()

    def settle(self, interrupter: Interrupter | None) -> None:
        """Called by the thread when its call has ended and an interruption was announced.
        No Timeout is raised after it has returned."""
        while self.interruption == _INTERRUPTING:
            unpatched.sleep(0)
        if self.interruption == _INTERRUPTED:
            if interrupter is not None:
                interrupter.take_back(self)
            self.interruption = 0

    def forked(self) -> None:
        """Called in a process that the call forked."""
        self.interruption = _FORKED

    def is_child(self) -> bool:
        return self.interruption == _FORKED


class ThreadInterrupter:
    """Raises Timeout in any thread, as soon as it runs Python code: a waiting thread
    is not woken. Raises ImportError if Python was built without ctypes."""

    def __init__(self) -> None:
        import ctypes

        # A handle of drover's own: ctypes.pythonapi is shared with the app.
        self._set = ctypes.PyDLL(None).PyThreadState_SetAsyncExc
        self._set.argtypes = (ctypes.c_ulong, ctypes.py_object)
        self._nothing = ctypes.py_object()

    def interrupt(self, running: RunningCall, number: int) -> bool:
        """Called by one thread at a time. Returns true: it is always possible."""
        if running.interruption:
            return True  # it is interrupted already
        running.interruption = _INTERRUPTING
        if running.number == number:
            running.cut = imports(sys._current_frames().get(running.thread))
            self._set(running.thread, Timeout)
            running.interruption = _INTERRUPTED
        else:
            running.interruption = 0
        return True

    def take_back(self, running: RunningCall) -> None:
        self._set(running.thread, self._nothing)


class MainThreadInterrupter:
    """Raises Timeout in the main thread by a signal, which also ends its waits."""

    # A signal without another use; without real-time signals, one that is ignored by default.
    SIGNAL = signal.SIGRTMAX - 1 if hasattr(signal, "SIGRTMAX") else signal.SIGURG

    def __init__(self, running: RunningCall) -> None:
        self._running = running
        self._wanted = -1
        self._handler = self._come
        signal.signal(self.SIGNAL, self._handler)
        gevent = sys.modules.get("gevent.hub")
        if gevent is not None:  # the signal arrives in its hub, which passes such exceptions to the main greenlet
            gevent.Hub.SYSTEM_ERROR = (*gevent.Hub.SYSTEM_ERROR, Timeout)

    def interrupt(self, running: RunningCall, number: int) -> bool:
        """Returns whether this is possible: the app may handle the signal."""
        if signal.getsignal(self.SIGNAL) != self._handler:
            return False
        self._wanted = number
        signal.pthread_kill(running.thread, self.SIGNAL)
        return True

    def _come(self, _signal: int, frame: FrameType | None) -> None:
        wanted, self._wanted = self._wanted, -1
        running = self._running
        if wanted >= 0 and running.number == wanted:
            running.cut, running.interruption = imports(frame), _INTERRUPTED
            raise Timeout

    def take_back(self, running: RunningCall) -> None:
        """Does nothing: the signal is handled at once, or ignored if no call runs."""


def imports(frame: FrameType | None) -> bool:
    """Returns whether a frame is in the middle of an import."""
    while frame is not None:
        if frame.f_code.co_name == "_find_and_load" and frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
