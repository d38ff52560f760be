"""Converts values of JSON to types that are one value: numbers, text, and types that are text in JSON.

The module decoding uses it."""

from __future__ import annotations

import base64
import datetime
import decimal
import ipaddress
import pathlib
import re
import uuid
from typing import Any, Callable, Mapping, NoReturn

# Converts a value of JSON; raises Mismatch.
Convert = Callable[[Any], Any]


class Mismatch(Exception):
    """A value does not fit its type. The text follows the path."""

    def __init__(self, text: str, path: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.path = path

    def below(self, step: str) -> Mismatch:
        """Prepends the step from the enclosing value."""
        self.path = step + self.path
        return self

    def __str__(self) -> str:
        return f"{self.path.lstrip('.') or 'it'} {self.text}"


def _json_name(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    for kind, name in ((str, "a string"), (list, "a list"), (dict, "an object")):
        if isinstance(value, kind):
            return name
    return "a number"


def wrong(value: object, wanted: str) -> NoReturn:
    """Raises the Mismatch of a value of another JSON type."""
    raise Mismatch(f"is {_json_name(value)}, not {wanted}")


# Values of one JSON type.


def _boolean(value: Any) -> bool:
    return value if isinstance(value, bool) else wrong(value, "true or false")


def _string(value: Any) -> str:
    return value if isinstance(value, str) else wrong(value, "a string")


def _integer(value: Any) -> int:
    if type(value) is int:
        return value
    if not isinstance(value, (float, decimal.Decimal)):
        wrong(value, "a number")
    whole = float(value)  # an integer of 1e999999999 would fill the memory
    if not whole.is_integer():
        raise Mismatch("is not a whole number")
    return int(whole)


def _floating(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, decimal.Decimal)):
        wrong(value, "a number")
    return float(value)


def _null(value: Any) -> None:
    if value is not None:
        wrong(value, "null")


def floats(value: Any) -> Any:
    """Returns the value with each Decimal as a float, because no type requested a Decimal."""
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, list):
        return [floats(each) for each in value]
    if isinstance(value, dict):
        return {name: floats(each) for name, each in value.items()}
    return value


def number(value: Any) -> decimal.Decimal:
    """Returns a number, or the number in a string, with all its digits."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str, decimal.Decimal)):
        wrong(value, "a number")
    made = decimal.Decimal(value)
    if not made.is_finite():
        raise Mismatch("is not a finite number")
    return made


# Values that are text in JSON, by their constructors.

_TIME = re.compile(r"(?:(.*)[Tt ])?(\d\d:\d\d(?::\d\d)?)(?:[.,](\d+))?(Z|z|[+-]\d\d(?::?\d\d)?)?")


def _iso(text: str) -> str:
    """Returns a time in a form that Python 3.9 can read: newer versions accept Z and any number of digits."""
    match = _TIME.fullmatch(text)
    if match is None:
        return text
    date, time, digits, zone = match.groups()
    zone = {"Z": "+00:00", "z": "+00:00", None: ""}.get(zone, zone)
    if zone and ":" not in zone:
        zone = f"{zone[:3]}:{zone[3:] or '00'}"
    return "".join((date + "T" if date else "", time, f".{digits[:6]:0<6}" if digits else "", zone))


def _base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _bytearray(text: str) -> bytearray:
    return bytearray(_base64(text))


TEXTS: Mapping[Any, tuple[Callable[[str], Any], str]] = {
    bytes: (_base64, "base64"),
    bytearray: (_bytearray, "base64"),
    datetime.datetime: (lambda text: datetime.datetime.fromisoformat(_iso(text)), "a date and time of ISO 8601"),
    datetime.date: (datetime.date.fromisoformat, "a date of ISO 8601"),
    datetime.time: (lambda text: datetime.time.fromisoformat(_iso(text)), "a time of ISO 8601"),
    uuid.UUID: (uuid.UUID, "a UUID"),
    ipaddress.IPv4Address: (ipaddress.IPv4Address, "an IPv4 address"),
    ipaddress.IPv6Address: (ipaddress.IPv6Address, "an IPv6 address"),
    ipaddress.IPv4Network: (ipaddress.IPv4Network, "an IPv4 network"),
    ipaddress.IPv6Network: (ipaddress.IPv6Network, "an IPv6 network"),
    pathlib.Path: (pathlib.Path, "a path"),
    pathlib.PurePath: (pathlib.PurePath, "a path"),
    pathlib.PurePosixPath: (pathlib.PurePosixPath, "a path"),
}


def checked(convert: Convert, wanted: str) -> Convert:
    """Returns a conversion whose errors of other kinds are a Mismatch."""

    def guarded(value: Any) -> Any:
        try:
            return convert(value)
        except (ValueError, ArithmeticError):
            raise Mismatch(f"is not {wanted}") from None

    return guarded


def of_text(make: Callable[[str], Any], wanted: str) -> Convert:
    """Returns the conversion of a string."""
    return checked(lambda value: make(value if isinstance(value, str) else wrong(value, wanted)), wanted)


PLAIN: Mapping[Any, Convert] = {
    bool: _boolean,
    str: _string,
    int: _integer,
    float: checked(_floating, "a number"),
    type(None): _null,
    None: _null,
    datetime.timedelta: checked(lambda value: datetime.timedelta(seconds=_floating(value)), "a number of seconds"),
}
