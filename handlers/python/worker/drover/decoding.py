"""Decodes the body of a message as the type that a parameter is annotated with.

Imported only if a function has such a parameter. The conversion of a type is chosen once, when
the code loads."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import decimal
import enum
import json
import re
import sys
import types
import typing
from typing import Any, Callable, Mapping, Sequence

from drover import Reject
from drover.json_values import PLAIN, TEXTS, Convert, Mismatch, checked, floats, number, of_text, wrong

_SERVED = "bytes, str, dict, list, a dataclass, a TypedDict, a pydantic model, or a list of these"


class Unserved(Exception):
    """The body cannot be decoded as a type. The text has the reason and the correction."""


class BadBody(Reject):
    """A body does not fit the type of the parameter."""


class _Foreign(Exception):
    """A type belongs to pydantic, which decodes the whole body."""

    def __init__(self, library: str) -> None:
        super().__init__(library)
        self.library = library


def body_decoder(hint: Any) -> Callable[[bytes], Any]:
    """Returns the function that decodes a body as a type, or raises BadBody; raises Unserved."""
    if hint is str:
        return _text
    if hint is bytearray or hint is memoryview:
        converted: Callable[[bytes], Any] = hint
        return converted
    types_of = _Types()
    try:
        convert = types_of.convert(hint)
    except _Foreign as foreign:
        return _foreign_decoder(foreign.library, hint)
    name, empty_is_none = shown(hint), type(None) in _options(hint)
    parse = json.JSONDecoder(parse_float=decimal.Decimal if types_of.exact else None).decode

    def decode(body: bytes) -> Any:
        if not body and empty_is_none:
            return None
        try:
            return convert(parse(body.decode(json.detect_encoding(body), "surrogatepass")))
        except Mismatch as error:
            why = str(error)
        except (ValueError, RecursionError) as error:
            why = _not_json(body, error)
        raise BadBody(f"the body does not fit {name}: {why}")

    return decode


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise BadBody(f"the body does not fit str: it is not UTF-8 ({error.reason} at byte {error.start})") from None


def _not_json(body: bytes, error: Exception) -> str:
    if not body:
        return "it is empty"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return f"it is not JSON: {error}"


def shown(hint: Any) -> str:
    """Returns a type as written in source code."""
    if hint is type(None):
        return "None"
    if isinstance(hint, type) and typing.get_origin(hint) is None:
        return hint.__name__
    return re.sub(r"\b(?:[a-zA-Z_]\w*\.)+(?=\w)", "", repr(hint)).replace("<locals>.", "").replace("NoneType", "None")


def _options(hint: Any) -> Sequence[Any]:
    """Returns the members of a union; an empty tuple for another type."""
    union = getattr(types, "UnionType", None)
    origin = typing.get_origin(hint)
    return typing.get_args(hint) if origin is typing.Union or union is not None and origin is union else ()


_LISTS: Mapping[Any, Callable[[list[Any]], Any]] = {
    list: list,
    set: set,
    frozenset: frozenset,
    collections.deque: collections.deque,
    collections.abc.Sequence: list,
    collections.abc.MutableSequence: list,
    collections.abc.Collection: list,
    collections.abc.Iterable: list,
    collections.abc.Set: frozenset,
    collections.abc.MutableSet: set,
}
_DICTS: Mapping[Any, Callable[[dict[Any, Any]], Any]] = {
    dict: dict,
    collections.OrderedDict: collections.OrderedDict,
    collections.abc.Mapping: dict,
    collections.abc.MutableMapping: dict,
}
_QUALIFIERS = ("Required", "NotRequired", "ReadOnly", "Final")


class _Types:
    """The conversions of one body."""

    def __init__(self) -> None:
        self.exact = False  # whether a Decimal needs the digits of a number
        self._made: dict[Any, Convert] = {}  # of classes and aliases, by the class and its arguments

    def _anything(self, value: Any) -> Any:
        return floats(value) if self.exact else value

    def convert(self, hint: Any, variables: Mapping[Any, Any] | None = None) -> Convert:
        """Returns the conversion to a type; raises Unserved or _Foreign. variables are the
        arguments of the generic class that the type is used in."""
        if variables and getattr(hint, "__parameters__", None) and typing.get_origin(hint) is not None:
            hint = hint[tuple(variables.get(v, Any) for v in hint.__parameters__)]
        if isinstance(hint, typing.TypeVar):
            hint = (variables or {}).get(hint, hint.__bound__ or Any)
        if hint is Any or hint is object:
            return self._anything
        if hasattr(hint, "__metadata__"):  # Annotated
            if any(type(each).__module__.partition(".")[0] in ("pydantic", "annotated_types") for each in hint.__metadata__):
                raise _Foreign("pydantic")
            return self.convert(hint.__origin__, variables)
        if hint in PLAIN:
            return PLAIN[hint]
        if hint is decimal.Decimal:
            self.exact = True
            return checked(number, "a number")
        if hint in TEXTS:
            return of_text(*TEXTS[hint])
        if hasattr(hint, "__supertype__"):  # a NewType
            return self.convert(hint.__supertype__)
        if type(hint).__name__ == "TypeAliasType":
            return self._once((hint, ()), lambda: self.convert(_value_of(hint), variables))
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if getattr(origin, "_name", "") in _QUALIFIERS:
            return self.convert(arguments[0], variables)
        if origin is typing.Literal:
            return _literal(arguments)
        options = _options(hint)
        if options:
            return self._union(options, variables)
        return self._of_class(hint, origin or hint, arguments, variables)

    def _of_class(self, hint: Any, kind: Any, arguments: Sequence[Any], variables: Mapping[Any, Any] | None) -> Convert:
        if kind in _LISTS:
            return self._list(_LISTS[kind], arguments, variables)
        if kind in _DICTS:
            return self._dict(_DICTS[kind], arguments, variables)
        if kind is tuple:
            return self._tuple(arguments, variables)
        if not isinstance(kind, type) or kind is collections.abc.Callable:
            raise Unserved(f"{shown(hint)} is not a type that a body can be decoded as; write {_SERVED}")
        _check_library(kind)
        own = dict(zip(getattr(kind, "__parameters__", ()), arguments))
        return self._once((kind, tuple(arguments)), lambda: self._fields_of(kind, own))

    def _once(self, key: Any, make: Callable[[], Convert]) -> Convert:
        """Makes the conversion to a type that may contain itself."""
        if key not in self._made:
            made: list[Convert] = []
            self._made[key] = lambda value: made[0](value)
            made.append(make())
            self._made[key] = made[0]
        return self._made[key]

    def _fields_of(self, kind: Any, variables: Mapping[Any, Any]) -> Convert:
        if issubclass(kind, enum.Enum):
            return _enum(kind)
        if dataclasses.is_dataclass(kind):
            return self._object(kind, _dataclass_fields(kind), kind, variables)
        if hasattr(kind, "__attrs_attrs__"):
            return self._object(kind, _attrs_fields(kind), kind, variables)
        if issubclass(kind, dict) and hasattr(kind, "__total__"):
            required = getattr(kind, "__required_keys__", ())
            return self._object(kind, [(name, name, name in required) for name in _hints(kind)], None, variables)
        if issubclass(kind, tuple) and hasattr(kind, "_field_defaults"):
            fields = [(name, name, name not in kind._field_defaults) for name in kind._fields]
            from_object = self._object(kind, fields, kind, variables)

            def named(value: Any) -> Any:
                if isinstance(value, list):
                    if len(value) > len(fields):
                        raise Mismatch(f"has {len(value)} elements, not {len(fields)}")
                    value = dict(zip(kind._fields, value))
                return from_object(value)

            return named
        raise Unserved(f"{shown(kind)} is not a type that a body can be decoded as; write {_SERVED}")

    def _object(self, kind: Any, fields: Sequence[tuple[str, str, bool]], make: Any, variables: Mapping[Any, Any]) -> Convert:
        """Returns the conversion of an object to a class. A field has its name in JSON, its name for
        make, and whether it is required. Without make the result is a dict, with all other members."""
        hints = _hints(kind)
        converts: list[tuple[str, str, bool, Convert]] = []
        for name, parameter, required in fields:
            try:
                hint = hints[name]
                converts.append((name, parameter, required, self.convert(hint.type if type(hint) is dataclasses.InitVar else hint, variables)))
            except KeyError:
                raise Unserved(f"{kind.__name__}.{name} has no annotation; annotate it") from None
            except Unserved as error:
                raise Unserved(f"{kind.__name__}.{name}: {error}") from None

        def from_object(value: Any) -> Any:
            if not isinstance(value, dict):
                wrong(value, "an object")
            given: dict[str, Any] = {} if make is not None else self._anything(dict(value))
            for name, parameter, required, convert in converts:
                if name in value:
                    try:
                        given[parameter] = convert(value[name])
                    except Mismatch as error:
                        raise error.below(f".{name}")
                elif required:
                    raise Mismatch("is missing", f".{name}")
            if make is None:
                return given
            try:
                return make(**given)
            except (ValueError, AssertionError) as error:  # from the class's own checks
                raise Mismatch(f"is refused by {kind.__name__}: {error}") from error

        return from_object

    def _union(self, options: Sequence[Any], variables: Mapping[Any, Any] | None) -> Convert:
        ordered = sorted(options, key=lambda option: option is float)  # an int stays one
        converts = [(option, self.convert(option, variables)) for option in ordered if option is not type(None)]
        with_none = len(converts) < len(options)

        def first_that_fits(value: Any) -> Any:
            if value is None and with_none:
                return None
            reasons: list[str] = []
            for option, convert in converts:
                try:
                    return convert(value)
                except Mismatch as error:
                    if len(converts) == 1:
                        raise
                    reasons.append(f"as {shown(option)}, {error}")
            raise Mismatch(f"fits none of {', '.join(shown(option) for option, _ in converts)} ({'; '.join(reasons)})")

        return first_that_fits

    def _list(self, make: Callable[[list[Any]], Any], arguments: Sequence[Any], variables: Mapping[Any, Any] | None) -> Convert:
        if make is list and not arguments:
            return lambda value: self._anything(value) if isinstance(value, list) else wrong(value, "a list")
        convert = self.convert(arguments[0] if arguments else Any, variables)

        def from_list(value: Any) -> Any:
            made = _each(value, lambda _: convert)
            try:
                return made if make is list else make(made)
            except TypeError:
                raise Mismatch("has an element that a set cannot have") from None

        return from_list

    def _tuple(self, arguments: Sequence[Any], variables: Mapping[Any, Any] | None) -> Convert:
        if not arguments or arguments[-1] is Ellipsis:
            return self._list(tuple, arguments[:1], variables)
        arguments = [a for a in arguments if a != ()]  # Tuple[()] in Python 3.9 and 3.10
        converts = [self.convert(argument, variables) for argument in arguments]

        def from_list(value: Any) -> Any:
            if isinstance(value, list) and len(value) != len(converts):
                raise Mismatch(f"has {len(value)} elements, not {len(converts)}")
            return tuple(_each(value, converts.__getitem__))

        return from_list

    def _dict(self, make: Callable[[dict[Any, Any]], Any], arguments: Sequence[Any], variables: Mapping[Any, Any] | None) -> Convert:
        if make is dict and not arguments:
            return lambda value: self._anything(value) if isinstance(value, dict) else wrong(value, "an object")
        key, each = arguments or (Any, Any)
        convert = self.convert(each, variables)
        convert_key: Convert | None = None if key is Any or key is str else _key(key, self.convert(key, variables))

        def from_object(value: Any) -> Any:
            if not isinstance(value, dict):
                wrong(value, "an object")
            made: dict[Any, Any] = {}
            for name, other in value.items():
                try:
                    made[name if convert_key is None else convert_key(name)] = convert(other)
                except Mismatch as error:
                    raise error.below(f"[{name[:40]!r}]")
            return made if make is dict else make(made)

        return from_object


def _each(value: Any, convert_of: Callable[[int], Convert]) -> list[Any]:
    if not isinstance(value, list):
        wrong(value, "a list")
    made: list[Any] = []
    for at, each in enumerate(value):
        try:
            made.append(convert_of(at)(each))
        except Mismatch as error:
            raise error.below(f"[{at}]")
    return made


def _key(hint: Any, convert: Convert) -> Convert:
    """Returns the conversion of an object's member name, which is always text in JSON."""
    if hint is int or hint is float:
        return of_text(hint, f"a number, which {shown(hint)} requires")
    return convert


