"""Converts what a function of a function app returns, and what it sets in its outputs, to
messages."""

from __future__ import annotations

import collections.abc
import datetime
import inspect
import json
import uuid
from typing import Any, Mapping, Sequence

from drover import _seconds_text, _time_text
from drover.azure_http import respond
from drover.forms import Misfit
from drover.frames import Invocation
from drover.payloads import DESCRIBED, MAX_SENT, OK, SENT, put_outputs
from drover.results import Unsendable, article, encode

# A message for an output: the index of the output, the properties and the body.
Record = tuple[int, Mapping[str, str], bytes]

_NOTHING: Mapping[str, str] = {}
# A message for Service Bus is in no session, unless the function sets one. By default drover sends
# it to the session of the message that it is a result of.
_BUS: Mapping[str, str] = {"session_id": ""}

# The attributes of the messages of azure.servicebus and of azure.functions, and the properties.
_TEXTS = (
    ("session_id", "session_id"),
    ("message_id", "message_id"),
    ("content_type", "content_type"),
    ("correlation_id", "correlation_id"),
    ("subject", "subject"),
    ("partition_key", "partition_key"),
    ("to", "to"),
    ("reply_to", "reply_to"),
    ("reply_to_session_id", "reply_to_session"),
)


class Output:
    """An output of a function: a queue or a topic."""

    __slots__ = ("_about", "index", "name")

    def __init__(self, name: str, kind: str, index: int) -> None:
        self.name = name
        self.index = index  # among the outputs in LOAD
        self._about = _BUS if kind == "servicebus" else _NOTHING

    def add(self, records: list[Record], value: Any) -> None:
        """Adds the messages of a value: one, or one for each element of a list or another iterable.
        Raises TypeError if the value cannot be sent."""
        if _is_many(value):
            records += [(self.index, *self._message(one)) for one in value]
        else:
            records.append((self.index, *self._message(value)))

    def _message(self, value: object) -> tuple[Mapping[str, str], bytes]:
        if isinstance(value, str):
            return self._about, value.encode("utf-8", "surrogatepass")
        if isinstance(value, (bytes, bytearray, memoryview)):
            return self._about, bytes(value)
        if hasattr(value, "scheduled_enqueue_time_utc"):
            return {**self._about, **_properties(value)}, _body(value)
        if hasattr(value, "get_body"):  # a QueueMessage
            return self._about, _body(value)
        if value is None:
            raise TypeError(f"the output {self.name} got a list with None in it; leave it out")
        if inspect.isasyncgen(value) or inspect.isgenerator(value):
            raise TypeError(f"the output {self.name} got {article(value)} instead of a value; send a list")
        try:
            return self._about, encode(value)
        except Unsendable:
            raise TypeError(
                f"the output {self.name} got {article(value)}, which cannot be sent; send str, bytes, a message, what JSON can represent, or a list of these"
            ) from None


def _is_many(value: Any) -> bool:
    """Returns whether a value is a collection of messages."""
    if isinstance(value, (str, bytes, bytearray, memoryview)):
        return False
    if isinstance(value, (list, tuple, set, frozenset)):
        return True
    kind = type(value)
    if not isinstance(value, collections.abc.Iterable) or isinstance(value, collections.abc.Mapping):
        return False
    # A model of pydantic can be iterated over, and is one message, as are the messages of the SDK.
    return not any(hasattr(kind, name) for name in ("model_dump", "__fields__", "__dataclass_fields__", "tolist", "get_body", "scheduled_enqueue_time_utc"))


def _body(message: Any) -> bytes:
    """Returns the body of a message of azure.functions, or of azure.servicebus."""
    if hasattr(message, "get_body"):
        body = message.get_body()
        return body.encode() if isinstance(body, str) else bytes(body)
    body = message.body
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    if str(getattr(message, "body_type", "data")).lower().endswith("data"):
        return b"".join(part.encode() if isinstance(part, str) else bytes(part) for part in body)
    return encode(body)


