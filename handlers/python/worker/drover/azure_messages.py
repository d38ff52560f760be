"""Makes the arguments of the functions of function apps: the library's QueueMessage,
ServiceBusMessage, TimerRequest and HttpRequest, and plain bodies.

The objects are made of the library's own classes, and not by its converters, which take twenty
times as long. A message reads the fields of its source when the function reads the first of them.
"""

from __future__ import annotations

import collections.abc
import datetime
import importlib
import inspect
import json
import re
import types
import typing
from typing import Any, Callable, Mapping, Optional
from urllib.parse import parse_qsl

from drover import Message, Reject
from drover.azure_context import begin_request
from drover.frames import Invocation

# Makes an argument of an invocation. One message of a batch has the form of an invocation, too.
Maker = Callable[[Invocation], object]

_time = datetime.datetime.fromisoformat
_UTC = datetime.timezone.utc


_SPAN = re.compile(r"(?:(\d+)\.)?(\d+):(\d+):(\d+)(?:\.(\d{1,7}))?")


def _span(text: str) -> datetime.timedelta:
    """Reads a time span, [d.]hh:mm:ss[.fffffff]."""
    found = _SPAN.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a time span")
    days, hours, minutes, seconds, fraction = found.groups("0")
    return datetime.timedelta(int(days), int(seconds), int(fraction.ljust(6, "0")[:6]), 0, int(minutes), int(hours))


# The fields of the messages: the attribute of the class, the name at the host, and how its JSON is read.
_Fields = Mapping[str, tuple[str, Optional[Callable[[Any], object]]]]
_QUEUE: _Fields = {
    "id": ("Id", str),
    "dequeue_count": ("DequeueCount", int),
    "expiration_time": ("ExpirationTime", _time),
    "insertion_time": ("InsertionTime", _time),
    "time_next_visible": ("NextVisibleTime", _time),
    "pop_receipt": ("PopReceipt", str),
}
_BUS: _Fields = {
    "application_properties": ("ApplicationProperties", None),
    "content_type": ("ContentType", str),
    "correlation_id": ("CorrelationId", str),
    "dead_letter_error_description": ("DeadLetterErrorDescription", str),
    "dead_letter_reason": ("DeadLetterReason", str),
    "dead_letter_source": ("DeadLetterSource", str),
    "delivery_count": ("DeliveryCount", int),
    "enqueued_sequence_number": ("EnqueuedSequenceNumber", int),
    "enqueued_time_utc": ("EnqueuedTimeUtc", _time),
    "expires_at_utc": ("ExpiresAtUtc", _time),
    "expiration_time": ("ExpiresAtUtc", _time),
    "label": ("Label", str),
    "locked_until": ("LockedUntil", _time),
    "lock_token": ("LockToken", str),
    "message_id": ("MessageId", str),
    "partition_key": ("PartitionKey", str),
    "reply_to": ("ReplyTo", str),
    "reply_to_session_id": ("ReplyToSessionId", str),
    "scheduled_enqueue_time": ("ScheduledEnqueueTimeUtc", _time),
    "scheduled_enqueue_time_utc": ("ScheduledEnqueueTimeUtc", _time),
    "sequence_number": ("SequenceNumber", int),
    "session_id": ("SessionId", str),
    "state": ("State", int),
    "subject": ("Subject", str),
    "time_to_live": ("TimeToLive", _span),
    "to": ("To", str),
    "transaction_partition_key": ("TransactionPartitionKey", str),
    "user_properties": ("UserProperties", None),
}


def metadata_of(invocation: Invocation) -> dict[str, Any]:
    """Returns the fields that the source has of a message, with the names of the host."""
    origin = invocation[7]
    if origin:
        return typing.cast("dict[str, Any]", json.loads(origin))
    return _made_up(_message(invocation))


def _message(invocation: Invocation) -> Message:
    _, _, body, meta, attempt, enqueued, _, _ = invocation
    return Message(body, attempt, enqueued, meta)


def _made_up(message: Message) -> dict[str, Any]:
    """Returns the fields of a message without a source, as from drover invoke."""
    known: dict[str, Any] = {"Id": message.id, "MessageId": message.id, "DequeueCount": message.attempt, "DeliveryCount": message.attempt}
    if message.enqueued is not None:
        known["InsertionTime"] = known["EnqueuedTimeUtc"] = message.enqueued.isoformat()
    for name, value in (
        ("ContentType", message.content_type),
        ("CorrelationId", message.correlation_id),
        ("SessionId", message.session_id),
        ("ReplyTo", message.reply_to),
        ("To", message.to),
        ("Subject", message.subject),
        ("Label", message.subject),
    ):
        if value:
            known[name] = value
    known["ApplicationProperties"], known["UserProperties"] = dict(message.attributes), dict(message.attributes)
    return known