def _literal(values: Sequence[Any]) -> Convert:
    choices = ", ".join(json.dumps(value, default=str) for value in values)

    def one_of(value: Any) -> Any:
        for each in values:
            if (each.value if isinstance(each, enum.Enum) else each) == value and isinstance(value, bool) == isinstance(each, bool):
                return each
        raise Mismatch(f"is not one of {choices}")

    return one_of


def _enum(kind: Any) -> Convert:
    choices = ", ".join(json.dumps(member.value, default=str) for member in kind)

    def member(value: Any) -> Any:
        try:
            return kind(value)
        except ValueError:
            raise Mismatch(f"is not one of {choices}") from None

    return member


def _dataclass_fields(kind: Any) -> list[tuple[str, str, bool]]:
    if not kind.__dataclass_params__.init:
        raise Unserved(f"{kind.__name__} is a dataclass with init=False; remove init=False")
    fields = [f for f in kind.__dataclass_fields__.values() if f.init and f._field_type.name != "_FIELD_CLASSVAR"]
    return [(f.name, f.name, f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING) for f in fields]


def _attrs_fields(kind: Any) -> list[tuple[str, str, bool]]:
    nothing = sys.modules["attr"].NOTHING
    return [(a.name, getattr(a, "alias", None) or a.name.lstrip("_"), a.default is nothing) for a in kind.__attrs_attrs__ if a.init]