def _plain(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _properties(message: Any) -> dict[str, str]:
    """Returns the properties and application properties of a message for Service Bus."""
    found: dict[str, str] = {}
    for attribute, name in _TEXTS:
        value = getattr(message, attribute, None)
        if value is not None:
            found[name] = _plain(value)
    at = message.scheduled_enqueue_time_utc
    if isinstance(at, datetime.datetime):
        found["scheduled_at"] = _time_text(at)
    life = message.time_to_live
    if isinstance(life, datetime.timedelta):
        found["time_to_live"] = _seconds_text(life)
    typed: dict[str, object] = {}
    for key, value in (message.application_properties or {}).items():
        name = _plain(key)
        if isinstance(value, (bool, int, float)):
            typed[name], value = value, json.dumps(value)
        elif isinstance(value, datetime.datetime):
            value = value.isoformat()
        elif value is None:
            typed[name], value = None, "null"
        elif not isinstance(value, (str, bytes, uuid.UUID)):
            raise TypeError(f"the application property {name} is {article(value)}; it can be a str, a number, a bool, bytes, a UUID, a datetime or None")
        found[f"attribute:{name}"] = _plain(value)
    if typed:
        found["application_properties"] = json.dumps(typed)
    return found


class Results:
    """The outputs of a function, and its result."""

    def __init__(self, name: str, bindings: Sequence[Mapping[str, Any]], outputs: Sequence[str], implicit: bool) -> None:
        """bindings are the function's, and outputs the names in LOAD. implicit is true if
        the function may return a value without an output for it. Raises Misfit."""
        self._name = name
        self._implicit = implicit
        self._returned: Output | None = None
        self._answers = False  # whether what the function returns is the response
        self.outs: list[Output | None] = []  # of the function's Out parameters; None is the response
        self.names: list[str] = []  # of these parameters
        for binding in bindings:
            if str(binding.get("direction", "in")).lower() != "out":
                continue
            to, kind = binding["name"], str(binding["type"]).lower()
            if kind == "http":
                output = None
            elif to in outputs:
                output = Output(to, kind, outputs.index(to))
            else:
                raise Misfit(f": its output {to} is not among those of the configuration: {', '.join(outputs) or 'none'}")
            if to != "$return":
                self.outs.append(output)
                self.names.append(to)
            elif output is None:
                self._answers = True
            else:
                self._returned = output
        self.quiet = not self.outs and not self._answers  # whether None from the function has no effect

    def records_of(self, outs: Sequence[Any]) -> list[Record]:
        """Returns the messages of a function's Out objects, except for the response."""
        records: list[Record] = []
        for output, out in zip(self.outs, outs):
            if output is not None and out._value is not None:
                output.add(records, out._value)
        return records

    def finish(self, value: object, outs: Sequence[Any], invocation: Invocation) -> tuple[int, bytes] | None:
        """Returns the status and payload of a result; None if there is nothing to send. value is
        what the function returned for the invocation, and outs are its Out objects. Raises TypeError and RuntimeError
        for values that cannot be sent."""
        records = self.records_of(outs)
        answer: bytes | None = None
        for output, out in zip(self.outs, outs):
            if output is None and out._value is not None:
                answer = respond(self._name, out._value)
        if self._answers:
            answer = respond(self._name, value)
        elif value is not None:
            if self._returned is not None:
                self._returned.add(records, value)
            elif not self._implicit:
                raise RuntimeError(
                    f"function {self._name} returned {article(value)}, but has no output $return; return None,"
                    " or add an output whose arg_name (name in function.json) is $return"
                )
        status = OK
        if answer is not None:
            status |= DESCRIBED
        if len(records) > MAX_SENT:
            raise RuntimeError(f"function {self._name} sends {len(records)} messages; one call can send {MAX_SENT}")
        if records:
            return status | SENT, put_outputs(records) + (answer or b"")
        return None if answer is None else (status, answer)
