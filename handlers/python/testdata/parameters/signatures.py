"""Checks what the parameters of functions get. It runs unchanged, and with `from __future__ import annotations`."""

import dataclasses
import functools
import inspect
import unittest
from typing import TYPE_CHECKING, Annotated, Any, Callable, Dict, Iterable, List, NewType, Optional, Tuple, Union

import drover
from drover.forms import Form, Misfit, form, place_of
from drover.functions import Function

if TYPE_CHECKING:
    from somewhere import Context, Message, Missing

Body = NewType("Body", bytes)


@dataclasses.dataclass
class Order:
    id: int


class Money:
    pass


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(*arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    return inner


class Shop:
    def order(self, order: Order, context: drover.Context) -> int:
        return order.id

    def __call__(self, order: Order) -> int:
        return order.id


# Arguments that are passed unchanged, as without annotations.
def plain(body): ...
def plain_bytes(body: bytes): ...
def plain_message(message): ...
def plain_msg(msg: Any): ...
def plain_typed(m: drover.Message): ...
def plain_name(m: "drover.Message"): ...
def plain_both(message, context): ...
def plain_old(body, whatever): ...
def plain_default(message, context=None): ...
def plain_optional(message: drover.Message, context: Optional[drover.Context] = None): ...
def plain_more(body, more=1, *rest, key=None, **others): ...
def plain_client(body, client: Money = Money()): ...
def plain_annotated(body: Annotated[bytes, "raw"]): ...
def plain_new(body: Body): ...
def plain_checked_message(m: "Message", c: "Context"): ...


PLAIN: Dict[Callable[..., Any], Tuple[str, ...]] = {
    plain: ("body",),
    plain_bytes: ("body",),
    plain_message: ("message",),
    plain_msg: ("message",),
    plain_typed: ("message",),
    plain_name: ("message",),
    plain_both: ("message", "context"),
    plain_old: ("message", "context"),
    plain_default: ("message", "context"),
    plain_optional: ("message", "context"),
    plain_more: ("body",),
    plain_client: ("body",),
    plain_annotated: ("body",),
    plain_new: ("body",),
    plain_checked_message: ("message", "context"),
    len: ("body",),
}


# Arguments that are decoded, or in another order.
def text(body: str) -> Any:
    return body


def from_dict(message: dict) -> Any:
    return message


def order(order: Order) -> Any:
    return order.id


def order_context(order: Order, context: drover.Context) -> Any:
    return order.id, context.function


def order_message(order: Order, message: drover.Message) -> Any:
    return order.id, message.id


def everything(context: drover.Context, message: drover.Message, order: Order) -> Any:
    return order.id, message.id, context.function


def unnamed(body, m: drover.Message) -> Any:
    return body, m.id


def alone(c: drover.Context) -> Any:
    return c.function


def annotated(body: Annotated[str, "text"]) -> Any:
    return body


@logged
def wrapped(order: Order) -> Any:
    return order.id


ADAPTED: List[Tuple[Callable[..., Any], Any]] = [
    (text, '{"id": 7}'),
    (from_dict, {"id": 7}),
    (order, 7),
    (order_context, (7, "f")),
    (order_message, (7, "1")),
    (everything, (7, "1", "f")),
    (unnamed, (b'{"id": 7}', "1")),
    (alone, "f"),
    (annotated, '{"id": 7}'),
    (wrapped, 7),
    (Shop().order, 7),
    (Shop(), 7),
    (functools.partial(order_message, message=drover.Message(b"")), (7, "")),
]


def bad_money(money: Money): ...
def bad_missing(order: "Missing"): ...
def bad_two(a: Order, b: str): ...
def bad_messages(a: drover.Message, message): ...
def bad_context(order: Order, context: str): ...
def bad_order(context, message): ...
def bad_list(messages: List[drover.Message]): ...
def bad_union(message: Union[drover.Message, bytes]): ...
def bad_three(a, b, c): ...
def bad_second(order: Order, money: Money): ...


MISFITS: Dict[Callable[..., Any], str] = {
    bad_money: ": its parameter money: Money is not a type that a body can be decoded as; write bytes, str, dict, list, a dataclass",
    bad_missing: ": the annotation of its parameter order cannot be evaluated: NameError: name 'Missing' is not defined; define or import it at the top of the module, and not only under TYPE_CHECKING",
    bad_two: " cannot be called: its parameters a and b would both get the body: a function takes",
    bad_messages: " cannot be called: its parameters a and message would both get the message: a function takes",
    bad_context: ": its parameter context is annotated str; annotate it drover.Context",
    bad_order: " has its parameters in the wrong order: a function takes",
    bad_list: ": its parameter messages is annotated List[Message], but the function takes one message; annotate it drover.Message, or set batch in its configuration",
    bad_union: ": its parameter message: Message is not a type that a body can be decoded as",
    bad_three: " cannot be called: a function takes (body), (message) or (message, context), or parameters that are annotated",
    bad_second: " cannot be called: its parameters order and money would both get the body",
}


def batch_plain(messages): ...
def batch_context(messages, context): ...
def batch_list(batch: list): ...
def batch_messages(batch: List[drover.Message]): ...
def batch_iterable(batch: Iterable[drover.Message]): ...
def batch_bytes(bodies: List[bytes]): ...
def batch_orders(orders: List[Order]): ...
def batch_both(orders: List[Order], messages: List[drover.Message], context: drover.Context): ...
def batch_unnamed(orders: List[Order], messages): ...
def batch_one(order: Order): ...
def batch_message(m: drover.Message): ...


BATCHES: Dict[Callable[..., Any], Union[Tuple[str, ...], str]] = {
    batch_plain: ("message",),
    batch_context: ("message", "context"),
    batch_list: ("message",),
    batch_messages: ("message",),
    batch_iterable: ("message",),
    batch_bytes: ("body",),
    batch_orders: ("body",),
    batch_both: ("body", "message", "context"),
    batch_unnamed: ("body", "message"),
    len: ("message",),
    batch_one: ": its parameter order is annotated Order, but the function takes batches, as its configuration has batch; annotate it list[Order]",
    batch_message: ": its parameter m is annotated Message, but the function takes batches, as its configuration has batch; annotate it list[Message]",
}


def called(function: Callable[..., Any], takes: Form, body: bytes) -> Any:
    adapted = takes.adapt(function)
    if takes.wants_body:
        return adapted(body)
    message = drover.Message(body, 1, 0, b"\1\0\0\x001" + b"\0" * 8)
    return adapted(message, drover.Context("f")) if takes.wants_context else adapted(message)


class TestForms(unittest.TestCase):
    def test_plain_functions_are_called_as_they_are(self) -> None:
        for function, kinds in PLAIN.items():
            with self.subTest(function=function):
                takes = form(function)
                self.assertEqual(takes.kinds, kinds)
                self.assertTrue(takes.is_plain)
                self.assertIs(Function("f", function).call, function)  # a call costs nothing extra

    def test_parameters_follow_their_annotations(self) -> None:
        for function, want in ADAPTED:
            with self.subTest(function=function):
                takes = form(function)
                self.assertFalse(takes.is_plain)
                self.assertEqual(called(function, takes, b'{"id": 7}'), want)

    def test_body_that_does_not_fit(self) -> None:
        with self.assertRaisesRegex(drover.Reject, "the body does not fit Order: id is missing"):
            called(order, form(order), b"{}")
        response = form(order_context).adapt(order_context, True)(drover.Message(b"{}"), None)
        self.assertEqual((response.status, response.body), (400, "the body does not fit Order: id is missing\n"))

    def test_functions_that_cannot_be_called(self) -> None:
        for function, want in MISFITS.items():
            with self.subTest(function=function):
                with self.assertRaises(Misfit) as raised:
                    form(function)
                self.assertIn(want, str(raised.exception))

    def test_batches(self) -> None:
        for function, want in BATCHES.items():
            with self.subTest(function=function):
                if isinstance(want, tuple):
                    self.assertEqual(form(function, batch=True).kinds, want)
                    continue
                with self.assertRaises(Misfit) as raised:
                    form(function, batch=True)
                self.assertIn(want, str(raised.exception))

    def test_places(self) -> None:
        lines, first = inspect.getsourcelines(bad_money)
        self.assertEqual(place_of(bad_money), f"{inspect.getsourcefile(bad_money)}:{first}: ")
        self.assertEqual(place_of(len), "")


if __name__ == "__main__":
    unittest.main()
