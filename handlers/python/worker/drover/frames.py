"""The worker's side of docs/worker-protocol.md: frames on a socket."""

import collections
import json
import os
import select
import struct
import threading
import time

PROTOCOL = 1
HELLO, INVOKE, CANCEL, STOP = 1, 2, 3, 4
READY, FAILED, RESULT, LOG = 65, 66, 67, 68
OK, FAILURE, REJECT, RETRY, NOT_TRIED = 0, 1, 2, 3, 4

_HEAD = struct.Struct("<IB")
_RESULT = struct.Struct("<IBIBI")  # length, type, id, status, wall µs
_RESULT_FIXED = _RESULT.size - 4
INVOCATION = struct.Struct("<IHHIqqI")  # id, function, flags, attempt, enqueued, deadline, length of meta
ID = struct.Struct("<I")

# A reply that waits for company is sent after this many seconds at the latest.
LINGER = 0.0003
# How often the watch looks whether a long call holds up the replies before it.
WATCH = 0.005


class Reader:
    """Cuts what the socket gives into frames."""

    def __init__(self, sock, max_frame):
        self._sock = sock
        self._max = max_frame
        self._buffer = bytearray(256 << 10)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0

    def read(self, flags=0):
        """Returns the frames that came: (type, buffer, from, to). They are valid
        until the next read. Raises EOFError when the daemon is gone."""
        self._make_room()
        n = self._sock.recv_into(self._view[self._end :], 0, flags)
        if n == 0:
            raise EOFError
        self._end += n
        frames, buffer, start, end = [], self._buffer, self._start, self._end
        while end - start >= 5:
            length, kind = _HEAD.unpack_from(buffer, start)
            if length < 1 or length > self._max:
                raise ValueError(f"a frame of {length} bytes")
            if end - start - 4 < length:
                break
            frames.append((kind, buffer, start + 5, start + 4 + length))
            start += 4 + length
        self._start = start
        return frames

    def _make_room(self):
        start, end = self._start, self._end
        if start == end:
            self._start = self._end = 0
            return
        needed = 4
        if end - start >= 4:
            needed = 4 + ID.unpack_from(self._buffer, start)[0]
        if start and (end == len(self._buffer) or start + needed > len(self._buffer)):
            self._view[: end - start] = bytes(self._view[start:end])
            self._start, self._end = 0, end - start
        if needed > len(self._buffer):
            if needed > 4 + self._max:
                return  # refused above
            buffer = bytearray(needed + (64 << 10))
            buffer[: self._end] = self._view[: self._end]
            self._buffer, self._view = buffer, memoryview(buffer)


class Writer:
    """Collects replies and sends many at a time. Any thread may add."""

    def __init__(self, sock):
        self._sock = sock
        self._out = collections.deque()  # append and popleft need no lock
        self._lock = threading.Lock()
        self.max = 0  # of a frame, in bytes; set when the daemon has said it
        self.last = 0.0  # when it was sent last, by time.perf_counter
        self.watch = Watch(self)

    def result(self, number, status, wall, payload=b""):
        if _RESULT_FIXED + len(payload) > self.max:
            summary = f"returned {len(payload)} bytes, more than a frame takes ({self.max})"
            status, payload = FAILURE, json.dumps({"summary": summary}).encode()
        self._out.append(
            _RESULT.pack(_RESULT_FIXED + len(payload), RESULT, number, status, min(int(wall * 1e6), 0xFFFFFFFF)) + payload
        )

    def json(self, kind, value):
        payload = json.dumps(value).encode()
        self._out.append(_HEAD.pack(1 + len(payload), kind) + payload)

    def waits(self):
        return bool(self._out)

    def flush(self):
        with self._lock:
            parts, out = [], self._out
            while out:
                parts.append(out.popleft())
            if parts:
                self._send(b"".join(parts))
            self.last = time.perf_counter()

    def _send(self, data):
        view = memoryview(data)
        while view:
            try:
                view = view[self._sock.send(view) :]
            except BlockingIOError:  # asyncio's sockets do not wait
                select.select([], [self._sock], [])


class Watch(threading.Thread):
    """Sends replies that a long call holds up, and notices that the daemon died.

    It rests when nothing was sent for a second, until busy is called."""

    def __init__(self, writer):
        super().__init__(name="drover-watch", daemon=True)
        self._writer = writer
        self._parent = os.getppid()
        self._busy = threading.Event()

    def busy(self):
        """Called after a reply that is not sent at once, so it must cost nothing."""
        if not self._busy.is_set():
            self._busy.set()

    def run(self):
        writer = self._writer
        while True:
            self._busy.wait()
            while writer.waits() or time.perf_counter() - writer.last < 1:
                time.sleep(WATCH)
                if writer.waits() and time.perf_counter() - writer.last > WATCH:
                    writer.flush()
                if os.getppid() != self._parent:
                    os._exit(0)
            self._busy.clear()
            if writer.waits():  # it came between the last look and the clearing
                self._busy.set()
