"""The API of drover functions. Standard library only; Python 3.9 and newer.

A function has one of these forms, also with `async def`::

    def f(body): ...               # the bytes
    def f(message): ...            # a Message, by the parameter's name or annotation
    def f(message, context): ...   # a Message and a Context
    def f(order: Order): ...       # the body, decoded as str, dict, list, a dataclass, a pydantic model; also with the others
    def f(messages): ...           # a list of Messages, if the configuration has batch; also with a Context

It returns None, bytes, str, a value that JSON can represent, an Output, Outputs, or in an HTTP
function a Response. An exception is a failed attempt, unless it is Reject or Retry. Timeout is
raised when the attempt times out.
"""

from __future__ import annotations

import datetime
import json
import re
import struct
import time
from typing import Any, Callable, Iterable, Mapping, Sequence, TypeVar

__all__ = ["Context", "Message", "Output", "Outputs", "Reject", "Response", "Retry", "Timeout", "Verdicts", "after_fork", "at_exit"]


class Reject(Exception):
    """Raised by a function to dead-letter the message at once."""


_LONGEST_RETRY = 30 * 86400  # seconds


class Retry(Exception):
    """Raised by a function to retry the message after this many seconds (None: the function's backoff)."""

    def __init__(self, reason: object = "", *, after: float | None = None) -> None:
        if after is not None and not 0 <= float(after) <= _LONGEST_RETRY:
            raise ValueError(f"after must be from 0 to {_LONGEST_RETRY} seconds")
        super().__init__(reason)
        self.after: float | None = None if after is None else float(after)


class Timeout(BaseException):
    """Raised in a sync function when its attempt times out: after its timeout, or when
    the drain deadline of a stopping daemon has passed. An async function is cancelled
    instead, with asyncio.CancelledError.

    It is not an Exception, so that `except Exception` in a loop over attempts does not
    swallow it. A function may catch it to clean up, and has kill_grace (5 s by default)
    to end. If it then raises any exception, the attempt has timed out. If it returns a
    value, the message is done. If it does neither in time, its process is killed.

    It is raised between two steps of Python code: not while the function waits in a
    thread for a lock or for input and output, or runs C code of an extension. Code that
    must not be interrupted should check context.remaining() first.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(args or ("the time for this attempt is up",)))


_LENGTH = struct.Struct("<I")


class Message:
    """A message: its body and its metadata. Read only."""

    __slots__ = ("_attributes", "_enqueued", "_fields", "_meta", "_properties", "attempt", "body")

    def __init__(self, body: bytes, attempt: int = 1, enqueued: int = 0, meta: bytes = b"\0" * 12) -> None:
        self.body = body
        self.attempt = attempt
        self._enqueued = enqueued  # µs since 1970; 0 is unknown
        self._meta = meta
        self._fields: list[str] | None = None
        self._attributes: dict[str, str] | None = None
        self._properties: dict[str, str] | None = None

    def _texts(self) -> list[str]:
        """Returns the texts of meta: id, subject, ordering key, names and values."""
        if self._fields is None:
            fields: list[str] = []
            at, meta = 0, self._meta
            while at < len(meta):
                (length,) = _LENGTH.unpack_from(meta, at)
                fields.append(meta[at + 4 : at + 4 + length].decode("utf-8", "surrogateescape"))
                at += 4 + length
            self._fields = fields
        return self._fields

    @property
    def id(self) -> str:
        return self._texts()[0]

    @property
    def subject(self) -> str:
        return self._texts()[1]

    @property
    def ordering_key(self) -> str:
        return self._texts()[2]

    @property
    def attributes(self) -> dict[str, str]:
        """The headers set by the sender, a dict of str to str. docs/messages.md describes the
        form of values that are not text. If a header has several values, this is the first."""
        if self._attributes is None:
            attributes: dict[str, str] = {}
            for name, value in self._pairs()[0]:
                attributes.setdefault(name, value)
            self._attributes = attributes
        return self._attributes

    def values(self, name: str) -> list[str]:
        """Returns all values of an attribute, in order: a list, empty if there are none."""
        return [value for other, value in self._pairs()[0] if other == name]

    @property
    def properties(self) -> dict[str, str]:
        """The properties set by the source, a dict of str to str: content_type,
        sequence_number and others that docs/messages.md lists."""
        if self._properties is None:
            self._properties = dict(self._pairs()[1])
        return self._properties

    def _pairs(self) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Returns the pairs of the attributes and those of the properties. A pair of empty
        texts separates them."""
        texts = self._texts()
        pairs = list(zip(texts[3::2], texts[4::2]))
        end = pairs.index(("", "")) if ("", "") in pairs else len(pairs)
        return pairs[:end], pairs[end + 1 :]

    def _known(self, name: str, header: str = "") -> str | None:
        value = self.properties.get(name)
        if value is None and header:
            value = self.attributes.get(header, self.attributes.get(header.lower()))
        return value

    @property
    def content_type(self) -> str | None:
        """The type of the body, such as application/json; None if the sender set none."""
        return self._known("content_type", "Content-Type")

    @property
    def correlation_id(self) -> str | None:
        """The ID that a reply should contain; None if the sender set none."""
        return self._known("correlation_id", "Correlation-Id")

    @property
    def reply_to(self) -> str | None:
        """The destination for a reply; None if the sender set none."""
        return self._known("reply_to", "Reply-To")

    @property
    def reply_to_session(self) -> str | None:
        """The session for a reply; None if the sender set none."""
        return self._known("reply_to_session")

    @property
    def to(self) -> str | None:
        """The destination set by the sender; None if it set none."""
        return self._known("to")

    @property
    def session_id(self) -> str | None:
        """The message's session; None if it has none."""
        return self._known("session_id")

    @property
    def partition_key(self) -> str | None:
        return self._known("partition_key")

    @property
    def sequence_number(self) -> int | None:
        """The number assigned by the source; None if there is none."""
        return self._number("sequence_number")

    @property
    def delivery_count(self) -> int | None:
        """The number of deliveries by Service Bus, including this one; None for other sources."""
        return self._number("delivery_count")

    @property
    def dequeue_count(self) -> int | None:
        """The number of deliveries by a storage queue, including this one; None for other sources."""
        return self._number("dequeue_count")

    def _number(self, name: str) -> int | None:
        value = self.properties.get(name)
        return None if value is None else int(value)

    @property
    def expires_at(self) -> datetime.datetime | None:
        """When the message expires at the source, a datetime in UTC; None if never, or unknown."""
        value = self.properties.get("expires_at")
        if value is None:
            return None
        whole, _, rest = value.rstrip("Z").partition(".")
        at = datetime.datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S")
        return at.replace(microsecond=int((rest + "000000")[:6]), tzinfo=datetime.timezone.utc)

    @property
    def enqueued(self) -> datetime.datetime | None:
        """When the source accepted the message, a datetime in UTC; None if unknown."""
        if self._enqueued == 0:
            return None
        return datetime.datetime.fromtimestamp(self._enqueued / 1e6, datetime.timezone.utc)

    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"<drover.Message {self.id} attempt {self.attempt}, {len(self.body)} bytes>"


