"""Calls ASGI and WSGI apps with HTTP requests, and sends their responses.

A response that is complete when the app has returned is an ordinary result. Any other is sent
in parts, while the app produces it."""

from __future__ import annotations

import asyncio
import functools
import io
import json
import logging
import re
import sys
from typing import Any, Awaitable, Callable, Iterable, Mapping, MutableMapping, NamedTuple, Sequence
from urllib.parse import unquote_to_bytes, urlsplit

import drover
from drover import Message
from drover.event_loops import StartError, startups
from drover.payloads import DESCRIBED, OK, put_properties
from drover.logs import current
from drover.streaming import AsyncStream, Stream, streams

# How long an ASGI app may continue after a complete response before the response is sent without
# waiting for its return: once to twice as many seconds. It runs a background task.
BACKGROUND = 0.002
# How long an ASGI app may continue after http.disconnect before its task is cancelled, in seconds.
GRACE = 1.0

_log = logging.getLogger("drover")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROLS = re.compile(r"[\0-\x08\x0a-\x1f\x7f]")


class Disconnected(OSError):
    """The client is gone, or the attempt has timed out: the response is no longer needed."""

    def __init__(self) -> None:
        super().__init__("the call was cancelled: the client is gone, or the time for this attempt is up")


class Target(NamedTuple):
    """A URL, split into what both kinds of app get."""

    scheme: str
    host: str
    port: int
    raw_path: bytes
    path: bytes


@functools.lru_cache(maxsize=1024)
def _target(url: str) -> Target:
    parts = urlsplit(url)
    scheme = parts.scheme or "http"
    raw = parts.path.encode("utf-8", "surrogateescape")
    return Target(scheme, parts.hostname or "", parts.port or (443 if scheme == "https" else 80), raw, unquote_to_bytes(raw))


def _client(remote: str) -> tuple[str, int] | None:
    """Returns the address and the port of a client; 0 is an unknown port."""
    host, _, port = remote.rpartition(":")
    if port.isdigit() and (":" not in host or host.endswith("]")):
        return host.strip("[]"), int(port)
    return (remote, 0) if remote else None


# The keys that the library azure-functions adds to a scope and to an environ, without their prefix.
_AZURE = ("function_directory", "function_name", "invocation_id", "thread_local_storage", "trace_context", "retry_context")


def _azure_keys(context: object) -> dict[str, Any]:
    return {f"azure_functions.{name}": getattr(context, name, None) for name in _AZURE}


