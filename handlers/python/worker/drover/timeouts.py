"""Raises Timeout in the thread that a call runs in: while it runs there, and never later.

A call's number is set before it runs, and unset after. Whoever wants it to end says
so first, and then looks at the number; the thread unsets the number first, and then
looks whether somebody said so. So one of the two sees the other, and no call pays
for a lock. What is raised may come anywhere between the two in the thread's code.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Protocol

from drover import Timeout, unpatched

_INTERRUPTING, _INTERRUPTED, _FORKED = 1, 2, 3


class Interrupter(Protocol):
    """How a Timeout is raised in the thread of a call."""

    def interrupt(self, running: RunningCall, number: int) -> bool:
        """Interrupts a call, unless it has ended. Reports whether this can be done."""

    def take_back(self, running: RunningCall) -> None:
        """Takes back an interruption that came to no call."""


class RunningCall:
    """What runs in a thread, or in a task."""

    __slots__ = ("cut", "index", "interruption", "number", "thread")

    def __init__(self) -> None:
        self.number = -1  # of the invocation; -1 is none
        self.index = 0  # of the function that was measured last
        self.cut = False  # whether the Timeout came while a module was imported
        self.interruption = 0  # whether settle is to be called at the end of the call
        self.thread = unpatched.get_ident()

    def settle(self, interrupter: Interrupter | None) -> None:
        """Called by the thread when its call has ended and an interruption was
        begun: after this no Timeout comes."""
        while self.interruption == _INTERRUPTING:
            unpatched.sleep(0)
        if self.interruption == _INTERRUPTED:
            if interrupter is not None:
                interrupter.take_back(self)
            self.interruption = 0

    def forked(self) -> None:
        """Called in a process that was forked here."""
        self.interruption = _FORKED

    def is_child(self) -> bool:
        return self.interruption == _FORKED


class ThreadInterrupter:
    """Raises Timeout in any thread, as soon as it runs Python code: a thread that
    waits is not woken. Raises ImportError where Python was built without ctypes."""

    def __init__(self) -> None:
        import ctypes

        # A handle of our own: what is set on ctypes.pythonapi is everybody's.
        self._set = ctypes.PyDLL(None).PyThreadState_SetAsyncExc
        self._set.argtypes = (ctypes.c_ulong, ctypes.py_object)
        self._nothing = ctypes.py_object()

    def interrupt(self, running: RunningCall, number: int) -> bool:
        """Called by one thread at a time. Reports whether this can be done."""
        if running.interruption:
            return True  # once is enough
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
    """Raises Timeout in the main thread by a signal, which ends its waiting, too."""

    # One that nobody uses; where there are no real-time signals, one that is
    # ignored unless somebody waits for it.
    SIGNAL = signal.SIGRTMAX - 1 if hasattr(signal, "SIGRTMAX") else signal.SIGURG

    def __init__(self, running: RunningCall) -> None:
        self._running = running
        self._wanted = -1
        self._handler = self._come
        signal.signal(self.SIGNAL, self._handler)
        gevent = sys.modules.get("gevent.hub")
        if gevent is not None:  # the signal comes to its hub, which hands these on to the main greenlet
            gevent.Hub.SYSTEM_ERROR = (*gevent.Hub.SYSTEM_ERROR, Timeout)

    def interrupt(self, running: RunningCall, number: int) -> bool:
        """Reports whether this can be done: the app may have taken the signal."""
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
        """There is nothing to take back: a signal comes at once, or to no call."""


def imports(frame: FrameType | None) -> bool:
    """Whether a frame is in the middle of an import."""
    while frame is not None:
        if frame.f_code.co_name == "_find_and_load" and frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
