"""Checks the types that a body can be decoded as, and the reasons why bodies are refused."""

import collections
import dataclasses
import datetime
import decimal
import enum
import ipaddress
import pathlib
import sys
import typing
import unittest
import uuid
from typing import Any, Dict, FrozenSet, Generic, List, Literal, Mapping, NamedTuple, NewType, Optional, Sequence, Set, Tuple, TypedDict, TypeVar, Union

import drover
from drover.decoding import BadBody, Unserved, body_decoder, shown

T = TypeVar("T")
UTC = datetime.timezone.utc


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclasses.dataclass
class Item:
    name: str
    price: decimal.Decimal
    size: float = 1.0


@dataclasses.dataclass
class Order:
    id: int
    items: List[Item]
    color: Color = Color.RED
    at: Optional[datetime.datetime] = None
    extra: Dict[str, Any] = dataclasses.field(default_factory=dict)
    parent: "Optional[Order]" = None
    total: int = dataclasses.field(init=False, default=3)
    kinds: typing.ClassVar[int] = 5


@dataclasses.dataclass
class Positive:
    n: int

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError("n is negative")
        if self.n == 13:
            raise KeyError("a bug")


@dataclasses.dataclass
class Doubled:
    n: int
    twice: dataclasses.InitVar[bool] = False

    def __post_init__(self, twice: bool) -> None:
        self.n *= 2 if twice else 1


@dataclasses.dataclass
class Page(Generic[T]):
    items: List[T]
    next: Optional[T] = None


class Movie(TypedDict, total=False):
    title: str
    year: int


class Titled(TypedDict):
    title: str


class Point(NamedTuple):
    x: int
    y: int = 0


@dataclasses.dataclass
class Created:
    kind: Literal["created"]
    by: str


@dataclasses.dataclass
class Deleted:
    kind: Literal["deleted"]
    at: datetime.date


@dataclasses.dataclass(init=False)
class WithoutInit:
    n: int


class Money:
    pass


@dataclasses.dataclass
class Priced:
    price: Money


@dataclasses.dataclass
class Unknown:
    price: "Nowhere"  # noqa: F821


OrderID = NewType("OrderID", int)
ORDER = b'{"id": 7, "items": [{"name": "a", "price": 1.10}]}'