def _hints(kind: Any) -> dict[str, Any]:
    """Returns the annotations of a class, evaluated."""
    try:
        return typing.get_type_hints(kind, include_extras=True)
    except Exception as error:
        raise Unserved(f"the annotations of {kind.__name__} cannot be evaluated: {unevaluated(error)}") from None


def _value_of(alias: Any) -> Any:
    try:
        return alias.__value__
    except Exception as error:
        raise Unserved(f"the type {alias} cannot be evaluated: {unevaluated(error)}") from None


def unevaluated(error: Exception) -> str:
    """Returns why an annotation cannot be evaluated, and what to write instead."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, NameError):
        return f"{text}; define or import it at the top of the module, and not only under TYPE_CHECKING"
    if isinstance(error, TypeError) and "for |" in text and sys.version_info < (3, 10):
        return f"{text}; X | Y needs Python 3.10, so write typing.Optional[X] or typing.Union[X, Y]"
    return text


# Types of pydantic, which decodes a whole body that has one.


def _check_library(kind: Any) -> None:
    """Raises _Foreign for a type of pydantic."""
    if hasattr(kind, "__pydantic_validator__"):
        raise _Foreign("pydantic")
    if hasattr(kind, "__pydantic_model__") or hasattr(kind, "__fields__") and hasattr(kind, "parse_raw"):  # pydantic 1
        second = any(base.__module__.startswith("pydantic.v1.") for base in kind.__mro__)
        raise _Foreign("pydantic.v1" if second else "pydantic")


def _foreign_decoder(library: str, hint: Any) -> Callable[[bytes], Any]:
    module: Any = sys.modules.get(library)
    if module is None:  # it has a constraint of annotated_types, and no model
        raise Unserved(f"{shown(hint)} has constraints, which need pydantic; import pydantic, or remove them")
    try:
        if hasattr(module, "TypeAdapter"):
            decode = module.TypeAdapter(hint).validate_json
        else:
            parse = module.parse_raw_as
            decode = lambda body: parse(hint, body)  # noqa: E731
        decode(b"null")  # an undefined type raises only now
    except module.ValidationError:
        pass
    except Exception as error:
        raise Unserved(f"pydantic cannot decode {shown(hint)}: {' '.join(str(error).split())[:300]}") from None
    name, failure = shown(hint), module.ValidationError

    def decoded(body: bytes) -> Any:
        try:
            return decode(body)
        except failure as error:
            why = _found(error)
        except UnicodeDecodeError as error:
            why = f"it is not JSON: {error}"
        raise BadBody(f"the body does not fit {name}: {why}")

    return decoded


def _found(error: Any) -> str:
    """Returns pydantic's first errors, without the values, which may be secret."""
    found = error.errors()
    reasons = [f"{'.'.join(map(str, each['loc'])) or 'it'}: {each['msg']}" for each in found[:3]]
    return "; ".join(reasons) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")
