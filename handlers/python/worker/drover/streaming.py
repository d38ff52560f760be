"""Sends the response of a call in parts, as far as the daemon has granted credit.

A call has one stream, which belongs to the thread or the task of the call. The thread that
reads the socket adds credit. While a stream has no credit, its call waits: so a slow client
slows the function down, and no side stores more than the credit."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any, AsyncIterator, Callable, Iterator, Sequence

from drover import Outputs, Response, Timeout, unpatched
from drover.frames import LAST, WITH_HEAD, Writer, put_head
from drover.results import BYTES_TYPE, TEXT_TYPE, encode_part

# The credit of a stream at its beginning, in bytes; docs/worker-protocol.md.
WINDOW = 256 << 10
# The most bytes of a body in one PART, and in one read from a file.
PIECE = 64 << 10
# The longest head: a PART has 256 KiB at most.
MAX_HEAD = 128 << 10


class Stream:
    """The response of one call in parts, written by a thread that may wait."""

    def __init__(self, streams: Streams, number: int, status: int, headers: Sequence[tuple[str, str]]) -> None:
        self._streams = streams
        self._number = number
        self._head = put_head(status, headers)
        if len(self._head) > MAX_HEAD:
            raise ValueError(f"the headers of the response have {len(self._head)} bytes; the maximum is {MAX_HEAD}")
        self._sent = 0
        self._granted = WINDOW  # changed only by the thread that reads
        self._wakes: unpatched.SimpleQueue[None] = unpatched.SimpleQueue()
        self.cancelled = False

    def has_credit(self) -> bool:
        return self._granted > self._sent

    def send(self, data: memoryview) -> int:
        """Sends the head, if that was not done, and as many bytes as the credit and a frame
        allow. Returns their number."""
        n = min(len(data), self._granted - self._sent, PIECE)
        if n or self._head:
            head, self._head = self._head, b""
            self._sent += n
            self._send(WITH_HEAD if head else 0, head, data[:n])
        return n

    def _send(self, flags: int, head: bytes, data: bytes | memoryview) -> None:
        writer = self._streams.writer
        writer.part(self._number, flags, head, data)
        writer.flush()

    def finish(self) -> None:
        """Reports that the body is complete, although the call continues."""
        head, self._head = self._head, b""
        self._send(LAST | WITH_HEAD if head else LAST, head, b"")

    def write(self, data: bytes) -> None:
        """Sends bytes, and waits for credit. Raises Timeout if the call is cancelled."""
        rest = memoryview(data)
        while True:
            if self.cancelled:
                raise Timeout
            rest = rest[self.send(rest) :]
            if not rest:
                return
            if not self.has_credit():
                self._streams.wait(self)

    def wait(self) -> None:
        """Waits until the stream has credit or is cancelled, while another thread reads."""
        while not self.has_credit() and not self.cancelled:
            self._wakes.get()

    def grant(self, amount: int) -> None:
        self._granted += amount
        self.wake()

    def cancel(self) -> None:
        self.cancelled = True
        self.wake()

    def wake(self) -> None:
        self._wakes.put(None)


class AsyncStream(Stream):
    """The response of one call in parts, written by a task."""

    def __init__(self, streams: Streams, number: int, status: int, headers: Sequence[tuple[str, str]]) -> None:
        super().__init__(streams, number, status, headers)
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    async def write_async(self, data: bytes) -> None:
        """Sends bytes, and waits for credit, or until cancel was called."""
        rest = memoryview(data)
        while True:
            rest = rest[self.send(rest) :]
            if not rest:
                return
            self._event.clear()
            if not self.has_credit():
                await self._event.wait()
            if self.cancelled:
                return

    def wake(self) -> None:
        self._loop.call_soon_threadsafe(self._event.set)  # the loop may be that of another thread


class Streams:
    """The open streams of a worker, by the number of their invocation."""

    def __init__(self) -> None:
        self.writer: Writer
        self.enabled = False  # whether the daemon accepts PART
        self.open: dict[int, Stream] = {}
        self.wait: Callable[[Stream], None] = Stream.wait
        # What to call instead of cancelling a task, by the number of the invocation.
        self.hooks: dict[int, Callable[[], None]] = {}

    def start(self, number: int, status: int, headers: Sequence[tuple[str, str]]) -> Stream:
        """Opens the stream of a call that runs in a thread."""
        stream = self.open[number] = Stream(self, number, status, headers)
        return stream

    def start_async(self, number: int, status: int, headers: Sequence[tuple[str, str]]) -> AsyncStream:
        """Opens the stream of a call that runs in the current task."""
        stream = self.open[number] = AsyncStream(self, number, status, headers)
        return stream

    def close(self, number: int) -> None:
        self.open.pop(number, None)

    def grant(self, number: int, amount: int) -> None:
        """Adds credit. Called by the thread that reads; the call may have ended."""
        stream = self.open.get(number)
        if stream is not None:
            stream.grant(amount)

    def cancel(self, number: int) -> None:
        """Wakes the stream of a call that is cancelled."""
        stream = self.open.get(number)
        if stream is not None:
            stream.cancel()


# A process has one, since it has one socket.
streams = Streams()


def _head(value: Any, first: bytes | str) -> tuple[int, list[tuple[str, str]]]:
    """Returns the status and the headers of a response whose body begins with a part."""
    status, headers, kind = 200, [], None
    if isinstance(value, Outputs):
        value = value.result
    if isinstance(value, Response):
        status, headers, kind = value.status, list(value.headers), value.properties.get("content_type")
    return status, [("Content-Type", kind or (TEXT_TYPE if isinstance(first, str) else BYTES_TYPE)), *headers]


_END: Any = object()


def _parts(body: Any) -> Iterator[Any]:
    """Returns an iterator over the parts of a body that is an iterator or a file."""
    if hasattr(type(body), "read"):
        return iter(lambda: body.read(PIECE) or _END, _END)
    return iter(body)


def _close(body: Any) -> None:
    close = getattr(body, "close", None)
    if callable(close):
        try:
            close()
        except ValueError:  # a generator that still runs, in the thread that a cancelled call has left
            pass


def send_parts(number: int, value: Any, body: Any, pull: Callable[[Any], Any]) -> Any:
    """Sends the body of a return value in parts, in the thread of a sync call. pull awaits an
    awaitable. Returns the result of the call."""
    stream: Stream | None = None
    parts: Iterator[Any] = _pulled(body, pull) if hasattr(type(body), "__aiter__") else _parts(body)
    try:
        for part in parts:
            data = encode_part(part)
            if stream is None:
                stream = streams.start(number, *_head(value, part))
            stream.write(data)
    finally:
        streams.close(number)
        _close(parts)
        if not hasattr(type(body), "__aiter__"):
            _close(body)
    return _rest(value, stream is not None)


def _pulled(body: Any, pull: Callable[[Any], Any]) -> Iterator[Any]:
    """Iterates over an async iterator in a thread."""
    iterator = body.__aiter__()
    try:
        while True:
            part = pull(_next(iterator))
            if part is _END:
                return
            yield part
    finally:
        if hasattr(iterator, "aclose"):
            pull(iterator.aclose())


async def _next(iterator: AsyncIterator[Any]) -> Any:
    try:
        return await iterator.__anext__()
    except StopAsyncIteration:
        return _END


async def send_parts_async(number: int, value: Any, body: Any, run: Callable[[Callable[[], Any]], Any]) -> Any:
    """Like send_parts, in the task of an async call. run calls a function in a thread."""
    stream: AsyncStream | None = None
    is_async = hasattr(type(body), "__aiter__")
    iterator: Any = body.__aiter__() if is_async else _parts(body)
    try:
        while True:
            part = await _next(iterator) if is_async else await run(lambda: next(iterator, _END))
            if part is _END:
                break
            data = encode_part(part)
            if stream is None:
                stream = streams.start_async(number, *_head(value, part))
            await stream.write_async(data)
    finally:
        streams.close(number)
        if not is_async:
            await run(lambda: _close(body))
        elif hasattr(iterator, "aclose"):
            await iterator.aclose()
    return _rest(value, stream is not None)


def _rest(value: Any, sent: bool) -> Any:
    """Returns the result of a call after the parts of its response. If there was no part, it is
    the response, without a body."""
    if isinstance(value, Outputs):
        return Outputs(value.messages, result=_rest(value.result, sent))
    if sent:
        return None
    if isinstance(value, Response):
        return Response(b"", value.status, value.headers, value.properties.get("content_type"))
    return Response()
