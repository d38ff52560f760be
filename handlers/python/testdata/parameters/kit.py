"""Checks drover.testing. It runs unchanged, and with `from __future__ import annotations`."""

import asyncio
import concurrent.futures
import dataclasses
import datetime
import io
import time
import unittest
from typing import Any, List

import drover
from drover import testing


@dataclasses.dataclass
class Order:
    id: int


def order(order: Order, context: drover.Context) -> Any:
    if order.id == 0:
        raise drover.Reject("no order 0")
    if order.id == 1:
        raise drover.Retry("later", after=30)
    return {"id": order.id, "function": context.function}


async def order_async(order: Order) -> Any:
    await asyncio.sleep(0)
    return order.id


def about(message: drover.Message) -> Any:
    return message.id


def body(body: bytes) -> Any:
    return body


def deadline(message: drover.Message, context: drover.Context) -> Any:
    return context.remaining()


class TestMessage(unittest.TestCase):
    def test_everything(self) -> None:
        now = datetime.datetime(2024, 1, 2, 3, 4, 5, 600, datetime.timezone.utc)
        m = testing.message(
            {"id": 7}, id="17", subject="orders.new", ordering_key="k", attempt=2, enqueued=now, attributes={"Color": "red", "Size": ["1", "2"]},
            content_type="application/json", correlation_id="c", reply_to="r", reply_to_session="rs", to="t", session_id="s", partition_key="p",
            sequence_number=3, delivery_count=4, dequeue_count=5, expires_at=now, properties={"repeated": "x"},
        )  # fmt: skip
        self.assertEqual((m.body, m.json(), m.id, m.subject, m.ordering_key, m.attempt, m.enqueued), (b'{"id":7}', {"id": 7}, "17", "orders.new", "k", 2, now))
        self.assertEqual((m.attributes, m.values("Size")), ({"Color": "red", "Size": "1"}, ["1", "2"]))
        self.assertEqual((m.content_type, m.correlation_id, m.reply_to, m.reply_to_session, m.to), ("application/json", "c", "r", "rs", "t"))
        self.assertEqual((m.session_id, m.partition_key, m.sequence_number, m.delivery_count, m.dequeue_count), ("s", "p", 3, 4, 5))
        self.assertEqual((m.expires_at, m.properties["repeated"]), (now, "x"))

    def test_defaults(self) -> None:
        m = testing.message()
        self.assertEqual((m.body, m.id, m.subject, m.attempt, m.enqueued, m.attributes, m.properties), (b"", "1", "", 1, None, {}, {}))

    def test_bodies(self) -> None:
        for given, want in ((b"a", b"a"), ("ä", "ä".encode()), ([1], b"[1]"), (Order(7), b'{"id":7}'), (None, b"null")):
            self.assertEqual(testing.message(given).body, want)
            self.assertEqual(testing.run(body, given), want)