def _checked(name: str, value: str) -> tuple[str, str]:
    """Returns a header of a response; raises ValueError if it could inject another one."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"a response cannot have the header {name!r}; a name is letters, digits and -")
    if _CONTROLS.search(value):
        raise ValueError(f"the header {name} of a response has a control character, such as a line break, in its value, which HTTP does not allow")
    return name, value


def _status(value: Any) -> int:
    """Returns the status of a response; raises ValueError if it is invalid."""
    status = int(value)
    if not 200 <= status <= 599:
        raise ValueError(f"the status of the response is {status}; it must be from 200 to 599")
    return status


# Most responses of an app have the headers of one before.
@functools.lru_cache(maxsize=1024)
def _properties(status: int, headers: tuple[tuple[str, str], ...]) -> bytes:
    """Returns the properties of a result that is a response, encoded."""
    properties = {"http_status": str(status)}
    others = []
    for name, value in headers:
        if name.lower() == "content-type" and "content_type" not in properties:
            properties["content_type"] = value
        else:
            others.append((name, value))
    if others:
        properties["http_headers"] = json.dumps(others)
    return put_properties(properties, b"")


def _result(status: int, headers: Sequence[tuple[str, str]], body: bytes) -> tuple[int, bytes]:
    """Returns the status and payload of a result with a complete response."""
    return OK | DESCRIBED, _properties(status, tuple(headers)) + body


class WebCall:
    """How to call an app instead of a function: call takes a Message, and the Context of
    azure-functions or None, and returns the status and payload of the result, or a coroutine of
    them."""

    is_async: bool

    def call(self, message: Message, context: object = None) -> Any:
        raise NotImplementedError


def make_call(kind: str, app: Callable[..., Any]) -> WebCall:
    """Returns the call of an app, asgi or wsgi. The lifespan of an ASGI app begins before the
    worker is ready."""
    return WsgiCall(app) if kind == "wsgi" else AsgiCall(app)


def app_of(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """Returns the app that AsgiFunctionApp or WsgiFunctionApp of azure-functions has wrapped in
    a function; None if there is none."""
    for cell in getattr(function, "__closure__", None) or ():
        content = cell.cell_contents
        if type(content).__name__ in ("AsgiMiddleware", "WsgiMiddleware") and type(content).__module__.startswith("azure.functions"):
            app: Callable[..., Any] | None = getattr(content, "_app", None)
            return app
    return None


Event = MutableMapping[str, Any]
_ASGI = {"version": "3.0", "spec_version": "2.3"}


class Lifespan:
    """The lifespan of an ASGI app: it starts before the first request of a process, and ends
    after the last."""

    _all: dict[int, Lifespan] = {}  # by the identity of the app, which several functions may share

    def __init__(self, app: Callable[..., Any]) -> None:
        self.state: dict[str, Any] = {}
        self._app = app
        self._events: asyncio.Queue[Event]
        self._started: asyncio.Future[str | None]  # the error that the app has reported
        self._ended: asyncio.Future[str | None]
        self._asked = False  # whether the app has read an event: it has a lifespan
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, app: Callable[..., Any]) -> Lifespan:
        lifespan = cls._all.get(id(app))
        if lifespan is None:
            lifespan = cls._all[id(app)] = cls(app)
            startups.append(lifespan.start)
        return lifespan

    async def start(self) -> None:
        """Returns when the app has started; raises a StartError, or the app's exception, if it does
        not."""
        loop = asyncio.get_running_loop()
        self._events, self._started, self._ended = asyncio.Queue(), loop.create_future(), loop.create_future()
        self._events.put_nowait({"type": "lifespan.startup"})
        scope = {"type": "lifespan", "asgi": _ASGI, "asgi.version": "2.1", "asgi.spec_version": "2.1", "state": self.state}
        self._task = loop.create_task(self._app(scope, self._receive, self._send))
        either: list[asyncio.Future[Any]] = [self._task, self._started]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if self._started.done():
            error = self._started.result()
            if error is not None:
                await asyncio.wait([self._task], timeout=GRACE)
                raise StartError(_last_line(error) or "it reported lifespan.startup.failed", error)
            drover.at_exit(self.stop)
            return
        failure = self._task.exception() if not self._task.cancelled() else None
        if failure is not None and self._asked:
            raise failure
        if failure is not None:
            _log.debug("the ASGI app has no lifespan: %r", failure)

    async def _receive(self) -> Event:
        self._asked = True
        return await self._events.get()

    async def _send(self, event: Event) -> None:
        kind, text = event["type"], event.get("message", "")
        if kind in ("lifespan.startup.complete", "lifespan.startup.failed") and not self._started.done():
            self._started.set_result(text if kind.endswith("failed") else None)
        elif kind in ("lifespan.shutdown.complete", "lifespan.shutdown.failed") and not self._ended.done():
            self._ended.set_result(text if kind.endswith("failed") else None)

    async def stop(self) -> None:
        """Ends the lifespan, when the worker has answered its last request."""
        assert self._task is not None
        self._events.put_nowait({"type": "lifespan.shutdown"})
        either: list[asyncio.Future[Any]] = [self._task, self._ended]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if self._ended.done() and self._ended.result() is not None:
            _log.error("the ASGI app failed to shut down: %s", self._ended.result())
        elif self._task.done() and not self._task.cancelled() and self._task.exception() is not None:
            _log.error("the ASGI app failed to shut down", exc_info=self._task.exception())


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]


class AsgiCall(WebCall):
    """The call of an ASGI app, on the worker's event loop."""

    is_async = True

    def __init__(self, app: Callable[..., Any]) -> None:
        self._app = app
        self._lifespan = Lifespan.of(app)

    async def call(self, message: Message, context: object = None) -> tuple[int, bytes]:
        return await _Exchange(message).run(self._app, self._scope(message, context))

    def _scope(self, message: Message, context: object) -> dict[str, Any]:
        properties = message.properties
        target = _target(properties.get("http_url", ""))
        headers = [(name.lower().encode("latin-1", "replace"), value.encode("utf-8", "surrogateescape")) for name, value in message._pairs()[0]]
        if not any(name == b"host" for name, _ in headers):
            headers.insert(0, (b"host", urlsplit(properties.get("http_url", "")).netloc.encode()))
        return {
            "type": "http",
            "asgi": _ASGI,
            "asgi.version": "2.1",
            "asgi.spec_version": "2.1",
            "http_version": "1.1",
            "method": properties.get("http_method", "GET"),
            "scheme": target.scheme,
            "path": target.path.decode("utf-8", "replace"),
            "raw_path": target.raw_path,
            "query_string": properties.get("http_query", "").encode("utf-8", "surrogateescape"),
            "root_path": "",
            "headers": headers,
            "server": (target.host, target.port),
            "client": _client(properties.get("http_remote", "")),
            "state": self._lifespan.state.copy(),
            "extensions": {},
            **(_azure_keys(context) if context is not None else {}),
        }


