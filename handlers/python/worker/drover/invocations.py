"""The IDs of invocations in a function app: a UUID for each call, which Context.invocation_id
and the lines of the log have. Other apps have none."""

from __future__ import annotations

import itertools
import os
import threading

active = False  # whether this process runs a function app
ids: dict[int, str] = {}  # of the calls that have one, by the number of their INVOKE, until their result is queued
# The library's Context.thread_local_storage. A thread of the app that sets invocation_id in it
# logs for that invocation.
storage = threading.local()

_prefix = ""
_counter = itertools.count()


def activate() -> None:
    """Gives invocations IDs from now on. Called at load, in a function app."""
    global active
    if not active:
        active = True
        _renew()
        os.register_at_fork(after_in_child=_renew)


def _renew() -> None:
    """Makes the IDs of this process unique among all processes."""
    global _prefix, _counter
    text = os.urandom(16).hex()
    _prefix = f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{'89ab'[int(text[16], 16) & 3]}{text[17:20]}-"
    _counter = itertools.count(int(text[20:], 16))


def new_id(number: int) -> str:
    """Returns a new ID for an invocation. A random UUID for each would take as long as a whole call."""
    ids[number] = made = f"{_prefix}{next(_counter) & 0xFFFFFFFFFFFF:012x}"
    return made


def find(number: int) -> tuple[int, str]:
    """Returns the number and the ID of the invocation that a line of output belongs to. number is
    the current call's; negative if the thread has none. In that case the app may have set one."""
    if number >= 0:
        return number, ids.get(number) or new_id(number)
    chosen = getattr(storage, "invocation_id", None)
    if not isinstance(chosen, str):
        return number, ""
    for other, known in list(ids.items()):
        if known == chosen:
            return other, chosen
    return number, chosen
