"""The worker's side of docs/worker-protocol.md: frames on a socket."""

from __future__ import annotations

import collections
import json
import os
import socket
import struct
import time
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Mapping,
    NamedTuple,
    NoReturn,
    Sequence,
    Tuple,
    Union,
    final,
)

from drover import unpatched
from drover.exit import broken
from drover.payloads import FAILURE
from drover.streams import flush_foreign

PROTOCOL = 4
HELLO, LOAD, INVOKE, CANCEL, DRAIN, FORK, SETTINGS, CREDIT, PROFILE = 1, 2, 3, 4, 5, 6, 7, 8, 9
WELCOME, READY, FAILED, RESULT, LOG, STATS, FORKED, BLOCKED, ALIVE, REPLACE, IMPORTED, PART, PROFILED = 65, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76, 77
CAPABILITIES = [
    "azure", "batch", "blocked", "cancel", "fork", "heartbeat", "imports", "log", "origin", "outputs", "profile", "properties", "session_state", "settings",
    "stats", "stream",
]  # fmt: skip
WITH_STATE = 1  # in the flags of an INVOKE: its session's state precedes meta
WITH_ORIGIN = 2  # likewise: the source's own fields precede meta, after the state
UNMEASURED = 0xFFFFFFFF  # a cpu or held that was not measured
NO_STATE = 0xFFFFFFFF  # a state's length if the session has no state
WITH_HEAD, LAST = 1, 2  # in the flags of a PART: the head of a response precedes its bytes; it completes the body
MAX_LOAD = 8 << 20  # the largest LOAD and PROFILED, in bytes
MAX_SMALL = 256 << 10  # the largest HELLO, CANCEL, DRAIN, SETTINGS, PROFILE and PART
CHUNK = 256 << 10  # the most that one read returns, in bytes
# The sizes in bytes from which a payload is not copied behind the head of its frame, and from which
# it is sent by a separate system call.
MIN_APART, MIN_LARGE = 2 << 10, 64 << 10

_HEAD = struct.Struct("<IB")
_RESULT = struct.Struct("<IBIBIII")  # length, type, id, status, wall, cpu and held in µs
_RESULT_FIXED = _RESULT.size - 4
_pack_result = _RESULT.pack
_INVOKE = struct.Struct("<IBIHHIqqI")  # length, type, id, function, flags, attempt, enqueued, deadline, length of meta
_PART = struct.Struct("<IBIB")  # length, type, id, flags
_PART_FIXED = _PART.size - 4
_CREDIT = struct.Struct("<II")  # id, bytes
_ID = struct.Struct("<I")
_ALIVE = _HEAD.pack(1, ALIVE)

# The longest time that a result waits to be sent together with others, in ns: after a call of
# microseconds (LINGER), and after any call.
LINGER = 300_000
HOLD = 4_000_000
# The time between two polls of the watch, in seconds.
WATCH = 0.02
# The time for which it continues to poll when nothing is in flight, in seconds.
REST = 0.1


if TYPE_CHECKING:

    @final
    class Invocation(Tuple[int, int, bytes, bytes, int, int, int, bytes]):
        """An INVOKE: number, function (its index), body, meta, attempt, enqueued, deadline and
        origin. origin is the JSON of the source's own fields, b"" if the function gets none. None
        of them refers to what was read together with it: a call that takes long would keep that."""
else:
    # One is created for each message. With a NamedTuple in its place, a call that does nothing
    # takes 0.2 µs more, of 1.5 (main thread), 1.7 (threads) and 2.0 (async).
    Invocation = tuple


class Cancel(NamedTuple):
    """A CANCEL of an invocation, by its number."""

    number: int


class Credit(NamedTuple):
    """A CREDIT: the number of further bytes of a response that may be sent."""

    number: int
    amount: int


class Drain(NamedTuple):
    """A DRAIN."""


class Hello(NamedTuple):
    """A HELLO, with its JSON."""

    payload: bytes


class Load(NamedTuple):
    """A LOAD, with its JSON."""

    payload: bytes


class Settings(NamedTuple):
    """SETTINGS, with their JSON."""

    payload: bytes


class Profile(NamedTuple):
    """A PROFILE, with its JSON."""

    payload: bytes