def _deferred(base: Any, given: Callable[[Invocation], Mapping[str, Any]], members: Mapping[str, Any]) -> Any:
    """Returns a subclass of a class of the library, whose objects are made of invocations. The
    constructor of the library runs, with what given returns, when one of its attributes is read."""
    begin = base.__init__

    def __init__(self: Any, invocation: Invocation) -> None:
        self._invocation = invocation

    def __getattr__(self: Any, name: str) -> Any:
        known = self.__dict__
        if "_begun" not in known:
            self._begun = True
            invocation = self._invocation
            begin(self, **given(invocation))
            self._invocation = _without_body(invocation)
            if name in known:
                return known[name]
        raise AttributeError(f"{base.__name__!r} object has no attribute {name!r}")

    made = type(base.__name__, (base,), {"__init__": __init__, "__getattr__": __getattr__, "__module__": base.__module__, "__doc__": base.__doc__, **members})
    made.__qualname__ = base.__qualname__
    return made


def _without_body(invocation: Any) -> Any:
    """Returns an invocation without its body, which an app that keeps a message would keep, too."""
    number, index, _, *rest = invocation
    return (number, index, b"", *rest)


def _lazy(base: Any, fields: _Fields, **more: property) -> Any:
    """Returns a subclass of a class of messages, whose fields are read on request."""
    names = [name for name in inspect.signature(base.__init__).parameters if name != "self"]
    required = {
        name: None for name, p in inspect.signature(base.__init__).parameters.items() if name not in ("self", "body") and p.default is p.empty and p.kind is p.KEYWORD_ONLY
    }

    def given(invocation: Invocation) -> dict[str, Any]:
        return {"body": _bytes(invocation), **required}

    def __reduce__(self: Any) -> Any:
        """A copy, in a process of the app's too, is an object of the library's class."""
        return _rebuilt, (base, {"body": self.get_body(), **{name: getattr(self, name) for name in names if name in fields}})

    members: dict[str, Any] = {"__reduce__": __reduce__, "_fields": None, **more}
    members.update((name, _field(*field)) for name, field in fields.items())
    return _deferred(base, given, members)


def _rebuilt(base: Any, given: Mapping[str, Any]) -> object:
    return base(**given)


def _fields_of(message: Any) -> Any:
    if message._fields is None:
        message._fields = metadata_of(message._invocation)
    return message._fields


def _field(name: str, convert: Callable[[Any], object] | None) -> property:
    def get(self: Any) -> object:
        value = (self._fields or _fields_of(self)).get(name)
        return value if value is None or convert is None else convert(value)

    return property(get)


def _metadata(self: Any) -> dict[str, Any]:
    """All that the source has of this message. The converter of the library returns that of the
    whole batch."""
    found: dict[str, Any] | None = self.__dict__.get("_metadata")
    if found is None:
        found = self._metadata = metadata_of(self._invocation)
    return found


def _queue(kind: str) -> Maker:
    from azure.functions.queue import QueueMessage

    return _tried(_lazy(QueueMessage, _QUEUE))


def _bus(kind: str) -> Maker:
    from azure.functions.servicebus import ServiceBusMessage

    return _tried(_lazy(ServiceBusMessage, _BUS, metadata=property(_metadata)))


# An invocation without a message, to try a class with.
_NONE: Any = (0, 0, b"", b"", 1, 0, 0, b"{}")


def _tried(make: Maker) -> Maker:
    made: Any = make(_NONE)
    if hasattr(made, "get_body"):
        made.get_body()
    return make


def _timer(kind: str) -> Maker:
    from azure.functions.timer import TimerRequest

    def make(invocation: Invocation) -> object:
        try:
            known = json.loads(_bytes(invocation))
        except ValueError:
            known = None
        if not isinstance(known, dict):  # the function was invoked by hand
            known = {}
        return TimerRequest(
            past_due=bool(known.get("IsPastDue", False)),
            schedule_status=known.get("ScheduleStatus") or {},
            schedule=known.get("Schedule") or {},
        )

    return _tried(make)