class _Exchange:
    """One request to an ASGI app, and its response."""

    __slots__ = ("_body", "_early", "_headers", "_loop", "_number", "_out", "_status", "_stream", "_timer", "_waiter", "complete", "gone")

    def __init__(self, message: Message) -> None:
        self._number = current.get().number
        self._loop = asyncio.get_running_loop()
        self._body: bytes | None = message.body
        self._status = 0
        self._headers: list[tuple[str, str]] = []
        self._out: list[bytes] = []  # the body, unless it is sent in parts
        self._stream: AsyncStream | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._early: asyncio.Task[None] | None = None  # sends a complete response before the app has returned
        self._waiter: asyncio.Future[None] | None = None  # what receive waits for
        self.complete = False
        self.gone = False  # whether the call was cancelled

    async def run(self, app: Callable[..., Awaitable[None]], scope: Event) -> tuple[int, bytes]:
        task = asyncio.current_task()
        assert task is not None
        streams.hooks[self._number] = lambda: self._disconnect(task)
        try:
            await app(scope, self.receive, self.send)
        except Exception as error:
            if not self.complete:
                if self.gone:
                    raise Disconnected from error
                raise
            # The client gets the app's own response: frameworks send one, and raise the error again.
            place = error.__traceback__ and error.__traceback__.tb_next  # without this frame
            _log.error("the ASGI app raised an exception after its response", exc_info=(type(error), error, place))
        finally:
            _background.exchanges.discard(self)
            if self._timer is not None:
                self._timer.cancel()
            del streams.hooks[self._number]
            if self._early is None:
                streams.close(self._number)
        if not self.complete:
            if self.gone:
                raise Disconnected
            raise RuntimeError("the ASGI app returned without a complete response" if self._status else "the ASGI app returned without a response")
        if self._early is not None:
            await self._early
        return (OK, b"") if self._stream is not None else _result(self._status, self._headers, b"".join(self._out))

    def _disconnect(self, task: asyncio.Task[Any]) -> None:
        """Called when the call is cancelled: the app receives http.disconnect, and has GRACE to
        return."""
        self.gone = True
        self._wake()
        if self._stream is not None:
            self._stream.cancel()
        self._timer = self._loop.call_later(GRACE, task.cancel)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def receive(self) -> Event:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        if not self.complete and not self.gone:
            if self._waiter is None:
                self._waiter = self._loop.create_future()
            await asyncio.shield(self._waiter)  # others may wait for it, too
        return {"type": "http.disconnect"}

    async def send(self, event: Event) -> None:
        kind = event["type"]
        if self.gone:
            raise Disconnected
        if kind == "http.response.start" and not self._status:
            self._headers = [_header(bytes(name), bytes(value)) for name, value in event.get("headers") or ()]
            self._status = _status(event["status"])
        elif kind == "http.response.body" and self._status and not self.complete:
            await self._send_body(bytes(event.get("body", b"")), event.get("more_body", False))
        else:
            raise RuntimeError(f"the ASGI app sent {kind}, which it may not send now")

    async def _send_body(self, data: bytes, more: bool) -> None:
        if self._stream is None and more and streams.enabled:
            self._stream = streams.start_async(self._number, self._status, self._headers)
        if self._stream is None:
            self._out.append(data)
            if not more and streams.enabled:
                _background.add(self)
        else:
            await self._stream.write_async(data)
            if self.gone:
                raise Disconnected
            if not more:
                self._stream.finish()
        if not more:
            self.complete = True
            self._wake()

    def send_early(self) -> None:
        """Sends a complete response, since the app has not returned: it runs a background task."""
        self._stream = streams.start_async(self._number, self._status, self._headers)
        self._early = self._loop.create_task(self._send_all(self._stream))

    async def _send_all(self, stream: AsyncStream) -> None:
        try:
            await stream.write_async(b"".join(self._out))
            if not self.gone:
                stream.finish()
        finally:
            streams.close(self._number)


@functools.lru_cache(maxsize=1024)
def _header(name: bytes, value: bytes) -> tuple[str, str]:
    """Returns a header of a response as text; raises ValueError if it could inject another one."""
    return _checked(_text(name), _text(value))


def _text(data: bytes) -> str:
    """Returns a header's name or value as text."""
    try:
        return bytes(data).decode()
    except UnicodeDecodeError:
        return bytes(data).decode("latin-1")


class _Background:
    """Finds apps that continue after a complete response. One timer for all of them costs less than
    one for each."""

    def __init__(self) -> None:
        self.exchanges: set[_Exchange] = set()  # with a complete response, whose app has not returned
        self._timed = False

    def add(self, exchange: _Exchange) -> None:
        self.exchanges.add(exchange)
        if not self._timed:
            self._timed = True
            asyncio.get_running_loop().call_later(BACKGROUND, self._look, set())

    def _look(self, before: set[_Exchange]) -> None:
        """Sends the responses that were complete at the last look, too."""
        for exchange in before & self.exchanges:
            self.exchanges.discard(exchange)
            exchange.send_early()
        self._timed = bool(self.exchanges)
        if self._timed:
            asyncio.get_running_loop().call_later(BACKGROUND, self._look, set(self.exchanges))