Frame = Union[Invocation, Cancel, Credit, Drain, Hello, Load, Profile, Settings]
_WITH_JSON = {HELLO: Hello, LOAD: Load, PROFILE: Profile, SETTINGS: Settings}
_ANY_TIME = SETTINGS, PROFILE  # the frames of JSON that may come at any time after READY


def _cut_state(data: bytes, at: int) -> tuple[bytes | None, int]:
    """Returns the session's state at an offset, None if there is none, and the offset of its end."""
    (length,) = _ID.unpack_from(data, at)
    at += 4
    if length == NO_STATE:
        return None, at
    return data[at : at + length], at + length


def _cut_origin(data: bytes, at: int, end: int) -> tuple[bytes, int]:
    """Returns the origin at an offset, and the offset of its end."""
    if at + 4 > end:
        raise ValueError("an INVOKE without the origin that it announces")
    (length,) = _ID.unpack_from(data, at)
    at += 4
    return data[at : at + length], at + length


def put_state(state: bytes | None, payload: bytes) -> bytes:
    """Returns the payload of a result with a new state of its session."""
    if state is None:
        return _ID.pack(NO_STATE) + payload
    return _ID.pack(len(state)) + state + payload


def put_head(status: int, headers: Sequence[tuple[str, str]]) -> bytes:
    """Returns the head of a response, as it begins its first PART."""
    head = json.dumps({"status": status, "headers": headers}).encode()
    return _ID.pack(len(head)) + head


