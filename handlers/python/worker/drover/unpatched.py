"""Functions of the standard library as they were before the app was loaded.

gevent and eventlet replace parts of it (monkey patching): a thread that is started after
that is a greenlet of the main thread, and a lock or a sleep belongs to their event loop.
The worker's own threads must be real ones.
"""

from __future__ import annotations

import sys
import threading
import time
from _thread import start_new_thread
from queue import Empty, SimpleQueue
from select import select
from socket import socket
from threading import Lock, get_ident
from typing import Callable

__all__ = ["MAIN", "Empty", "Lock", "SimpleQueue", "get_ident", "patched", "select", "sleep", "socket", "start"]

sleep = time.sleep
MAIN = get_ident()  # the main thread, which imports this module
_HOOKS = [name for name in ("_start_new_thread", "_start_joinable_thread") if hasattr(threading, name)]
_original = {name: getattr(threading, name) for name in _HOOKS}


def patched() -> str:
    """Returns the library that has replaced threads; "" if none has."""
    if all(getattr(threading, name, None) is _original[name] for name in _HOOKS):
        return ""
    return next((name for name in ("gevent", "eventlet") if name in sys.modules), "a library")


def start(target: Callable[[], object], name: str) -> None:
    """Starts a daemon thread: it does not delay the end of the process."""
    if patched():
        start_new_thread(target, ())
    else:
        threading.Thread(target=target, name=name, daemon=True).start()
