"""Converts a function's return value to the status and payload of a result."""

from __future__ import annotations

import base64
import collections
import collections.abc
import inspect
import json
import sys
from typing import Any

from drover import Output
from drover.frames import DESCRIBED, OK, put_properties

# Types of return values that are neither awaited nor refused.
PLAIN = frozenset((bytes, bytearray, str, dict, list, tuple, int, float, bool))

_MEANT = "return None, bytes, str, or a value that JSON can represent (docs/workers.md lists the types)"

# Types with one text form, by the name of one of their classes.
_AS_TEXT = {
    "uuid.UUID", "decimal.Decimal", "fractions.Fraction", "ipaddress._IPAddressBase", "yarl.URL", "zoneinfo.ZoneInfo",
    "pathlib.PurePath", "pathlib._local.PurePath",
}  # fmt: skip
_AS_LIST: Any = (collections.abc.Sequence, collections.abc.MappingView, collections.deque)
_AS_ISO = {"datetime.date", "datetime.time"}  # a datetime is a date


class Unsendable(TypeError):
    """A function returned a value that cannot be sent. A retry would not help."""


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
        inner = "" if str(error) == article(value) else f" with {error} in it"
        raise Unsendable(f"returned {article(value)}{inner}, which cannot be sent: {_MEANT}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise Unsendable(f"returned {article(value)}, which cannot be sent: {error}; {_MEANT}") from None


_TEXTS = (bytes, bytearray, memoryview, str)
_JSON = put_properties({"content_type": "application/json"}, b"")


def result(value: object) -> tuple[int, bytes]:
    """Returns the status and payload of a result with a value, which is not None; raises Unsendable."""
    if isinstance(value, _TEXTS):
        return OK, encode(value)
    if not isinstance(value, Output):
        return OK | DESCRIBED, _JSON + encode(value)
    properties, body = dict(value.properties), value.body
    if body is None:
        body = b""
    elif not isinstance(body, _TEXTS):
        refuse(body)
        properties.setdefault("content_type", "application/json")
    for name, text in value.attributes.items():
        properties[f"attribute:{name}"] = text
    return OK | DESCRIBED, put_properties(properties, encode(body))


def drop(_: object) -> tuple[int, bytes]:
    return OK, b""


def refuse(value: object) -> None:
    """Raises Unsendable for a generator, which runs only when it is iterated over."""
    for check, what in ((inspect.isgenerator, "a generator"), (inspect.isasyncgen, "an async generator")):
        if check(value):
            raise Unsendable(f"returned {what}, of which no line has run: return a list, or what else is complete")


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