_background = _Background()


class WsgiCall(WebCall):
    """The call of a WSGI app, in a thread."""

    is_async = False

    def __init__(self, app: Callable[..., Any]) -> None:
        self._app = app

    def call(self, message: Message, context: object = None) -> tuple[int, bytes]:
        return _Response(current.get().number).run(self._app, self._environ(message, context))

    def _environ(self, message: Message, context: object) -> dict[str, Any]:
        properties = message.properties
        target = _target(properties.get("http_url", ""))
        environ: dict[str, Any] = {
            "REQUEST_METHOD": properties.get("http_method", "GET"),
            "SCRIPT_NAME": "",
            "PATH_INFO": target.path.decode("latin-1"),
            "QUERY_STRING": _native(properties.get("http_query", "")),
            "CONTENT_LENGTH": str(len(message.body)),
            "SERVER_NAME": target.host,
            "SERVER_PORT": str(target.port),
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": target.scheme,
            "wsgi.input": io.BytesIO(message.body),
            "wsgi.input_terminated": True,
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
        }
        client = _client(properties.get("http_remote", ""))
        if client is not None:
            environ["REMOTE_ADDR"] = client[0]
            if client[1]:
                environ["REMOTE_PORT"] = str(client[1])
        raw = target.raw_path.decode("latin-1")
        environ["REQUEST_URI"] = environ["RAW_URI"] = f"{raw}?{environ['QUERY_STRING']}" if environ["QUERY_STRING"] else raw
        for name, value in message._pairs()[0]:
            key = name.upper().replace("-", "_")
            if key == "CONTENT_TYPE":
                environ[key] = _native(value)
            elif key != "CONTENT_LENGTH" and "_" not in name:  # a name with _ would pass for another one
                key = f"HTTP_{key}"
                environ[key] = f"{environ[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{_native(value)}" if key in environ else _native(value)
        environ.setdefault("HTTP_HOST", urlsplit(properties.get("http_url", "")).netloc)
        if context is not None:
            environ.update({key: value for key, value in _azure_keys(context).items() if value is not None})
        return environ


def _native(value: str) -> str:
    """Returns text as WSGI has it: its bytes as Latin-1."""
    return value.encode("utf-8", "surrogateescape").decode("latin-1")


def _from_native(value: str) -> str:
    """Returns text of a WSGI app as its bytes mean it."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


class _Response:
    """The response of a WSGI app to one request."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._status = 0
        self._headers: list[tuple[str, str]] = []
        self._length: int | None = None  # of the body, if the app has set it
        self._stream: Stream | None = None
        self._out: list[bytes] = []  # the body, unless it is sent in parts

    def run(self, app: Callable[..., Iterable[bytes]], environ: Mapping[str, Any]) -> tuple[int, bytes]:
        body: Any = None
        try:
            body = app(environ, self.start)
            whole = isinstance(body, (list, tuple))
            size = 0
            for data in body:
                if not data:
                    continue
                size += len(data)
                if self._stream is None and (whole or size == self._length and not self._out):
                    self._out.append(data)  # nothing of it is to come
                else:
                    self.write(data)
            if not self._status:
                raise RuntimeError("the WSGI app returned without calling start_response")
        finally:
            try:
                if hasattr(body, "close"):
                    body.close()
            finally:
                streams.close(self._number)
        return (OK, b"") if self._stream is not None else _result(self._status, self._headers, b"".join(self._out))

    def start(self, status: str, headers: Sequence[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        """The start_response of WSGI."""
        try:
            if exc_info is not None and self._stream is not None:
                raise exc_info[1].with_traceback(exc_info[2])
            if exc_info is None and self._status:
                raise RuntimeError("start_response was called twice without exc_info")
        finally:
            exc_info = None  # it would keep its own frame alive
        self._headers = [_checked(name, _from_native(value)) for name, value in headers]
        self._status = _status(status.split(" ", 1)[0])
        length = next((value for name, value in self._headers if name.lower() == "content-length"), "")
        self._length = int(length) if length.isdigit() else None
        return self.write

    def write(self, data: bytes) -> None:
        """The write callable of WSGI: sends a part of the body."""
        if not self._status:
            raise RuntimeError("the WSGI app sent a part of its body without calling start_response")
        if not streams.enabled:
            self._out.append(bytes(data))
            return
        if self._stream is None:
            self._stream = streams.start(self._number, self._status, self._headers)
            for before in self._out:
                self._stream.write(before)
        self._stream.write(bytes(data))
