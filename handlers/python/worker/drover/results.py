"""Converts a function's return value to the status and payload of a result."""

from __future__ import annotations

import base64
import collections
import collections.abc
import inspect
import json
import sys
from typing import Any, Callable, Mapping, Sequence

from drover import Output, Outputs, Response
from drover.payloads import DESCRIBED, MAX_SENT, OK, SENT, put_outputs, put_properties

# Types of return values that are neither awaited nor refused.
PLAIN = frozenset((bytes, bytearray, str, dict, list, tuple, int, float, bool))

_MEANT = "return None, bytes, str, or a value that JSON can represent (docs/python.md lists the types)"

# Types with one text form, by the name of one of their classes.
_AS_TEXT = {
    "uuid.UUID", "decimal.Decimal", "fractions.Fraction", "ipaddress._IPAddressBase", "yarl.URL", "zoneinfo.ZoneInfo",
    "pathlib.PurePath", "pathlib._local.PurePath",
}  # fmt: skip
_AS_LIST: Any = (collections.abc.Sequence, collections.abc.MappingView, collections.deque)
_AS_ISO = {"datetime.date", "datetime.time"}  # a datetime is a date


# The status and payload of a result.
Result = tuple[int, bytes]


class Unsendable(TypeError):
    """A function returned a value that cannot be sent. A retry would not help."""


class Misaddressed(Unsendable):
    """A function returned messages for outputs, and one of them cannot be sent."""