class Reader:
    """Splits the data of the socket into frames."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.max = 0  # the longest INVOKE, in bytes; HELLO sets it
        self.due: int | None = HELLO  # the expected frame of JSON; None: none
        self.functions = 0  # the number of the app's functions
        self._parts: list[bytes] = []  # of an incomplete frame, in order
        self._missing = 0  # the number of bytes until it is complete, or until its length is known
        self.states: dict[int, bytes | None] = {}  # the session's state of each invocation that has one, by number
        # When glibc frees a block from mmap, it serves blocks up to that size from its heap from
        # then on. Otherwise each read would map, fault in and unmap its buffer.
        bytes(2 * CHUNK)

    def reset(self) -> None:
        """Drops buffered data: it was sent to the template from which this process was forked."""
        self._parts = []

    def read(self, flags: int = 0) -> list[Frame]:
        """Returns the frames that have arrived. Raises EOFError if the daemon is gone, and
        ValueError if a frame is invalid: no frame after it can be read."""
        got: list[Any] = []  # a type checker does not accept a tuple as an Invocation
        recv = self._sock.recv
        if self._parts:
            data = recv(min(self._missing, CHUNK), flags)
            if not data:
                raise EOFError
            self._parts.append(data)
            self._missing -= len(data)
            if self._missing:
                return got
            self._complete(got)
            if self._parts:
                return got
            try:
                data = recv(CHUNK, flags | socket.MSG_DONTWAIT)
            except BlockingIOError:
                return got
            if not data:
                return got  # the next read finds that, too
        else:
            data = recv(CHUNK, flags)
            if not data:
                raise EOFError
        self._split(data, got)
        return got

    def _split(self, data: bytes, got: list[Any]) -> None:
        """Appends the frames in data to got, and keeps the rest."""
        at, end = 0, len(data)
        maximum, functions, unpack, fixed = self.max, self.functions, _INVOKE.unpack_from, _INVOKE.size
        while end - at >= 5:
            kind = data[at + 4]
            if kind == INVOKE and end - at >= fixed:
                length, _, number, index, bits, attempt, enqueued, deadline, meta = unpack(data, at)
                after, start, origin = at + 4 + length, at + fixed, b""
                if after > end and length <= maximum:
                    break
                if bits and length <= maximum:
                    if bits & WITH_STATE:
                        if start + 4 > after:
                            raise ValueError(f"an INVOKE of {length} bytes, without the state that it announces")
                        self.states[number], start = _cut_state(data, start)
                    if bits & WITH_ORIGIN:
                        origin, start = _cut_origin(data, start, after)
                body = start + meta
                if length > maximum or body > after or index >= functions:
                    raise _invalid(length, meta, index, functions)
                got.append((number, index, data[body:after], data[start:body], attempt, enqueued, deadline, origin))
                at = after
                continue
            length = self._check(data, at, end)
            if end - at - 4 < length:
                break
            payload = data[at + 5 : at + 4 + length]
            if kind == CANCEL and len(payload) == _ID.size:
                got.append(Cancel(_ID.unpack(payload)[0]))
            elif kind == CREDIT and len(payload) == _CREDIT.size:
                got.append(Credit._make(_CREDIT.unpack(payload)))
            elif kind == DRAIN and not payload:
                got.append(Drain())
            elif kind == self.due or kind in _ANY_TIME and self.due is None:
                got.append(_WITH_JSON[kind](payload))
            else:
                raise ValueError(f"a frame of type {kind} and {length} bytes")
            at += 4 + length
        if at < end:
            needed = 4  # the length, and then the type, and then all of it
            if end - at >= 4:
                length = self._check(data, at, end)
                needed = 4 + length if end - at > 4 else 5
            self._parts, self._missing = [data[at:]], needed - (end - at)

    def _complete(self, got: list[Any]) -> None:
        """Splits the parts of a frame that has become complete, or whose length is now known."""
        parts, self._parts = self._parts, []
        first = parts[0]
        if len(parts) > 1 and len(first) >= _INVOKE.size and first[4] == INVOKE:
            length, _, number, index, bits, attempt, enqueued, deadline, meta = _INVOKE.unpack_from(first)
            body = _INVOKE.size + meta
            if not bits and body <= len(first):
                if body > 4 + length or index >= self.functions:
                    raise _invalid(length, meta, index, self.functions)
                pieces: list[Any] = [memoryview(first)[body:], *parts[1:]]
                got.append((number, index, b"".join(pieces), first[_INVOKE.size : body], attempt, enqueued, deadline, b""))
                return
        self._split(b"".join(parts), got)

    def _check(self, data: bytes, at: int, end: int) -> int:
        """Returns the length of the frame at an offset. At least four of its bytes must have arrived."""
        length: int = _ID.unpack_from(data, at)[0]
        kind = data[at + 4] if end - at > 4 else None
        if kind == INVOKE:
            most = self.max
        elif kind is None or kind in (CANCEL, CREDIT, DRAIN) or kind in _ANY_TIME and self.due is None:
            most = MAX_SMALL
        elif kind == self.due:
            most = MAX_LOAD if kind == LOAD else MAX_SMALL
        else:
            most = 0
        if length < 1 or kind is not None and length > most:
            raise ValueError(f"a frame of type {kind} and {length} bytes")
        return length


def _invalid(length: int, meta: int, index: int, functions: int) -> ValueError:
    return ValueError(f"an INVOKE of {length} bytes, {meta} of them meta, of function {index} of {functions}")


class Writer:
    """Collects results and sends many at a time. Any thread may add one."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._out: collections.deque[bytes] = collections.deque()  # append, extend and popleft need no lock
        self._large = False  # whether a large payload is in it
        self._lock = unpatched.Lock()
        self.max = 0  # the longest frame, in bytes; HELLO sets it
        self.stats = False  # whether the daemon accepts STATS
        self.measures = False  # whether it requests measurements of calls
        self.blocked = False  # whether it accepts BLOCKED
        self.heartbeat = False  # whether it accepts ALIVE
        self.imports = False  # whether it accepts IMPORTED
        self.last = 0  # the time of the last flush, by time.perf_counter_ns
        self.forked = False  # whether this is a child of the worker, which must send nothing
        self.before_end: Callable[[], object] = bool  # called before the process ends
        self.watch = Watch(self)

    def result(self, number: int, status: int, wall: int, payload: bytes = b"", cpu: int = -1, held: int = -1) -> None:
        """Queues a result; wall, cpu and held are in nanoseconds, and negative if they were
        not measured."""
        if _RESULT_FIXED + len(payload) > self.max:
            summary = f"returned {len(payload)} bytes, more than fit in a frame ({self.max})"
            status, payload = FAILURE, json.dumps({"summary": summary}).encode()
        wall //= 1000
        if wall > 0xFFFFFFFF:
            wall = 0xFFFFFFFF
        if cpu < 0:
            cpu = held = UNMEASURED
        else:
            cpu, held = min(cpu // 1000, UNMEASURED - 1), min(held // 1000, UNMEASURED - 1)
        head = _pack_result(_RESULT_FIXED + len(payload), RESULT, number, status, wall, cpu, held)
        if len(payload) < MIN_APART:
            self._out.append(head + payload)
        else:
            self._out.extend((head, payload))
            self._large = self._large or len(payload) >= MIN_LARGE

    def part(self, number: int, flags: int, head: bytes, data: bytes | memoryview) -> None:
        """Queues a part of a response: its head, encoded, or nothing, and bytes of its body."""
        if not self.forked:  # a child of the worker must not send for it
            self._out.append(b"".join((_PART.pack(_PART_FIXED + len(head) + len(data), PART, number, flags), head, data)))

    def json(self, kind: int, value: Mapping[str, Any]) -> None:
        self.encoded(kind, json.dumps(value).encode())

    def encoded(self, kind: int, payload: bytes) -> None:
        """Queues a frame whose payload is encoded."""
        self._out.append(_HEAD.pack(1 + len(payload), kind) + payload)

    def alive(self) -> None:
        """Sends ALIVE, unless other frames are being sent: they prove as much."""
        if self._lock.acquire(blocking=False):
            try:
                if not self._out:
                    self._sock.send(_ALIVE, socket.MSG_DONTWAIT)
            except BlockingIOError:  # the daemon does not read now, and needs no more of them
                pass
            except OSError as error:
                broken(error)
            finally:
                self._lock.release()

    def waits(self) -> bool:
        return bool(self._out)

    def soon(self) -> None:
        """Ensures that queued frames are sent soon, even if the current call takes long."""
        if not self.watch.started:
            self.flush()  # the code is being loaded, which may take long, and the watch does not run yet
        elif not self.watch.awake:
            self.watch.busy()

    def flush(self) -> None:
        with self._lock:
            out = self._out
            if out:
                pop = out.popleft
                parts = [pop() for _ in range(len(out))]
                if self._large:
                    self._large = False
                    self._send_large(parts)
                else:
                    self._send(b"".join(parts))
            self.last = time.perf_counter_ns()

    def _send_large(self, parts: list[bytes]) -> None:
        """Sends parts without a copy of the large ones."""
        small: list[bytes] = []
        for part in parts:
            small.append(part)
            if len(part) >= MIN_LARGE:
                self._send(b"".join(small[:-1]))
                self._send(part)
                small.clear()
        self._send(b"".join(small))

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._sock.send(view) :]
            except BlockingIOError:  # asyncio's sockets do not block
                unpatched.select([], [self._sock], [])
            except OSError as error:
                broken(error)


