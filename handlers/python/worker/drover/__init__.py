"""The API of drover functions. Standard library only; Python 3.9 and newer.

A function has one of these forms, also with `async def`::

    def f(body): ...               # the bytes
    def f(message): ...            # a Message, by the parameter's name or annotation
    def f(message, context): ...   # a Message and a Context

It returns None, bytes, str, a value that JSON can represent, or an Output. An exception is a
failed attempt, unless it is Reject or Retry. Timeout is raised when the attempt times out.
"""

from __future__ import annotations

import datetime
import json
import struct
import time
from typing import Any, Callable, Mapping, TypeVar

__all__ = ["Context", "Message", "Output", "Reject", "Retry", "Timeout", "after_fork", "at_exit"]


class Reject(Exception):
    """Raised by a function to dead-letter the message at once."""


_LONGEST_RETRY = 30 * 86400  # seconds


class Retry(Exception):
    """Raised by a function to retry the message after so many seconds (None: the function's backoff)."""

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
        """The headers set by the sender, a dict of str to str. docs/workers.md describes the
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
        sequence_number and others that docs/workers.md lists."""
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


class Output:
    """An output with properties, for outputs that support them. A function returns it in
    place of the body, for example as the reply to a request::

        return drover.Output(result, correlation_id=message.correlation_id or message.id,
                             session_id=message.reply_to_session)

    The body is any value that a function may return. If it is encoded as JSON, the default
    content_type is application/json."""

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
        self.attributes: dict[str, str] = dict(attributes or ())
        for name, value in (*self.properties.items(), *self.attributes.items()):
            if not isinstance(value, str) or not isinstance(name, str):
                raise TypeError(f"{name} of an Output is {type(value).__name__}; it must be a str")

    def __repr__(self) -> str:
        return f"<drover.Output {self.body!r} {self.properties}>"


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