def _time_text(at: datetime.datetime) -> str:
    """Returns a time for a property of an output. A time without a zone is in UTC."""
    if at.tzinfo is None:
        at = at.replace(tzinfo=datetime.timezone.utc)
    return at.astimezone(datetime.timezone.utc).isoformat()


def _seconds_text(life: datetime.timedelta) -> str:
    return f"{life.total_seconds():.6f}".rstrip("0").rstrip(".")


class Output:
    """An output with properties, for outputs that support them. A function returns it
    instead of the body, for example as the reply to a request::

        return drover.Output(result, correlation_id=message.correlation_id or message.id,
                             session_id=message.reply_to_session)

    The body is any value that a function may return. If it is encoded as JSON, the default
    content_type is application/json. Service Bus and storage queues hide the message until
    scheduled_at, which is in UTC if it has no zone, and drop it after time_to_live."""

    __slots__ = ("attributes", "body", "properties")

    def __init__(
        self,
        body: object = b"",
        *,
        content_type: str | None = None,
        correlation_id: str | None = None,
        message_id: str | None = None,
        reply_to: str | None = None,
        reply_to_session: str | None = None,
        session_id: str | None = None,
        subject: str | None = None,
        to: str | None = None,
        partition_key: str | None = None,
        scheduled_at: datetime.datetime | None = None,
        time_to_live: datetime.timedelta | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        if isinstance(body, Output):
            raise TypeError("the body of an Output is an Output; give it its body")
        self.body = body
        self.properties: dict[str, str] = {
            name: value
            for name, value in (
                ("content_type", content_type),
                ("correlation_id", correlation_id),
                ("message_id", message_id),
                ("reply_to", reply_to),
                ("reply_to_session", reply_to_session),
                ("session_id", session_id),
                ("subject", subject),
                ("to", to),
                ("partition_key", partition_key),
            )
            if value is not None
        }
        if scheduled_at is not None:
            self.properties["scheduled_at"] = _time_text(scheduled_at)
        if time_to_live is not None:
            self.properties["time_to_live"] = _seconds_text(time_to_live)
        self.attributes: dict[str, str] = dict(attributes or ())
        for name, value in (*self.properties.items(), *self.attributes.items()):
            if not isinstance(value, str) or not isinstance(name, str):
                raise TypeError(f"{name} of an Output is {type(value).__name__}; it must be a str")

    def __repr__(self) -> str:
        return f"<drover.Output {self.body!r} {self.properties}>"


class Outputs:
    """Messages for the function's named outputs, whose names are in the configuration. A
    function returns it::

        return drover.Outputs(receipts=receipt, audit=[opened, closed])

    A list or tuple is a message for each of its elements, sent in their order. Any other value is
    one message, and None is none. Each message is any value that a function may return, or an
    Output, which has properties, and can have a list as its body.

    A name that is not an identifier, or is "result", goes into a dict: `drover.Outputs({"$return": receipt})`.
    result is the plain result of the function, for outputs without a name."""

    __slots__ = ("messages", "result")

    def __init__(self, messages: Mapping[str, object] | None = None, /, *, result: object = None, **named: object) -> None:
        if messages is not None and not hasattr(messages, "items"):
            raise TypeError(f"Outputs takes a dict of messages by the names of outputs, not {type(messages).__name__}; the plain result is result=...")
        if isinstance(result, Outputs):
            raise TypeError("the result of Outputs is Outputs; give it the plain result")
        self.messages: dict[str, object] = {**(messages or {}), **named}
        self.result = result

    def __repr__(self) -> str:
        return f"<drover.Outputs {self.messages!r}>"


_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROLS = re.compile(r"[\0-\x08\x0a-\x1f\x7f]")


class Response(Output):
    """The response of an HTTP function, with a status and headers::

        return drover.Response({"id": 7}, status=201, headers={"Location": "/orders/7"})

    The body is any value that a function may return. The default content_type is
    text/plain; charset=utf-8 for a str, application/json for a value that is encoded as
    JSON, and application/octet-stream for bytes. headers is a mapping, or a list of pairs
    if a name, such as Set-Cookie, occurs several times.

    A generator, an async generator, any other iterator or a file as the body is sent in
    parts, while the function produces it. Each part is bytes or str. The function waits
    while the client is slow. If it raises after the first part, the connection is aborted."""

    __slots__ = ("headers", "status")

    def __init__(
        self,
        body: object = b"",
        status: int = 200,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        content_type: str | None = None,
    ) -> None:
        if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
            raise ValueError(f"the status of a Response is {status!r}; it must be an int from 200 to 599")
        self.status = int(status)
        self.headers: list[tuple[str, str]] = []
        for name, value in headers.items() if isinstance(headers, Mapping) else headers:
            _check_header(name, value)
            if name.lower() != "content-type":
                self.headers.append((name, value))
            elif content_type is None:
                content_type = value
        if content_type is not None:
            _check_header("Content-Type", content_type)
        super().__init__(body, content_type=content_type)
        self.properties["http_status"] = str(self.status)
        if self.headers:
            self.properties["http_headers"] = json.dumps(self.headers)

    def __repr__(self) -> str:
        return f"<drover.Response {self.status} {self.body!r}>"


def _check_header(name: object, value: object) -> None:
    if not isinstance(name, str) or not _HEADER.fullmatch(name):
        raise ValueError(f"a Response cannot have the header {name!r}; a name is a str of letters, digits and -")
    if not isinstance(value, str):
        raise TypeError(f"the header {name} of a Response is {type(value).__name__}; it must be a str")
    if _CONTROLS.search(value):
        raise ValueError(f"the header {name} of a Response has a control character, such as a line break, in its value, which HTTP does not allow")


class Verdicts:
    """Verdicts on the messages of a batch. A function that takes a list of messages returns it
    if the messages need different verdicts::

        def orders(messages):
            return drover.Verdicts([None if valid(m) else drover.Reject("no order") for m in messages])

    The verdicts are a list with one for each message, in their order, or a dict by the messages' IDs,
    which need not have all of them. A verdict is None: the message is done; an exception, which is not
    raised: Reject dead-letters the message, Retry retries it after its time, and any other is a failed
    attempt; or the message's own result, any other value that a function may return: the message is
    done when the result has been sent.

    result is the result of the call, as if the function had returned it: it is sent once, before any
    of the messages is done."""

    __slots__ = ("result", "verdicts")

    def __init__(self, verdicts: Sequence[object] | Mapping[str, object], *, result: object = None) -> None:
        if isinstance(verdicts, (str, bytes)) or not isinstance(verdicts, (Sequence, Mapping)):
            raise TypeError(f"the verdicts of Verdicts are {type(verdicts).__name__}; give it a list, or a dict by message id")
        self.verdicts = verdicts
        self.result = result

    def __repr__(self) -> str:
        return f"<drover.Verdicts {self.verdicts!r}>"


def _trace(message: Message | None) -> tuple[str | None, str | None]:
    """Returns a message's traceparent and tracestate; None if it has none."""
    attributes = message.attributes if message is not None else {}
    for name in ("traceparent", "Traceparent", "Diagnostic-Id"):
        parent = attributes.get(name)
        if parent and parent[2:3] == "-":
            return parent, attributes.get("tracestate") or attributes.get("Tracestate")
    return None, None


class Context:
    """The context of the running attempt."""

    __slots__ = ("_cancelled", "_changed", "_deadline", "_has_state", "_message", "_state", "function")

    def __init__(self, function: str, deadline: int = 0, message: Message | None = None) -> None:
        self.function = function
        self._message = message
        self._deadline = deadline  # µs since 1970; 0 is none
        self._cancelled = False
        self._has_state = self._changed = False
        self._state: bytes | None = None

    @property
    def deadline(self) -> float | None:
        """When the attempt times out, in seconds since 1970; None if never."""
        return self._deadline / 1e6 if self._deadline else None

    def remaining(self) -> float | None:
        """Returns the seconds left, at least 0; None if there is no limit."""
        return max(0.0, self._deadline / 1e6 - time.time()) if self._deadline else None

    @property
    def traceparent(self) -> str | None:
        """The attempt's trace context, in the format of W3C Trace Context; None if there
        is none."""
        return _trace(self._message)[0]

    @property
    def tracestate(self) -> str | None:
        """The tracestate that belongs to the traceparent; None if there is none."""
        return _trace(self._message)[1]

    @property
    def session_state(self) -> bytes | None:
        """The state of the message's session, bytes; None if it has none. A new value is
        stored when the function returns, before the message is done, and not if it raises.
        None clears the state."""
        self._need_state()
        return self._state

    @session_state.setter
    def session_state(self, state: bytes | bytearray | memoryview | None) -> None:
        self._need_state()
        if state is not None and not isinstance(state, (bytes, bytearray, memoryview)):
            raise TypeError(f"a session's state is bytes or None, not {type(state).__name__}; encode it, as with json.dumps(...).encode()")
        self._state, self._changed = None if state is None else bytes(state), True

    def _need_state(self) -> None:
        if not self._has_state:
            raise RuntimeError("there is no session's state; set session_state: true in the trigger, which needs sessions: true")

    @property
    def cancelled(self) -> bool:
        """True when the attempt was cancelled: its result no longer counts."""
        return self._cancelled


_Hook = TypeVar("_Hook", bound=Callable[[], object])
_after_fork: list[Callable[[], object]] = []


def after_fork(function: _Hook) -> _Hook:
    """Registers a function to be called in each worker process before its first
    message, whether the process was forked from a template or started. Use it to open
    resources that processes cannot share, such as connections, and to seed random number
    generators. It takes no parameters, and is not async. If it raises, the code fails to load::

        @drover.after_fork
        def connect():
            global database
            database = psycopg.connect(...)
    """
    _after_fork.append(function)
    return function


_at_exit: list[Callable[[], object]] = []


def at_exit(function: _Hook) -> _Hook:
    """Registers a function to be called when a worker process ends normally, after its last
    message: when the pool shrinks, when the worker is recycled, when the daemon stops.
    It is not called when the process is killed or crashes. It takes no parameters, and may be
    async. All such functions together have two seconds; the last one is called first::

        @drover.at_exit
        def disconnect():
            database.close()
    """
    _at_exit.append(function)
    return function
