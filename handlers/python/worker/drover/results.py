"""Turns what a function returns into the status and payload of its reply."""

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

# What neither has to be awaited nor is a mistake.
PLAIN = frozenset((bytes, bytearray, str, dict, list, tuple, int, float, bool))

_MEANT = "return None, bytes, str, or what JSON has a form for (docs/workers.md lists the types)"

# Types with one text form, by the name of one of their classes.
_AS_TEXT = {
    "uuid.UUID", "decimal.Decimal", "fractions.Fraction", "ipaddress._IPAddressBase", "yarl.URL", "zoneinfo.ZoneInfo",
    "pathlib.PurePath", "pathlib._local.PurePath",
}  # fmt: skip
_AS_LIST: Any = (collections.abc.Sequence, collections.abc.MappingView, collections.deque)
_AS_ISO = {"datetime.date", "datetime.time"}  # a datetime is a date


class Unsendable(TypeError):
    """A function returned what cannot be sent. To try it again would not help."""


def article(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"an {name}" if name[:1].lower() in tuple("aeiou") else f"a {name}"


def encode(value: object) -> bytes:
    """The bytes of what a function returned; raises Unsendable."""
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
    """The status and payload of a reply with a value; raises Unsendable. None is not given."""
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
    """Raises Unsendable for what runs only when somebody iterates over it."""
    for check, what in ((inspect.isgenerator, "a generator"), (inspect.isasyncgen, "an async generator")):
        if check(value):
            raise Unsendable(f"returned {what}, of which no line has run: return a list, or what else is complete")


def _plain(value: Any) -> Any:
    """What json.dumps takes, in place of a value that it does not."""
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
