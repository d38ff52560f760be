"""Runs functions in unit tests as a worker does, without a daemon::

    import unittest
    import drover
    from drover import testing
    from function_app import orders

    class Test(unittest.TestCase):
        def test_order(self):
            self.assertEqual(testing.run(orders, testing.message({"id": 7})), {"id": 7})

        def test_without_id(self):
            with self.assertRaises(drover.Reject):
                testing.run(orders, testing.message({}))

It is part of the package drover in workers, and of the distribution drover-functions."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import signal
import struct
import threading
import time
from typing import Any, Callable, Iterator, Mapping, NoReturn, Sequence, Union

from drover import Context, Message, Outputs, Reject, Response, Timeout, Verdicts, _time_text
from drover.awaitables import is_awaitable
from drover.batches import Bound, adapt
from drover.forms import Misfit, form, is_async, place_of, web_kind
from drover.results import BYTES_TYPE, PLAIN, TEXT_TYPE, Unsendable, encode, encode_part, encoder, refuse, streamed_body

__all__ = ["context", "message", "request", "run", "run_async"]

_LENGTH = struct.Struct("<I")
_Names = Mapping[str, Union[str, Sequence[str]]]


def message(
    body: object = b"",
    *,
    id: str = "1",
    subject: str = "",
    ordering_key: str = "",
    attempt: int = 1,
    enqueued: datetime.datetime | None = None,
    attributes: _Names | None = None,
    content_type: str | None = None,
    correlation_id: str | None = None,
    reply_to: str | None = None,
    reply_to_session: str | None = None,
    to: str | None = None,
    session_id: str | None = None,
    partition_key: str | None = None,
    sequence_number: int | None = None,
    delivery_count: int | None = None,
    dequeue_count: int | None = None,
    expires_at: datetime.datetime | None = None,
    properties: Mapping[str, str] | None = None,
) -> Message:
    """Returns a message. A body that is neither bytes nor str is encoded as JSON, like the result
    of a function. An attribute may have several values, in a list. properties has the properties
    without a separate parameter."""
    known: dict[str, object] = {
        "content_type": content_type,
        "correlation_id": correlation_id,
        "reply_to": reply_to,
        "reply_to_session": reply_to_session,
        "to": to,
        "session_id": session_id,
        "partition_key": partition_key,
        "sequence_number": sequence_number,
        "delivery_count": delivery_count,
        "dequeue_count": dequeue_count,
        "expires_at": None if expires_at is None else _time_text(expires_at).replace("+00:00", "Z"),
    }
    texts = [id, subject, ordering_key]
    for name, values in (attributes or {}).items():
        for value in (values,) if isinstance(values, str) else values:
            texts += name, value
    texts += "", ""
    for name, text in {**known, **(properties or {})}.items():
        if text is not None:
            texts += name, str(text)
    encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
    meta = b"".join(_LENGTH.pack(len(text)) + text for text in encoded)
    return Message(encode(body), attempt, 0 if enqueued is None else round(enqueued.timestamp() * 1e6), meta)


def request(
    method: str = "GET",
    url: str = "http://localhost/",
    body: object = b"",
    *,
    headers: _Names | None = None,
    params: Mapping[str, str] | None = None,
) -> Message:
    """Returns the message of an HTTP request, for a function with an http trigger. params are the
    parameters of the route."""
    properties = {
        "http_method": method,
        "http_url": url,
        "http_query": url.partition("?")[2].partition("#")[0],
        "http_params": json.dumps(dict(params or {})),
        "http_remote": "127.0.0.1",
    }
    names = {"-".join(part.capitalize() for part in name.split("-")): value for name, value in (headers or {}).items()}
    kind = names.get("Content-Type")
    return message(body, attributes=names, content_type=kind if isinstance(kind, str) else None, properties=properties)


def context(function: str = "test", *, timeout: float | None = None, session_state: bytes | None = None) -> Context:
    """Returns a context whose deadline is timeout seconds from now, with the state of a session, which
    the function may replace."""
    made = Context(function, 0 if timeout is None else round((time.time() + timeout) * 1e6))
    made._has_state, made._state = True, session_state
    return made


def run(
    function: Callable[..., Any],
    message: object,
    *,
    context: Context | None = None,
    timeout: float | None = None,
    outputs: Sequence[str] | None = None,
    output: bool = True,
) -> Any:
    """Runs a function, async or not, with a message, and returns its result or raises its exception:
    Reject (also if a worker would reject the body or the result), Retry, Timeout, or any other
    exception, which is a failed attempt. It raises TypeError if a worker would not load the function.

    message is a Message, a list of Messages for a function that takes batches, or a body, as
    message() takes it. For a batch with verdicts the result is Verdicts, with one for each message.
    A response in parts is returned as a Response with its whole body.

    At the timeout of this call or of the context, the function is interrupted as in a worker; a
    function that is not async only in the main thread, on a system with signal.setitimer.
    outputs are the names of the function's outputs; by default all names are valid. If output is
    false, a plain result is dropped."""
    return _Call(function, message, context, timeout, outputs, output).run()


async def run_async(
    function: Callable[..., Any],
    message: object,
    *,
    context: Context | None = None,
    timeout: float | None = None,
    outputs: Sequence[str] | None = None,
    output: bool = True,
) -> Any:
    """The same as run, for async tests, such as those of unittest.IsolatedAsyncioTestCase, on their
    event loop."""
    return await _Call(function, message, context, timeout, outputs, output).run_async()


class _Call:
    """One call of a function, and the check of its result."""

    def __init__(
        self,
        function: Callable[..., Any],
        given: object,
        about: Context | None,
        timeout: float | None,
        outputs: Sequence[str] | None,
        output: bool,
    ) -> None:
        name = getattr(function, "__name__", "function")
        if about is not None and timeout is not None:
            raise TypeError("give the timeout to the context: drover.testing.context(timeout=...)")
        self._context = context(name, timeout=timeout) if about is None else about
        is_batch = isinstance(given, (list, tuple)) and len(given) > 0 and all(isinstance(each, Message) for each in given)
        first: Message = given[0] if is_batch else given if isinstance(given, Message) else message(given)  # type: ignore[index]
        self._context._message = first
        self._replies = not is_batch and "http_method" in first.properties
        self._outputs, self._results = outputs, "" if output else "dropped"
        self._late = False
        if self._replies and web_kind(function):
            raise TypeError(f"{name} is an ASGI or WSGI app; test it with the client of its framework")
        try:
            takes = form(function, self._replies, is_batch)
        except Misfit as error:
            raise TypeError(f"{place_of(function)}{name}{error}") from None
        self.is_async = is_async(function)
        if is_batch:
            batch, call = list(given), adapt(function, takes, self.is_async)  # type: ignore[call-overload]
            self._call: Callable[[], Any] = lambda: call(batch, self._context)
            return
        adapted = function if takes.is_plain else takes.adapt(function, self._replies)
        arguments = (first.body if takes.wants_body else first, self._context)[: 2 if takes.wants_context else 1]
        self._call = lambda: adapted(*arguments)

    def run(self) -> Any:
        if self.is_async:
            return asyncio.run(self.run_async())
        try:
            with self._interrupted():
                value = self._call()
                if type(value) not in PLAIN and (is_awaitable(value) or self._parts(value) is not None):
                    value = asyncio.run(self._finish(value))
        except BaseException as error:
            self._fail(error)
        return self._judged(value)

    async def run_async(self) -> Any:
        task = asyncio.ensure_future(self._run_task())
        try:
            _, late = await asyncio.wait({task}, timeout=self._context.remaining())
            if late:
                self._time_up()
                task.cancel()
            value = await task
        except BaseException as error:
            task.cancel()
            self._fail(error)
        return self._judged(value)

    async def _run_task(self) -> Any:
        if self.is_async:
            return await self._finish(self._call())
        with self._interrupted():
            value = self._call()
        return await self._finish(value)

    async def _finish(self, value: Any) -> Any:
        """Awaits what a function returned, and collects a response in parts."""
        while type(value) not in PLAIN and is_awaitable(value):
            value = await (value if hasattr(value, "__await__") else asyncio.wrap_future(value))
        body = self._parts(value)
        if body is None:
            return value
        if hasattr(type(body), "__aiter__"):
            return _whole(value, [part async for part in body])
        return _whole(value, [body.read()] if hasattr(type(body), "read") else list(body))

    def _parts(self, value: Any) -> Any:
        return streamed_body(value) if self._replies else None

    def _fail(self, error: BaseException) -> NoReturn:
        if self._late and not isinstance(error, (Reject, Timeout)):
            raise Timeout() from error
        raise error

    def _judged(self, value: Any) -> Any:
        """Returns the result of a call that returned; raises Reject if it cannot be sent."""
        try:
            if isinstance(value, Bound):
                return Verdicts([self._verdict(each) for each in value.each], result=self._sendable(value.result))
            return self._sendable(value)
        except Unsendable as error:
            raise Reject(str(error)) from None

    def _verdict(self, value: Any) -> Any:
        if isinstance(value, type) and issubclass(value, BaseException):
            value = value()
        try:
            return value if isinstance(value, BaseException) else self._sendable(value)
        except Unsendable as error:
            return Reject(str(error))

    def _sendable(self, value: Any) -> Any:
        if value is None:
            return None
        if type(value) not in PLAIN:
            refuse(value)
        names: Sequence[str] = self._outputs or ()
        if self._outputs is None and isinstance(value, Outputs):
            names = ["", *value.messages]
        encoder(self._results, names, self._replies)(value)
        return value

    @contextlib.contextmanager
    def _interrupted(self) -> Iterator[None]:
        """Raises Timeout at the timeout."""
        left = self._context.remaining()
        if left is None:
            yield
            return
        if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
            timer = threading.Timer(left, self._time_up)
            timer.daemon = True
            timer.start()
            try:
                yield
            finally:
                timer.cancel()
            return

        def interrupt(*_: object) -> None:
            self._time_up()
            raise Timeout()

        before = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, max(left, 1e-6))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def _time_up(self) -> None:
        self._late = self._context._cancelled = True


def _whole(value: Any, parts: list[Any]) -> Any:
    """Collects a response in parts, and returns it with its whole body."""
    if isinstance(value, Outputs):
        return Outputs(value.messages, result=_whole(value.result, parts))
    kind = (TEXT_TYPE if isinstance(parts[0], str) else BYTES_TYPE) if parts else None
    body = b"".join(map(encode_part, parts))
    if not isinstance(value, Response):
        return Response(body, content_type=kind)
    return Response(body, value.status, value.headers, value.properties.get("content_type", kind))
