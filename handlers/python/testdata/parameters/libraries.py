"""Checks bodies that are decoded as types of the app's pydantic and attrs."""

import dataclasses
import datetime
import decimal
import unittest
from typing import Annotated, Any, List, Optional

import attrs
import pydantic
import pydantic.v1

import drover
from drover import testing
from drover.decoding import Unserved, body_decoder


class Item(pydantic.BaseModel):
    name: str
    price: decimal.Decimal = pydantic.Field(gt=0)


class Order(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    id: int
    items: List[Item] = []
    at: Optional[datetime.datetime] = None
    source: str = pydantic.Field("shop", alias="from")


@dataclasses.dataclass
class Mixed:
    order: Order
    note: str = ""


@dataclasses.dataclass
class Constrained:
    count: Annotated[int, pydantic.Field(gt=0)]


@pydantic.dataclasses.dataclass
class Validated:
    count: int


class Old(pydantic.v1.BaseModel):
    id: int


@attrs.define
class Part:
    name: str
    _size: int = attrs.field(default=1)
    tags: List[str] = attrs.field(factory=list)

    @_size.validator
    def check(self, attribute: Any, value: int) -> None:
        if value < 0:
            raise ValueError("size is negative")


class Odd:
    pass


class Strange(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    odd: "Nowhere"  # type: ignore  # noqa: F821


class TestLibraries(unittest.TestCase):
    def test_bodies_that_fit(self) -> None:
        order = b'{"id": 7, "items": [{"name": "a", "price": 1.10}], "from": "web"}'
        decoded = body_decoder(Order)(order)
        self.assertEqual((decoded.id, decoded.items[0].price, decoded.source), (7, decimal.Decimal("1.10"), "web"))
        self.assertEqual(body_decoder(List[Order])(b"[" + order + b"]"), [decoded])
        self.assertEqual(body_decoder(Mixed)(b'{"order": ' + order + b"}"), Mixed(decoded))
        self.assertEqual(body_decoder(Constrained)(b'{"count": 1}'), Constrained(1))
        self.assertEqual(body_decoder(Validated)(b'{"count": 1}'), Validated(1))
        self.assertEqual(body_decoder(Old)(b'{"id": 7}'), Old(id=7))
        self.assertEqual(body_decoder(List[Old])(b'[{"id": 7}]'), [Old(id=7)])
        self.assertEqual(body_decoder(Part)(b'{"name": "a", "_size": 2}'), Part("a", 2))

    def test_bodies_that_do_not_fit(self) -> None:
        for hint, body, want in (
            (Order, b'{"id": "secret", "items": [{"name": "a", "price": -1}], "x": 1}', "the body does not fit Order: id: Input should be a valid integer, unable to parse string as an integer; items.0.price: Input should be greater than 0; x: Extra inputs are not permitted"),
            (Order, b"{", "the body does not fit Order: it: Invalid JSON: EOF while parsing an object at line 1 column 1"),
            (Order, b"\xff", "the body does not fit Order: it: Invalid JSON"),
            (Order, b'{"items": [{}, {}]}', "items.0.name: Field required; items.0.price: Field required; and 2 more"),
            (Constrained, b'{"count": 0}', "the body does not fit Constrained: count: Input should be greater than 0"),
            (Old, b'{"id": "x"}', "the body does not fit Old: "),
            (Part, b'{"name": 1}', "the body does not fit Part: name is a number, not a string"),
            (Part, b'{"name": "a", "_size": -1}', "the body does not fit Part: it is refused by Part: size is negative"),
        ):
            with self.subTest(hint=hint, body=body):
                with self.assertRaises(drover.Reject) as raised:
                    body_decoder(hint)(body)
                self.assertIn(want, str(raised.exception))
                self.assertNotIn("secret", str(raised.exception))

    def test_types_that_cannot_be_served(self) -> None:
        with self.assertRaisesRegex(Unserved, "pydantic cannot decode Strange: "):
            body_decoder(Strange)

    def test_run(self) -> None:
        def orders(order: Order, context: drover.Context) -> Any:
            return order

        self.assertEqual(testing.run(orders, {"id": 7}), Order(id=7))


if __name__ == "__main__":
    unittest.main()