class Watch:
    """Sends results that wait behind a long call, and detects that the daemon died.

    It stops polling when nothing was in flight for REST, until busy is called. busy takes
    no lock implemented in Python, because a Timeout may be raised in it. Calls of less than a
    millisecond do not wake it. If one takes longer, check does."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._parent = os.getppid()
        self._wake: unpatched.SimpleQueue[None] = unpatched.SimpleQueue()
        self.started = False
        self.awake = False  # whether it polls; if so, busy need not be called
        # Called at each poll, with its delay in seconds; returns whether to continue polling.
        self.look: Callable[[float], bool] = self.nothing
        self.woke: Callable[[], None] | None = None  # if set, called before look
        self.runs: Callable[[], bool] = bool  # returns whether a call runs in a thread

    def start(self) -> None:
        self.started = True
        unpatched.start(self.run, "drover-watch")

    def busy(self) -> None:
        """Called after a result that is not sent at once."""
        self.awake = True
        self._wake.put(None)

    def check(self) -> None:
        """Called each second, by another thread."""
        if not self.awake and (self.runs() or self._writer.waits()):
            self.busy()

    @staticmethod
    def nothing(late: float) -> bool:
        return False

    def run(self) -> NoReturn:
        writer = self._writer
        while True:
            self._wake.get()
            idle = 0.0
            while idle < REST:
                due = time.perf_counter() + WATCH
                unpatched.sleep(WATCH)
                if self.woke is not None:
                    self.woke()
                late = time.perf_counter() - due
                idle += WATCH
                if writer.waits():
                    idle = 0.0
                    if time.perf_counter_ns() - writer.last > HOLD:
                        writer.flush()
                if self.look(late):
                    idle = 0.0
                if os.getppid() != self._parent:
                    os._exit(0)
            flush_foreign()
            self.awake = False
            if writer.waits() or self.look(0.0):  # it was queued after the last check
                self.busy()