class TestRun(unittest.TestCase):
    def test_result(self) -> None:
        self.assertEqual(testing.run(order, {"id": 7}), {"id": 7, "function": "order"})
        self.assertEqual(testing.run(order_async, testing.message({"id": 7})), 7)
        self.assertEqual(testing.run(about, testing.message(id="17")), "17")

    def test_verdicts(self) -> None:
        with self.assertRaisesRegex(drover.Reject, "no order 0"):
            testing.run(order, {"id": 0})
        with self.assertRaises(drover.Retry) as raised:
            testing.run(order, {"id": 1})
        self.assertEqual(raised.exception.after, 30)
        with self.assertRaisesRegex(drover.Reject, "the body does not fit Order: id is missing"):
            testing.run(order, {})
        with self.assertRaisesRegex(drover.Reject, "the body does not fit Order: it is empty"):
            testing.run(order_async, b"")
        with self.assertRaises(ZeroDivisionError):
            testing.run(lambda body: 1 // 0, b"")

    def test_results_that_cannot_be_sent(self) -> None:
        for value, why in (
            (object(), "returned an object, which cannot be sent"),
            ({"a": object()}, "returned a dict with an object in it"),
            ((n for n in "ab"), "returned a generator, whose code has not run"),
        ):
            with self.assertRaisesRegex(drover.Reject, why):
                testing.run(lambda body: value, b"")
        value = object()
        self.assertIs(testing.run(lambda body: value, b"", output=False), value)

    def test_functions_that_do_not_load(self) -> None:
        def money(price: complex) -> None: ...

        with self.assertRaisesRegex(TypeError, r"kit.*\.py:\d+: money\(price: .*\).*: its parameter price: complex is not a type that a body can be decoded as"):
            testing.run(money, b"")
        with self.assertRaisesRegex(TypeError, "is an ASGI or WSGI app"):
            testing.run(lambda scope, receive, send: None, testing.request())

    def test_outputs(self) -> None:
        def split(message: drover.Message) -> drover.Outputs:
            return drover.Outputs(audit=[1, 2], receipts=drover.Output("x"), result=3)

        self.assertEqual(testing.run(split, b"").messages["audit"], [1, 2])
        self.assertEqual(testing.run(split, b"", outputs=["audit", "receipts"]).result, 3)
        with self.assertRaisesRegex(drover.Reject, "a message for the output 'receipts', which the function does not have; it has: audit"):
            testing.run(split, b"", outputs=["audit"])
        with self.assertRaisesRegex(drover.Reject, "the function has no named outputs"):
            testing.run(split, b"", outputs=[])
        self.assertEqual(testing.run(lambda body: drover.Outputs(), b"").messages, {})

    def test_context(self) -> None:
        def count(message: drover.Message, context: drover.Context) -> str:
            context.session_state = (context.session_state or b"") + message.body
            return context.function

        context = testing.context("counter", session_state=b"a")
        self.assertEqual(testing.run(count, b"b", context=context), "counter")
        self.assertEqual(context.session_state, b"ab")
        self.assertIsNone(testing.run(deadline, b""))
        self.assertAlmostEqual(testing.run(deadline, b"", timeout=60), 60, delta=10)
        self.assertAlmostEqual(testing.run(deadline, b"", context=testing.context(timeout=60)), 60, delta=10)
        with self.assertRaisesRegex(TypeError, "give the timeout to the context"):
            testing.run(deadline, b"", context=context, timeout=1)
        traced = testing.message(attributes={"traceparent": "00-1-2-01"})
        self.assertEqual(testing.run(lambda message, context: context.traceparent, traced), "00-1-2-01")

    def test_awaitables(self) -> None:
        def late(message: drover.Message) -> Any:
            return order_async(Order(7))

        def thread(message: drover.Message) -> Any:
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                return pool.submit(lambda: 8)

        self.assertEqual(testing.run(late, b""), 7)
        self.assertEqual(testing.run(thread, b""), 8)


class TestTimeouts(unittest.TestCase):
    def test_sync(self) -> None:
        cleaned: List[bool] = []

        def slow(message: drover.Message, context: drover.Context) -> None:
            try:
                time.sleep(600)
            except drover.Timeout:
                cleaned.append(context.cancelled)
                raise

        with self.assertRaises(drover.Timeout):
            testing.run(slow, b"", timeout=0.01)
        self.assertEqual(cleaned, [True])

    def test_async(self) -> None:
        cleaned: List[bool] = []

        async def slow(message: drover.Message, context: drover.Context) -> None:
            try:
                await asyncio.sleep(600)
            finally:
                cleaned.append(context.cancelled)

        with self.assertRaises(drover.Timeout):
            testing.run(slow, b"", timeout=0.01)
        self.assertEqual(cleaned, [True])

    def test_function_that_returns_after_all(self) -> None:
        def slow(message: drover.Message) -> str:
            try:
                time.sleep(600)
            except drover.Timeout:
                return "done"
            return "early"

        async def slow_async(message: drover.Message) -> str:
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                return "done"
            return "early"

        self.assertEqual(testing.run(slow, b"", timeout=0.01), "done")
        self.assertEqual(testing.run(slow_async, b"", timeout=0.01), "done")

    def test_error_after_the_timeout(self) -> None:
        def slow(message: drover.Message) -> None:
            try:
                time.sleep(600)
            except drover.Timeout:
                raise ValueError("gave up")

        with self.assertRaises(drover.Timeout) as raised:
            testing.run(slow, b"", timeout=0.01)
        self.assertIsInstance(raised.exception.__cause__, ValueError)

    def test_in_another_thread(self) -> None:
        def wait(message: drover.Message, context: drover.Context) -> bool:
            while not context.cancelled:
                time.sleep(0.001)
            return True

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            self.assertTrue(pool.submit(lambda: testing.run(wait, b"", timeout=0.01)).result())


class TestBatches(unittest.TestCase):
    def messages(self, *bodies: Any) -> List[drover.Message]:
        return [testing.message(body, id=str(at)) for at, body in enumerate(bodies)]

    def test_messages(self) -> None:
        self.assertEqual(testing.run(lambda messages: [m.id for m in messages], self.messages(b"", b"")), ["0", "1"])

    def test_verdicts(self) -> None:
        def orders(messages: List[drover.Message]) -> drover.Verdicts:
            return drover.Verdicts({"1": drover.Reject("no"), "2": object(), "3": ValueError}, result="whole")

        found = testing.run(orders, self.messages(b"", b"", b"", b""))
        self.assertEqual(found.result, "whole")
        self.assertEqual([type(each) for each in found.verdicts], [type(None), drover.Reject, drover.Reject, ValueError])
        self.assertIn("returned an object, which cannot be sent", str(found.verdicts[2]))

    def test_bodies_that_do_not_fit(self) -> None:
        def orders(orders: List[Order], messages: List[drover.Message]) -> Any:
            if len(orders) == 1:
                return None
            return drover.Verdicts([f"{m.id}={o.id}" for o, m in zip(orders, messages)])

        async def orders_async(orders: List[Order]) -> Any:
            return sum(order.id for order in orders)

        found = testing.run(orders, self.messages({"id": 5}, {}, {"id": 6}, b"x"))
        self.assertEqual([str(each) for each in found.verdicts], ["0=5", "the body does not fit Order: id is missing", "2=6", "the body does not fit Order: it is not JSON: Expecting value: line 1 column 1 (char 0)"])
        found = testing.run(orders, self.messages({}, {"id": 6}))
        self.assertEqual([type(each) for each in found.verdicts], [drover.decoding.BadBody, type(None)])  # type: ignore[attr-defined]
        found = testing.run(orders_async, self.messages({}, {"id": 6}, {"id": 7}))
        self.assertEqual((found.result, [type(each) for each in found.verdicts][1:]), (13, [type(None)] * 2))
        found = testing.run(orders_async, self.messages({}, {}))
        self.assertEqual(len(found.verdicts), 2)
        self.assertEqual(testing.run(orders_async, self.messages({"id": 6})), 6)

    def test_wrong_number(self) -> None:
        with self.assertRaisesRegex(ValueError, "has 1 verdicts for 2 messages"):
            testing.run(lambda messages: drover.Verdicts([None]), self.messages(b"", b""))

    def test_function_without_a_list(self) -> None:
        with self.assertRaisesRegex(TypeError, r"annotate it list\[Order\]"):
            testing.run(order_async, self.messages(b"", b""))


class TestRequests(unittest.TestCase):
    def test_request(self) -> None:
        def page(message: drover.Message) -> drover.Response:
            p = message.properties
            return drover.Response({"m": p["http_method"], "q": p["http_query"], "p": p["http_params"], "h": message.attributes["X-Key"]}, 201)

        response = testing.run(page, testing.request("POST", "http://h/orders?a=1#x", {"id": 7}, headers={"x-key": "k", "content-type": "a/b"}, params={"id": "7"}))
        self.assertEqual((response.status, response.body), (201, {"m": "POST", "q": "a=1", "p": '{"id": "7"}', "h": "k"}))

    def test_body_that_does_not_fit(self) -> None:
        for function in (order, order_async):
            response = testing.run(function, testing.request("POST", body={"id": "7"}))
            self.assertEqual((response.status, response.body), (400, "the body does not fit Order: id is a string, not a number\n"))

    def test_parts(self) -> None:
        def lines(message: drover.Message) -> Any:
            yield "a\n"
            yield "b\n"

        async def events(message: drover.Message) -> Any:
            yield b"a"
            yield b"b"

        def file(message: drover.Message) -> drover.Response:
            return drover.Response(io.BytesIO(b"ab"), 203, {"X-A": "1"}, "c/d")

        for function, status, content, kind in ((lines, 200, b"a\nb\n", "text/plain; charset=utf-8"), (events, 200, b"ab", "application/octet-stream"), (file, 203, b"ab", "c/d")):
            response = testing.run(function, testing.request())
            self.assertEqual((response.status, response.body, response.properties["content_type"]), (status, content, kind))
        with self.assertRaisesRegex(TypeError, "is a generator function"):
            testing.run(lines, b"")


class TestInALoop(unittest.IsolatedAsyncioTestCase):
    async def test_run_async(self) -> None:
        loop = asyncio.get_running_loop()

        async def same(message: drover.Message) -> bool:
            return asyncio.get_running_loop() is loop

        self.assertTrue(await testing.run_async(same, b""))
        self.assertEqual(await testing.run_async(order, {"id": 7}), {"id": 7, "function": "order"})
        with self.assertRaises(drover.Timeout):
            await testing.run_async(lambda message: asyncio.sleep(600), b"", timeout=0.01)
        with self.assertRaises(drover.Timeout):
            await testing.run_async(lambda message: time.sleep(600), b"", timeout=0.01)


if __name__ == "__main__":
    unittest.main()