def _http(kind: str) -> Maker:
    """Makes requests whose head is read when the function reads it."""
    from azure.functions.http import HttpRequest

    headers_class: Any = importlib.import_module("azure.functions._http").HttpRequestHeaders

    def given(invocation: Invocation) -> dict[str, Any]:
        body = _bytes(invocation)
        return {"method": "", "url": "", "headers": {}, "params": {}, "route_params": {}, "body_type": "bytes", "body": body}

    def read(self: Any, name: str) -> Any:
        known = self.__dict__
        if name not in known:
            message = _message(self._invocation)
            properties = message.properties
            self._method = properties.get("http_method", "GET").upper()
            self._url = properties.get("http_url", "")
            self._headers = headers_class(headers_of(message))
            self._params = types.MappingProxyType(params_of(properties.get("http_query", "")))
            self._route_params = types.MappingProxyType(json.loads(properties.get("http_params") or "{}"))
        return known[name]

    def head(name: str) -> property:
        return property(lambda self: read(self, name))

    heads = ("method", "url", "headers", "params", "route_params")
    request = _tried(_deferred(HttpRequest, given, {name: head("_" + name) for name in heads}))

    def make(invocation: Invocation) -> object:
        begin_request(invocation)
        return request(invocation)

    return make


def headers_of(message: Message) -> dict[str, str]:
    """Returns the headers of a request. Several of one name are joined, as by the host."""
    joined: dict[str, str] = {}
    for name, value in message._pairs()[0]:
        if name not in joined:
            joined[name] = value
        else:
            joined[name] += ("; " if name.lower() == "cookie" else ",") + value
    return {name: value for name, value in joined.items() if value}


def params_of(query: str) -> dict[str, str]:
    """Returns the parameters of a query, as the host does: it joins those of one name, and leaves
    out those without a value."""
    joined: dict[str, str] = {}
    for name, value in parse_qsl(query):
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


def _text(invocation: Invocation) -> str:
    try:
        return _bytes(invocation).decode()
    except UnicodeDecodeError as error:
        raise Reject(
            f"the body is not text in UTF-8 ({error.reason} at byte {error.start}), and the function takes a str;"
            " annotate the parameter bytes, and set data_type of the trigger to BINARY"
        ) from None


def _bytes(invocation: Invocation) -> bytes:
    return invocation[2]


def _json(invocation: Invocation) -> object:
    return json.loads(_bytes(invocation))


_PLAIN: Mapping[Any, Maker] = {str: _text, bytes: _bytes, dict: _json, list: _json, Message: _message}
_KINDS: Mapping[str, Callable[[str], Maker]] = {
    "queuetrigger": _queue,
    "servicebustrigger": _bus,
    "timertrigger": _timer,
    "httptrigger": _http,
}


def maker_of(binding: Mapping[str, Any], hint: Any) -> Maker:
    """Returns the Maker of the parameter of a trigger, which has an annotation; None if it has none.
    With cardinality many it makes one of the messages of the list."""
    if is_many(binding) and typing.get_origin(hint) in (list, collections.abc.Sequence, collections.abc.Iterable):
        hint = typing.get_args(hint)[0]
    if hint in (str, bytes, Message):
        return _PLAIN[hint]
    kind = str(binding["type"])
    make = _KINDS.get(kind.lower())
    if make is not None:
        try:
            return make(kind)
        except (ImportError, AttributeError, TypeError):  # the classes of this version of the library are others
            return _by_converter(kind)
    return _PLAIN.get(typing.get_origin(hint) or hint) or (_bytes if str(binding.get("dataType", "")).lower() == "binary" else _text)


def is_many(binding: Mapping[str, Any]) -> bool:
    """Returns whether a function gets a list of messages."""
    return str(binding.get("cardinality", "")).lower() == "many"


def datums_of(invocation: Invocation) -> dict[str, Any]:
    """Returns the metadata of a message as the host sends it to the library's converters."""
    from azure.functions.meta import Datum

    return {name: Datum(value, "string") if isinstance(value, str) else Datum(json.dumps(value), "json") for name, value in metadata_of(invocation).items()}


def _by_converter(kind: str) -> Maker:
    """Returns a Maker that uses the converter of the library."""
    from azure.functions import get_binding_registry
    from azure.functions.meta import Datum

    converter: Any = get_binding_registry().get(kind)
    if kind.lower() == "httptrigger":
        return lambda invocation: converter.decode(Datum(_request(invocation), "http"), trigger_metadata={})
    form = "json" if kind.lower() == "timertrigger" else "bytes"
    return lambda invocation: converter.decode(Datum(_bytes(invocation), form), trigger_metadata=datums_of(invocation))


def _request(invocation: Invocation) -> dict[str, Any]:
    from azure.functions.meta import Datum

    def datums(given: Mapping[str, str]) -> dict[str, Any]:
        return {name: Datum(value, "string") for name, value in given.items()}

    message = _message(invocation)
    known = message.properties
    return {
        "method": Datum(known.get("http_method", "GET"), "string"),
        "url": Datum(known.get("http_url", ""), "string"),
        "headers": datums(headers_of(message)),
        "query": datums(params_of(known.get("http_query", ""))),
        "params": datums(json.loads(known.get("http_params") or "{}")),
        "body": Datum(message.body, "bytes"),
    }
