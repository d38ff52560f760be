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
    Tuple,
    Union,
    final,
)

from drover import unpatched
from drover.exit import broken
from drover.streams import flush_foreign

PROTOCOL = 4
HELLO, LOAD, INVOKE, CANCEL, DRAIN, FORK, SETTINGS = 1, 2, 3, 4, 5, 6, 7
WELCOME, READY, FAILED, RESULT, LOG, STATS, FORKED, BLOCKED, ALIVE, REPLACE, IMPORTED = 65, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75
CAPABILITIES = ["blocked", "cancel", "fork", "heartbeat", "imports", "log", "properties", "session_state", "settings", "stats"]
OK, FAILURE, REJECT, RETRY, NOT_TRIED, STATE = 0, 1, 2, 3, 4, 5
DESCRIBED = 128  # added to OK and STATE: the output follows its properties
WITH_STATE = 1  # in the flags of an INVOKE: its session's state precedes meta
UNMEASURED = 0xFFFFFFFF  # a cpu or held that was not measured
NO_STATE = 0xFFFFFFFF  # a state's length if the session has no state
MAX_LOAD = 8 << 20  # the largest LOAD, in bytes
MAX_SMALL = 256 << 10  # the largest HELLO, CANCEL, DRAIN and SETTINGS
MAX_SPARE = 4 << 20  # the largest buffer that is kept for the next frames, in bytes

_HEAD = struct.Struct("<IB")
_RESULT = struct.Struct("<IBIBIII")  # length, type, id, status, wall, cpu and held in µs
_RESULT_FIXED = _RESULT.size - 4
_pack_result = _RESULT.pack
_INVOKE = struct.Struct("<IBIHHIqqI")  # length, type, id, function, flags, attempt, enqueued, deadline, length of meta
_ID = struct.Struct("<I")
_ALIVE = _HEAD.pack(1, ALIVE)

# The longest time that a result waits to be sent together with others, in ns.
LINGER = 300_000
# The time between two checks by the watch whether results wait behind a long call, in seconds.
WATCH = 0.005
# The time for which it continues to poll when nothing is in flight, in seconds.
REST = 0.2


if TYPE_CHECKING:

    @final
    class Invocation(Tuple[int, int, bytes, int, int, int, int, int, int]):
        """An INVOKE: number, function (its index), data, meta, body, end, attempt, enqueued
        and deadline, where data[meta:body] is its meta and data[body:end] its body."""
else:
    # One is created for each message. With a NamedTuple in its place, a call that does nothing
    # takes 0.2 µs more, of 1.5 (main thread), 1.7 (threads) and 2.0 (async).
    Invocation = tuple


class Cancel(NamedTuple):
    """A CANCEL of an invocation, by its number."""

    number: int


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


Frame = Union[Invocation, Cancel, Drain, Hello, Load, Settings]
_WITH_JSON = {HELLO: Hello, LOAD: Load, SETTINGS: Settings}


def _cut_state(data: bytes, at: int) -> tuple[bytes | None, int]:
    """Returns the session's state at an offset, None if there is none, and the offset of its end."""
    (length,) = _ID.unpack_from(data, at)
    at += 4
    if length == NO_STATE:
        return None, at
    return data[at : at + length], at + length


def put_state(state: bytes | None, payload: bytes) -> bytes:
    """Returns the payload of a result with a new state of its session."""
    if state is None:
        return _ID.pack(NO_STATE) + payload
    return _ID.pack(len(state)) + state + payload


def put_properties(properties: Mapping[str, str], payload: bytes) -> bytes:
    """Returns the payload of a result that has properties, a dict of str to str."""
    texts = [text.encode("utf-8", "surrogateescape") for pair in properties.items() for text in pair]
    pairs = b"".join([_ID.pack(len(text)) + text for text in texts])
    return _ID.pack(len(pairs)) + pairs + payload


