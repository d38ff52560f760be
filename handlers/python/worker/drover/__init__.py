"""What a drover function may use. Standard library only; Python 3.9 and newer.

A function takes one of these forms, `async def` as well::

    def f(body): ...               # the bytes
    def f(message): ...            # a Message; the parameter's name or annotation says so
    def f(message, context): ...   # a Message and a Context

It returns None, bytes, str, what JSON has a form for, or an Output. An exception is a failed
attempt; Reject and Retry say more. Timeout comes when the attempt's time is up.
"""

from __future__ import annotations

import datetime
import json
import struct
import time
from typing import Any, Callable, Mapping, TypeVar

__all__ = ["Context", "Message", "Output", "Reject", "Retry", "Timeout", "after_fork", "at_exit"]


class Reject(Exception):
    """Raised by a function: the message goes to the dead letters, now."""


_LONGEST_RETRY = 30 * 86400  # seconds


class Retry(Exception):
    """Raised by a function: try again after so many seconds (None: the back-off)."""

    def __init__(self, reason: object = "", *, after: float | None = None) -> None:
        if after is not None and not 0 <= float(after) <= _LONGEST_RETRY:
            raise ValueError(f"after must be from 0 to {_LONGEST_RETRY} seconds")
        super().__init__(reason)
        self.after: float | None = None if after is None else float(after)


class Timeout(BaseException):
    """Raised in a function that is not async when the time for its attempt is up:
    its timeout has passed, or the daemon stops and has waited long enough. An async
    function is cancelled instead, and gets asyncio.CancelledError.

    It is no Exception, so that `except Exception` in a loop over attempts does not
    swallow it. A function may catch it to clean up, and has kill_grace (5 s by default)
    to end. However it raises then, the attempt has timed out. If it returns a value,
    the message is done. If it does neither in time, its process is killed.

    It comes between two steps of Python code: not while the function waits in a
    thread for a lock or for input and output, or calculates in an extension written
    in C. Code that must not be cut in two looks at context.remaining() before.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(args or ("the time for this attempt is up",)))


_LENGTH = struct.Struct("<I")


class Message:
    """A message: body, and what is known of it. Read only."""

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
        """The texts of meta: id, subject, ordering key, names and values."""
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
        """The headers that the sender gave, a dict of str to str. A value that was no
        text has the form that docs/workers.md describes. Of several values it has the first."""
        if self._attributes is None:
            attributes: dict[str, str] = {}
            for name, value in self._pairs()[0]:
                attributes.setdefault(name, value)
            self._attributes = attributes
        return self._attributes

    def values(self, name: str) -> list[str]:
        """All values of an attribute, in their order: a list, empty if there is none."""
        return [value for other, value in self._pairs()[0] if other == name]

    @property
    def properties(self) -> dict[str, str]:
        """What the source knows of the message, a dict of str to str: content_type,
        sequence_number and others that docs/workers.md lists."""
        if self._properties is None:
            self._properties = dict(self._pairs()[1])
        return self._properties

    def _pairs(self) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """The pairs of the attributes, and of the properties, which a pair of empty
        texts parts."""
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
        """The type of the body, such as application/json; None if the sender gave none."""
        return self._known("content_type", "Content-Type")

    @property
    def correlation_id(self) -> str | None:
        """What the sender wants named in an answer; None if it gave nothing."""
        return self._known("correlation_id", "Correlation-Id")

    @property
    def reply_to(self) -> str | None:
        """Where the sender wants an answer; None if it wants none."""
        return self._known("reply_to", "Reply-To")

    @property
    def reply_to_session(self) -> str | None:
        """The session that an answer is to be in; None if there is none."""
        return self._known("reply_to_session")

    @property
    def to(self) -> str | None:
        """Where the sender says that it goes; None if it does not."""
        return self._known("to")

    @property
    def session_id(self) -> str | None:
        """The session that it is in; None if there is none."""
        return self._known("session_id")

    @property
    def partition_key(self) -> str | None:
        return self._known("partition_key")

    @property
    def sequence_number(self) -> int | None:
        """The number that the source gave it; None if there is none."""
        return self._number("sequence_number")

    @property
    def delivery_count(self) -> int | None:
        """How often Service Bus has delivered it, this time included; None elsewhere."""
        return self._number("delivery_count")

    @property
    def dequeue_count(self) -> int | None:
        """How often the storage queue has, this time included; None elsewhere."""
        return self._number("dequeue_count")

    def _number(self, name: str) -> int | None:
        value = self.properties.get(name)
        return None if value is None else int(value)

    @property
    def expires_at(self) -> datetime.datetime | None:
        """When the source drops it, a datetime in UTC; None if never, or unknown."""
        value = self.properties.get("expires_at")
        if value is None:
            return None
        whole, _, rest = value.rstrip("Z").partition(".")
        at = datetime.datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S")
        return at.replace(microsecond=int((rest + "000000")[:6]), tzinfo=datetime.timezone.utc)

    @property
    def enqueued(self) -> datetime.datetime | None:
        """When the source took it in, a datetime in UTC; None if unknown."""
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
    """What a function returns that says more of its output than the body: for the
    outputs that can carry it. An answer to a request is, for example::

        return drover.Output(result, correlation_id=message.correlation_id or message.id,
                             session_id=message.reply_to_session)

    The body is what a function may return else. One that is encoded as JSON has the
    content_type application/json where no other is given."""

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
    """A message's traceparent and tracestate; None where there are none."""
    attributes = message.attributes if message is not None else {}
    for name in ("traceparent", "Traceparent", "Diagnostic-Id"):
        parent = attributes.get(name)
        if parent and parent[2:3] == "-":
            return parent, attributes.get("tracestate") or attributes.get("Tracestate")
    return None, None


class Context:
    """The attempt that is under way."""

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
        """The seconds left, at least 0; None if there is no limit."""
        return max(0.0, self._deadline / 1e6 - time.time()) if self._deadline else None

    @property
    def traceparent(self) -> str | None:
        """The context of the trace that the attempt is in, as W3C Trace Context
        writes it; None if there is none."""
        return _trace(self._message)[0]

    @property
    def tracestate(self) -> str | None:
        """What goes with the traceparent; None if there is nothing."""
        return _trace(self._message)[1]

    @property
    def session_state(self) -> bytes | None:
        """The bytes that are kept with the message's session; None if there are
        none. What is set here is kept when the function returns, before the message
        is done, and not when it raises. None clears it."""
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
        """True when the attempt is given up: its outcome no longer counts."""
        return self._cancelled


_Hook = TypeVar("_Hook", bound=Callable[[], object])
_after_fork: list[Callable[[], object]] = []


def after_fork(function: _Hook) -> _Hook:
    """Marks a function that is called in each worker process before its first
    message, whether it was forked from a template or started: the place to open what
    processes cannot share, such as connections, and to seed generators of random
    numbers. It takes nothing, and is not async; if it raises, the code does not load::

        @drover.after_fork
        def connect():
            global database
            database = psycopg.connect(...)
    """
    _after_fork.append(function)
    return function


_at_exit: list[Callable[[], object]] = []


def at_exit(function: _Hook) -> _Hook:
    """Marks a function that is called when a worker process ends in order, after its last
    message: when there are too many workers, when one is recycled, when the daemon stops.
    It is not called when the process is killed or dies. It takes nothing, may be async, and
    has two seconds together with all others; the one that was marked last is called first::

        @drover.at_exit
        def disconnect():
            database.close()
    """
    _at_exit.append(function)
    return function