def article(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"an {name}" if name[:1].lower() in tuple("aeiou") else f"a {name}"


def encode(value: object) -> bytes:
    """Returns a function's return value as bytes; raises Unsendable."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    try:
        return _ENCODER.encode(value).encode()
    except Unsendable as error:
        if isinstance(value, Outputs):
            raise Misaddressed(NO_OUTPUTS) from None
        inner = "" if str(error) == article(value) else f" with {error} in it"
        raise Unsendable(f"returned {article(value)}{inner}, which cannot be sent: {_MEANT}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise Unsendable(f"returned {article(value)}, which cannot be sent: {error}; {_MEANT}") from None


NO_OUTPUTS = "returned drover.Outputs, but the function has no named outputs; in the configuration, give its outputs names"

_TEXTS = (bytes, bytearray, memoryview, str)
_NONE: Mapping[str, str] = {}
_JSON_TYPE: Mapping[str, str] = {"content_type": "application/json"}
_JSON = put_properties(_JSON_TYPE, b"")
TEXT_TYPE, BYTES_TYPE = "text/plain; charset=utf-8", "application/octet-stream"
_REPLY_TEXT = put_properties({"content_type": TEXT_TYPE}, b"")
_REPLY_BYTES = put_properties({"content_type": BYTES_TYPE}, b"")


def result(value: object) -> Result:
    """Returns the status and payload of a result with a value, which is not None; raises Unsendable."""
    if isinstance(value, _TEXTS):
        return OK, encode(value)
    if not isinstance(value, Output):
        return OK | DESCRIBED, _JSON + encode(value)
    properties, body = _described(value)
    return OK | DESCRIBED, put_properties(properties, body)


def _described(output: Output) -> tuple[dict[str, str], bytes]:
    """Returns the properties and the body of an Output."""
    properties, body = dict(output.properties), output.body
    if body is None:
        body = b""
    elif not isinstance(body, _TEXTS):
        refuse(body)
        properties.setdefault("content_type", "application/json")
    elif isinstance(output, Response) and (body or isinstance(body, str)):
        properties.setdefault("content_type", TEXT_TYPE if isinstance(body, str) else BYTES_TYPE)
    for name, text in output.attributes.items():
        properties[f"attribute:{name}"] = text
    return properties, encode(body)


def reply(value: object) -> Result:
    """Like result, for a function that answers requests: text and bytes have a content type, and a
    body without bytes is still a body."""
    if isinstance(value, str):
        return OK | DESCRIBED, _REPLY_TEXT + encode(value)
    if isinstance(value, _TEXTS):
        return OK | DESCRIBED, _REPLY_BYTES + encode(value)
    return result(value)


def drop(value: object) -> Result:
    """The result of a function whose results are dropped."""
    if isinstance(value, Outputs):
        raise Misaddressed(NO_OUTPUTS)
    return OK, b""


def encoder(results: str, outputs: Sequence[str], replies: bool = False) -> Callable[[object], Result]:
    """Returns the function that encodes the return values of a function: by the use of its
    results, as in LOAD, the names of its outputs, and whether it answers requests."""
    plain: Callable[[object], Result] = reply if replies else result
    if results == "dropped":
        plain = _drop_plain if outputs else drop
    if not outputs:
        return plain
    indices = {name: index for index, name in enumerate(outputs)}

    def encode_outputs(value: object) -> Result:
        if not isinstance(value, Outputs):
            return plain(value)
        section = put_outputs(_records(value.messages, indices))
        status, payload = (OK, b"") if value.result is None else plain(value.result)
        return status | SENT, section + payload

    return encode_outputs


def _drop_plain(_: object) -> Result:
    return OK, b""


_Record = tuple[int, Mapping[str, str], bytes]


def _records(messages: Mapping[str, object], indices: Mapping[str, int]) -> list[_Record]:
    """Returns the messages for outputs as put_outputs takes them; raises Misaddressed."""
    records: list[_Record] = []
    for name, value in messages.items():
        index = indices.get(name)
        if index is None:
            raise Misaddressed(f"returned a message for the output {name!r}, which the function does not have; it has: {', '.join(indices)}")
        for each in value if isinstance(value, (list, tuple)) else (value,):
            if each is None:
                continue
            try:
                records.append((index, *_message(each)))
            except Unsendable as error:
                raise Misaddressed(f"{error} (for the output {name})") from None
    if len(records) > MAX_SENT:
        raise Misaddressed(f"returned {len(records)} messages for outputs; one call can send {MAX_SENT}")
    return records


def _message(value: object) -> tuple[Mapping[str, str], bytes]:
    """Returns the properties and the body of a message for an output."""
    if isinstance(value, _TEXTS):
        return _NONE, encode(value)
    if isinstance(value, Output):
        return _described(value)
    if isinstance(value, Outputs):
        raise Unsendable("returned drover.Outputs as one of the messages in drover.Outputs")
    refuse(value)
    return _JSON_TYPE, encode(value)


def refuse(value: object) -> None:
    """Raises Unsendable for a generator, which runs only when it is iterated over."""
    for check, what in ((inspect.isgenerator, "a generator"), (inspect.isasyncgen, "an async generator")):
        if check(value):
            raise Unsendable(f"returned {what}, whose code has not run: return a list or another complete value")


def streamed_body(value: Any) -> Any:
    """Returns the body of a response in parts; None for any other return value."""
    if isinstance(value, Outputs):
        value = value.result
    if isinstance(value, Response):
        kind = type(value.body)
        return value.body if hasattr(kind, "__next__") or hasattr(kind, "__aiter__") or hasattr(kind, "read") else None
    return value if inspect.isgenerator(value) or inspect.isasyncgen(value) else None


def encode_part(part: object) -> bytes:
    if isinstance(part, str):
        return part.encode("utf-8", "surrogatepass")
    if isinstance(part, (bytes, bytearray, memoryview)):
        return bytes(part)
    raise TypeError(f"a part of a response is {article(part)}; it must be bytes or str")


def _plain(value: Any) -> Any:
    """Converts a value that json.dumps does not accept to one that it accepts."""
    kind = type(value)
    if hasattr(kind, "__dataclass_fields__"):
        return {field.name: getattr(value, field.name) for field in sys.modules["dataclasses"].fields(value)}
    if hasattr(kind, "model_dump"):  # pydantic
        return value.model_dump(mode="json")
    if hasattr(kind, "__fields__") and hasattr(kind, "dict"):  # pydantic 1
        return value.dict()
    for fields in ("__attrs_attrs__", "__struct_fields__"):  # attrs; msgspec
        if hasattr(kind, fields):
            return {name: getattr(value, name) for name in (getattr(field, "name", field) for field in getattr(kind, fields))}
    names = {f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__}
    if "enum.Enum" in names:
        return value.value
    if names & _AS_ISO:
        return value.isoformat()
    if "datetime.timedelta" in names:
        return value.total_seconds()
    if names & _AS_TEXT:
        return str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    if isinstance(value, (set, frozenset)):
        try:
            return sorted(value)
        except TypeError:
            return list(value)
    if isinstance(value, collections.abc.Mapping):
        return dict(value)
    if isinstance(value, _AS_LIST):
        return list(value)
    if kind.__module__.partition(".")[0] == "numpy" and hasattr(kind, "tolist"):
        return value.tolist()
    raise Unsendable(article(value))


_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=_plain)