class Reader:
    """Splits the data of the socket into frames."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.max = 0  # the longest INVOKE, in bytes; HELLO sets it
        self.due: int | None = HELLO  # the expected frame of JSON; None: none
        self.functions = 0  # the number of the app's functions
        self._buffer = bytearray(256 << 10)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self.states: dict[int, bytes | None] = {}  # the session's state of each invocation that has one, by number

    def reset(self) -> None:
        """Drops buffered data: it was sent to the template from which this process was forked."""
        self._start = self._end = 0

    def read(self, flags: int = 0) -> list[Frame]:
        """Returns the frames that have arrived. Raises EOFError if the daemon is gone, and
        ValueError if a frame is invalid: no frame after it can be read."""
        self._make_room()
        n = self._sock.recv_into(self._view[self._end :], 0, flags)
        if n == 0:
            raise EOFError
        self._end += n
        end = self._end - self._start
        got: list[Any] = []  # a type checker does not accept a tuple as an Invocation
        at = 0
        if end < 5 or end < 4 + _ID.unpack_from(self._buffer, self._start)[0]:
            if end >= 4:
                self._check(self._buffer, self._start, self._end)
            return got  # a large frame is incomplete
        data, maximum, unpack = bytes(self._view[self._start : self._end]), self.max, _INVOKE.unpack_from
        functions = self.functions
        while end - at >= 5:
            kind = data[at + 4]
            if kind == INVOKE and end - at >= _INVOKE.size:
                length, _, number, index, bits, attempt, enqueued, deadline, meta = unpack(data, at)
                after = at + 4 + length
                if after > end and length <= maximum:
                    break
                start = at + _INVOKE.size
                if bits & WITH_STATE and length <= maximum:
                    if start + 4 > after:
                        raise ValueError(f"an INVOKE of {length} bytes, without the state that it says to have")
                    self.states[number], start = _cut_state(data, start)
                body = start + meta
                if length > maximum or body > after or index >= functions:
                    raise ValueError(f"an INVOKE of {length} bytes, {meta} of them meta, of function {index} of {functions}")
                got.append((number, index, data, start, body, after, attempt, enqueued, deadline))
                at = after
                continue
            length = self._check(data, at, end)
            if end - at - 4 < length:
                break
            payload = data[at + 5 : at + 4 + length]
            if kind == CANCEL and len(payload) == _ID.size:
                got.append(Cancel(_ID.unpack(payload)[0]))
            elif kind == DRAIN and not payload:
                got.append(Drain())
            elif kind == self.due or kind == SETTINGS and self.due is None:
                got.append(_WITH_JSON[kind](payload))
            else:
                raise ValueError(f"a frame of type {kind} and {length} bytes")
            at += 4 + length
        if end - at == 4:
            self._check(data, at, end)
        self._start += at
        return got

    def _check(self, data: bytes | bytearray, at: int, end: int) -> int:
        """Returns the length of the frame at an offset, of which at least four bytes have arrived."""
        length: int = _ID.unpack_from(data, at)[0]
        kind = data[at + 4] if end - at > 4 else None
        if kind == INVOKE:
            most = self.max
        elif kind is None or kind in (CANCEL, DRAIN) or kind == SETTINGS and self.due is None:
            most = MAX_SMALL
        elif kind == self.due:
            most = MAX_LOAD if kind == LOAD else MAX_SMALL
        else:
            most = 0
        if length < 1 or kind is not None and length > most:
            raise ValueError(f"a frame of type {kind} and {length} bytes")
        return length

    def _make_room(self) -> None:
        start, end = self._start, self._end
        if start == end:
            self._start = self._end = 0
            if len(self._buffer) > MAX_SPARE:  # one large frame must not use memory forever
                self._buffer = bytearray(256 << 10)
                self._view = memoryview(self._buffer)
            return
        needed = 5
        if end - start > 4:  # the length was checked
            needed = 4 + _ID.unpack_from(self._buffer, start)[0]
        if start and (end == len(self._buffer) or start + needed > len(self._buffer)):
            self._view[: end - start] = bytes(self._view[start:end])
            self._start, self._end = 0, end - start
        if needed > len(self._buffer):
            buffer = bytearray(needed + (64 << 10))
            buffer[: self._end] = self._view[: self._end]
            self._buffer, self._view = buffer, memoryview(buffer)


class Writer:
    """Collects results and sends many at a time. Any thread may add one."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._out: collections.deque[bytes] = collections.deque()  # append and popleft need no lock
        self._lock = unpatched.Lock()
        self.max = 0  # the longest frame, in bytes; HELLO sets it
        self.stats = False  # whether the daemon accepts STATS
        self.measures = False  # whether it requests measurements of calls
        self.blocked = False  # whether it accepts BLOCKED
        self.heartbeat = False  # whether it accepts ALIVE
        self.imports = False  # whether it accepts IMPORTED
        self.last = 0  # the time of the last flush, by time.perf_counter_ns
        self.forked = False  # whether this is a child of the worker, which must send nothing
        self.watch = Watch(self)

    def result(self, number: int, status: int, wall: int, payload: bytes = b"", cpu: int = -1, held: int = -1) -> None:
        """Queues a result; wall, cpu and held are in nanoseconds, and negative if they were
        not measured."""
        if _RESULT_FIXED + len(payload) > self.max:
            summary = f"returned {len(payload)} bytes, more than a frame takes ({self.max})"
            status, payload = FAILURE, json.dumps({"summary": summary}).encode()
        wall //= 1000
        if wall > 0xFFFFFFFF:
            wall = 0xFFFFFFFF
        if cpu < 0:
            cpu = held = UNMEASURED
        else:
            cpu, held = min(cpu // 1000, UNMEASURED - 1), min(held // 1000, UNMEASURED - 1)
        self._out.append(_pack_result(_RESULT_FIXED + len(payload), RESULT, number, status, wall, cpu, held) + payload)

    def json(self, kind: int, value: Mapping[str, Any]) -> None:
        payload = json.dumps(value).encode()
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
                self._send(b"".join([pop() for _ in range(len(out))]))
            self.last = time.perf_counter_ns()

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
    no lock implemented in Python, because a Timeout may be raised in it."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._parent = os.getppid()
        self._wake: unpatched.SimpleQueue[None] = unpatched.SimpleQueue()
        self.started = False
        self.awake = False  # whether it polls; if so, busy need not be called
        # Called at each poll, with its delay in seconds; returns whether to continue polling.
        self.look: Callable[[float], bool] = self.nothing
        self.woke: Callable[[], None] | None = None  # if set, called before look

    def start(self) -> None:
        self.started = True
        unpatched.start(self.run, "drover-watch")

    def busy(self) -> None:
        """Called after a result that is not sent at once."""
        self.awake = True
        self._wake.put(None)

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
                    if time.perf_counter_ns() - writer.last > WATCH * 1e9:
                        writer.flush()
                if self.look(late):
                    idle = 0.0
                if os.getppid() != self._parent:
                    os._exit(0)
            flush_foreign()
            self.awake = False
            if writer.waits() or self.look(0.0):  # it was queued after the last check
                self.busy()