FITS: List[Tuple[Any, bytes, object]] = [
    (str, b"\xc3\xa4", "ä"),
    (bytearray, b"ab", bytearray(b"ab")),
    (dict, b'{"a": 1.5}', {"a": 1.5}),
    (list, b"[1, null]", [1, None]),
    (Dict[str, int], b'{"a": 1}', {"a": 1}),
    (Dict[int, str], b'{"1": "a"}', {1: "a"}),
    (Dict[Color, bool], b'{"red": true}', {Color.RED: True}),
    (Mapping[uuid.UUID, Any], b'{"12345678-1234-5678-1234-567812345678": [1.5]}', {uuid.UUID("12345678-1234-5678-1234-567812345678"): [1.5]}),
    (typing.OrderedDict[str, int], b'{"a": 1}', collections.OrderedDict(a=1)),
    (int, b"3", 3),
    (int, b"3.0", 3),
    (float, b"3", 3.0),
    (bool, b"true", True),
    (Optional[int], b"null", None),
    (Optional[Order], b"", None),
    (Sequence[str], b'["a"]', ["a"]),
    (Set[int], b"[1, 1]", {1}),
    (FrozenSet[int], b"[1]", frozenset({1})),
    (Tuple[int, str], b'[1, "a"]', (1, "a")),
    (Tuple[int, ...], b"[1, 2]", (1, 2)),
    (Order, ORDER, Order(7, [Item("a", decimal.Decimal("1.10"))])),
    (Order, b'\xef\xbb\xbf{"id": 7, "items": [], "unknown": 1}', Order(7, [])),
    (Order, b'{"id": 7, "items": [], "color": "blue", "extra": {"f": 0.5, "l": [0.5]}, "parent": ' + ORDER + b"}", Order(7, [], Color.BLUE, None, {"f": 0.5, "l": [0.5]}, Order(7, [Item("a", decimal.Decimal("1.10"))]))),
    (List[Order], b'[{"id": 7, "items": []}]', [Order(7, [])]),
    (Positive, b'{"n": 4}', Positive(4)),
    (Page[Point], b'{"items": [[1, 2], {"x": 1}], "next": [3]}', Page([Point(1, 2), Point(1)], Point(3))),
    (Page, b'{"items": [1.5]}', Page([1.5])),
    (Movie, b'{"year": 1999, "seen": 1.5}', {"year": 1999, "seen": 1.5}),
    (Union[Created, Deleted], b'{"kind": "deleted", "at": "2024-02-03"}', Deleted("deleted", datetime.date(2024, 2, 3))),
    (Union[float, int], b"3", 3),
    (Union[int, str, None], b'"x"', "x"),
    (Level, b"2", Level.HIGH),
    (Literal[1, "a"], b"1", 1),
    (OrderID, b"3", 3),
    (decimal.Decimal, b"0.12345678901234567890", decimal.Decimal("0.12345678901234567890")),
    (decimal.Decimal, b'"1.50"', decimal.Decimal("1.50")),
    (uuid.UUID, b'"12345678-1234-5678-1234-567812345678"', uuid.UUID("12345678-1234-5678-1234-567812345678")),
    (datetime.datetime, b'"2024-01-02T03:04:05Z"', datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
    (datetime.datetime, b'"2024-01-02T03:04:05.1234567+0000"', datetime.datetime(2024, 1, 2, 3, 4, 5, 123456, UTC)),
    (datetime.datetime, b'"2024-01-02 03:04:05.5"', datetime.datetime(2024, 1, 2, 3, 4, 5, 500000)),
    (datetime.datetime, b'"2024-01-02"', datetime.datetime(2024, 1, 2)),
    (datetime.time, b'"03:04:05.1Z"', datetime.time(3, 4, 5, 100000, UTC)),
    (datetime.timedelta, b"1.5", datetime.timedelta(seconds=1.5)),
    (pathlib.Path, b'"a/b"', pathlib.Path("a/b")),
    (ipaddress.IPv4Address, b'"10.0.0.1"', ipaddress.IPv4Address("10.0.0.1")),
    (List[bytes], b'["YWI="]', [b"ab"]),
]

REFUSED: List[Tuple[Any, bytes, str]] = [
    (str, b"\xff", "the body does not fit str: it is not UTF-8 (invalid start byte at byte 0)"),
    (dict, b"", "the body does not fit dict: it is empty"),
    (dict, b"[1]", "the body does not fit dict: it is a list, not an object"),
    (dict, b"{", "the body does not fit dict: it is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    (list, b"[" * 100_000, "the body does not fit list: it is nested too deeply"),
    (list, b'"a"', "the body does not fit list: it is a string, not a list"),
    (int, b"3.5", "the body does not fit int: it is not a whole number"),
    (int, b"true", "the body does not fit int: it is true, not a number"),
    (int, b'"3"', "the body does not fit int: it is a string, not a number"),
    (int, b"NaN", "the body does not fit int: it is not a whole number"),
    (int, b"1e400", "the body does not fit int: it is not a whole number"),
    (Order, b'{"id": 1e999999999, "items": []}', "the body does not fit Order: id is not a whole number"),
    (float, b"9" * 400, "the body does not fit float: it is not a number"),
    (datetime.timedelta, b"1e300", "the body does not fit timedelta: it is not a number of seconds"),
    (float, b"false", "the body does not fit float: it is false, not a number"),
    (bool, b"1", "the body does not fit bool: it is a number, not true or false"),
    (Order, b"{}", "the body does not fit Order: id is missing"),
    (Order, b'{"id": null, "items": []}', "the body does not fit Order: id is null, not a number"),
    (Order, b'{"id": 1, "items": [{"name": "a"}]}', "the body does not fit Order: items[0].price is missing"),
    (Order, b'{"id": 1, "items": [{"name": "a", "price": "x"}]}', "the body does not fit Order: items[0].price is not a number"),
    (Order, b'{"id": 1, "items": [{"name": "a", "price": "NaN"}]}', "the body does not fit Order: items[0].price is not a finite number"),
    (Order, b'{"id": 1, "items": [], "color": "green"}', 'the body does not fit Order: color is not one of "red", "blue"'),
    (Order, b'{"id": 1, "items": [], "at": "today"}', "the body does not fit Order: at is not a date and time of ISO 8601"),
    (Order, b'{"id": 1, "items": [], "at": 17}', "the body does not fit Order: at is a number, not a date and time of ISO 8601"),
    (Order, b'{"id": 1, "items": [], "parent": {"id": 1, "items": {}}}', "the body does not fit Order: parent.items is an object, not a list"),
    (Positive, b'{"n": -1}', "the body does not fit Positive: it is refused by Positive: n is negative"),
    (List[Positive], b'[{"n": 1}, {"n": -1}]', "the body does not fit List[Positive]: [1] is refused by Positive: n is negative"),
    (Dict[str, int], b'{"a": "b"}', "the body does not fit Dict[str, int]: ['a'] is a string, not a number"),
    (Dict[int, int], b'{"a": 1}', "the body does not fit Dict[int, int]: ['a'] is not a number, which int requires"),
    (Tuple[int, str], b"[1]", "the body does not fit Tuple[int, str]: it has 1 elements, not 2"),
    (Point, b"[1, 2, 3]", "the body does not fit Point: it has 3 elements, not 2"),
    (Titled, b'{"year": 1}', "the body does not fit Titled: title is missing"),
    (Set[Any], b"[[1]]", "the body does not fit Set[Any]: it has an element that a set cannot have"),
    (List[bytes], b'["?"]', "the body does not fit List[bytes]: [0] is not base64"),
    (Union[Created, Deleted], b'{"kind": "x"}', f"the body does not fit {shown(Union[Created, Deleted])}: " + 'it fits none of Created, Deleted (as Created, kind is not one of "created"; as Deleted, kind is not one of "deleted")'),
    (Literal["a", True], b"1", 'the body does not fit Literal[\'a\', True]: it is not one of "a", true'),
]

UNSERVED: List[Tuple[Any, str]] = [
    (Money, "Money is not a type that a body can be decoded as; write bytes, str, dict, list, a dataclass,"),
    (Priced, "Priced.price: Money is not a type that a body can be decoded as; write"),
    (List[Priced], "Priced.price: Money is not a type"),
    (Unknown, "the annotations of Unknown cannot be evaluated: NameError: name 'Nowhere' is not defined; define or import it at the top of the module"),
    (typing.Callable[[], int], "Callable[[], int] is not a type that a body can be decoded as"),
    (WithoutInit, "WithoutInit is a dataclass with init=False; remove init=False"),
    (complex, "complex is not a type that a body can be decoded as"),
    (drover.Output, "Output is not a type that a body can be decoded as"),
]


class TestDecoding(unittest.TestCase):
    def test_bodies_that_fit(self) -> None:
        for hint, body, want in FITS:
            with self.subTest(hint=hint, body=body[:50]):
                got = body_decoder(hint)(body)
                self.assertEqual(got, want)
                self.assertIs(type(got), type(want))

    def test_bodies_that_do_not_fit(self) -> None:
        for hint, body, want in REFUSED:
            with self.subTest(hint=hint, body=body[:50]):
                with self.assertRaises(BadBody) as raised:
                    body_decoder(hint)(body)
                self.assertEqual(str(raised.exception), want)

    def test_types_that_cannot_be_served(self) -> None:
        for hint, want in UNSERVED:
            with self.subTest(hint=hint):
                with self.assertRaises(Unserved) as raised:
                    body_decoder(hint)
                self.assertIn(want, str(raised.exception))

    def test_error_of_the_class_that_is_no_refusal(self) -> None:
        with self.assertRaises(KeyError):
            body_decoder(Positive)(b'{"n": 13}')

    def test_values_are_not_in_reasons(self) -> None:
        with self.assertRaises(BadBody) as raised:
            body_decoder(Order)(b'{"id": "secret", "items": []}')
        self.assertNotIn("secret", str(raised.exception))

    def test_result_of_a_function_is_decoded_again(self) -> None:
        from drover.results import encode

        order = Order(7, [Item("a", decimal.Decimal("1.10"))], Color.BLUE, datetime.datetime(2024, 1, 2, tzinfo=UTC), {"a": [1]})
        self.assertEqual(body_decoder(Order)(encode(order)), order)

    def test_newer_syntax(self) -> None:
        if sys.version_info >= (3, 10):
            self.assertEqual(body_decoder(eval("list[int | None]"))(b"[1, null]"), [1, None])
        if sys.version_info >= (3, 11):  # typing.get_type_hints before cannot evaluate an InitVar in text
            self.assertEqual(body_decoder(Doubled)(b'{"n": 4, "twice": true}'), Doubled(4, True))
        if sys.version_info >= (3, 12):
            scope: Dict[str, Any] = {}
            exec("type Numbers = list[int]\ntype Tree = int | list[Tree]", scope)
            self.assertEqual(body_decoder(scope["Numbers"])(b"[1]"), [1])
            self.assertEqual(body_decoder(scope["Tree"])(b"[1, [2]]"), [1, [2]])
        self.assertEqual(shown(list[int]), "list[int]")


if __name__ == "__main__":
    unittest.main()
