"""Compares what functions of function apps get and return with what the converters of
azure-functions make of the same. Prints what differs, and nothing else."""

import asyncio
import dataclasses
import datetime
import json
import pickle
import struct
import sys
import traceback
import typing
import uuid

import azure.functions as func
from azure.functions.meta import Datum

from drover import Reject, azure_messages, invocations, payloads
from drover.azure import bind
from drover.forms import Misfit
from drover.functions import outcome

UTC = datetime.timezone.utc
QUEUE_ORIGIN = {
    "Id": "8d5f", "DequeueCount": 3, "PopReceipt": "r+1", "InsertionTime": "2026-12-01T02:03:04.000005+00:00",
    "ExpirationTime": "2026-12-08T02:03:04.000000+00:00", "NextVisibleTime": "2026-12-01T02:13:04.000000+00:00",
}  # fmt: skip
BUS_ORIGIN = {
    "MessageId": "m1", "DeliveryCount": 2, "LockToken": "0a0b", "State": 0, "ContentType": "text/plain", "SessionId": "s1", "ReplyTo": "r",
    "ReplyToSessionId": "rs", "To": "t", "Subject": "subject", "Label": "subject", "PartitionKey": "s1", "DeadLetterSource": "orders",
    "DeadLetterReason": "why", "DeadLetterErrorDescription": "text", "CorrelationId": "c", "EnqueuedTime": "2026-12-01T02:03:04.000005+00:00",
    "EnqueuedTimeUtc": "2026-12-01T02:03:04.000005+00:00", "ExpiresAtUtc": "9999-12-31T23:59:59.999999+00:00",
    "LockedUntil": "2026-12-01T02:03:34.000000+00:00", "ScheduledEnqueueTimeUtc": "2026-12-01T02:03:00.000000+00:00", "SequenceNumber": 1 << 55,
    "EnqueuedSequenceNumber": 5, "TimeToLive": "14:02:03", "TransactionPartitionKey": "tp",
    "ApplicationProperties": {"k": "v", "n": 1, "f": 1.5, "b": True}, "UserProperties": {"k": "v", "n": 1, "f": 1.5, "b": True},
}  # fmt: skip
QUEUE = {"type": "queueTrigger", "direction": "IN", "name": "msg", "queueName": "q", "connection": "c"}
BUS = {"type": "serviceBusTrigger", "direction": "IN", "name": "msg", "queueName": "q", "connection": "c"}
HTTP = {"type": "httpTrigger", "direction": "IN", "name": "msg"}
ANSWER = {"type": "http", "direction": "OUT", "name": "$return"}


def invocation(body, origin=None, texts=("id-1", "subject", "key"), attempt=1, number=7):
    encoded = [text.encode() for text in texts]
    meta = b"".join(struct.pack("<I", len(text)) + text for text in encoded)
    return number, 0, body, meta, attempt, 1_700_000_000_000_000, 0, b"" if origin is None else json.dumps(origin).encode()


def request(body=b"", properties=(), headers=()):
    return invocation(body, texts=("6e0c9e5a-0000-4000-8000-000000000001", "/api/x", "", *headers, "", "", *properties))


def bound(call, bindings, outputs=(), **azure):
    return bind({"name": "f", "outputs": list(outputs), "azure": {"name": "f", "bindings": bindings, **azure}}, call, outcome).call


def seen(bindings, given, annotation=None):
    """Returns the argument that a function gets."""
    got = []

    def f(msg):
        got.append(msg)

    if annotation is not None:
        f.__annotations__["msg"] = annotation
    assert bound(f, bindings)(given) is None
    return got[0]


def same(what, got, want):
    if got != want or type(got) is not type(want):
        print(f"{what}: {got!r}, want {want!r}")


def fails(what, kind, want, call):
    try:
        got = call()
    except kind as error:
        if want not in str(error):
            print(f"{what}: {error}; want {want!r}")
    else:
        print(f"{what}: {got!r}; want {kind.__name__}")


def records(payload):
    """Splits the section of a result for named outputs into (index, properties, body), and what follows it."""
    (length,) = struct.unpack_from("<I", payload)
    at, end, found = 4, 4 + length, []

    def cut():
        nonlocal at
        (n,) = struct.unpack_from("<I", payload, at)
        at += 4 + n
        return payload[at - n : at]

    while at < end:
        (index,) = struct.unpack_from("<H", payload, at)
        at += 2
        found.append((index, pairs(cut()), cut()))
    return found, payload[end:]


def pairs(text):
    at, texts = 0, []
    while at < len(text):
        (n,) = struct.unpack_from("<I", text, at)
        texts.append(text[at + 4 : at + 4 + n].decode())
        at += 4 + n
    return dict(zip(texts[::2], texts[1::2]))


def answered(answer):
    """Returns the status, headers and body of an HTTP response."""
    status, payload = answer
    assert status == payloads.OK | payloads.DESCRIBED, status
    (length,) = struct.unpack_from("<I", payload)
    return pairs(payload[4 : 4 + length]), payload[4 + length :]


def check_queue_message():
    given = invocation(b"\xff\x00 body", QUEUE_ORIGIN)
    message = seen([QUEUE], given, func.QueueMessage)
    converted = func.get_binding_registry().get("queueTrigger").decode(Datum(b"\xff\x00 body", "bytes"), trigger_metadata=azure_messages.datums_of(given))
    for name in azure_messages._QUEUE:
        same(name, getattr(message, name), getattr(converted, name))
    same("body", message.get_body(), converted.get_body())
    same("isinstance", isinstance(message, func.QueueMessage) and isinstance(message, type(converted)), True)
    same("repr", repr(message).split(" at ")[0], repr(converted).split(" at ")[0])
    copied = pickle.loads(pickle.dumps(message))
    same("pickled", (type(copied), copied.id, copied.insertion_time, copied.get_body()), (type(converted), "8d5f", message.insertion_time, b"\xff\x00 body"))
    if hasattr(converted, "to_dict"):
        same("to_dict", message.to_dict(), converted.to_dict())
    same("json", seen([QUEUE], invocation(b'{"a": 1}', QUEUE_ORIGIN)).get_json(), {"a": 1})
    kept = seen([QUEUE], invocation(b"x" * 1000, attempt=4))
    same("a kept message", (kept.get_body(), kept.id, kept.dequeue_count, len(kept._invocation[2]) < 100), (b"x" * 1000, "id-1", 4, True))
    same("an unknown attribute", hasattr(kept, "nothing"), False)


def check_queue_message_without_a_source():
    message = seen([QUEUE], invocation(b"x", attempt=2))
    same("id", message.id, "id-1")
    same("dequeue_count", message.dequeue_count, 2)
    same("insertion_time", message.insertion_time, datetime.datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC))
    same("expiration_time", message.expiration_time, None)
    bus = seen([BUS], invocation(b"x", texts=("id-1", "label", "s", "h", "1", "", "", "session_id", "s", "content_type", "text/plain")))
    same("message_id", (bus.message_id, bus.label, bus.session_id, bus.content_type), ("id-1", "label", "s", "text/plain"))
    same("properties", (bus.application_properties, bus.user_properties), ({"h": "1"}, {"h": "1"}))


def check_bus_message():
    given = invocation(b"body", BUS_ORIGIN)
    message = seen([BUS], given, func.ServiceBusMessage)
    converted = func.get_binding_registry().get("serviceBusTrigger").decode(Datum(b"body", "bytes"), trigger_metadata=azure_messages.datums_of(given))
    names = {name for name in dir(type(converted)) if isinstance(getattr(type(converted), name), property)} - {"force_persistence"}
    for name in sorted(names):
        same(name, getattr(message, name), getattr(converted, name))
    missing = names - set(azure_messages._BUS) - {"metadata"}
    if missing:
        print(f"fields of the library that drover does not know: {missing}")
    same("body", message.get_body(), b"body")
    if hasattr(converted, "to_dict"):
        same("to_dict", message.to_dict(), converted.to_dict())
    same("span", seen([BUS], invocation(b"", {"TimeToLive": "5.01:02:03.5000000"})).time_to_live, datetime.timedelta(5, 3723.5))
    same("pickled", pickle.loads(pickle.dumps(message)).application_properties, BUS_ORIGIN["ApplicationProperties"])
    for name in ("correlation_id", "time_to_live", "locked_until", "session_id"):
        same(f"without {name}", getattr(seen([BUS], invocation(b"", {"MessageId": "1"})), name), None)


def check_cardinality_many():
    many = {**BUS, "cardinality": "MANY"}
    for annotation in (typing.List[func.ServiceBusMessage], list[func.ServiceBusMessage], list, None):
        got = seen([many], invocation(b"1", BUS_ORIGIN), annotation)
        same(f"{annotation}", [(m.get_body(), m.message_id, m.metadata["MessageId"]) for m in got], [(b"1", "m1", "m1")])
    same("texts", seen([many], invocation(b"1", BUS_ORIGIN), typing.List[str]), ["1"])


def check_plain_bodies():
    same("str", seen([QUEUE], invocation("é".encode()), str), "é")
    same("bytes", seen([QUEUE], invocation(b"\xff"), bytes), b"\xff")
    same("bytes of Service Bus", seen([BUS], invocation(b"\xff"), bytes), b"\xff")
    fails("no text", Reject, "annotate the parameter bytes", lambda: seen([QUEUE], invocation(b"\xff"), str))
    other = {"type": "natsTrigger", "direction": "IN", "name": "msg"}
    same("another type", seen([other], invocation(b"x")), "x")
    same("another type, binary", seen([{**other, "dataType": "BINARY"}], invocation(b"x")), b"x")
    same("another type, a dict", seen([other], invocation(b'{"a": 1}'), dict), {"a": 1})
    same("another type, returns", bound(lambda msg: "ignored", [other])(invocation(b"x")), None)


def check_timer():
    timer = {"type": "timerTrigger", "direction": "IN", "name": "msg"}
    body = b'{"IsPastDue": true, "Schedule": {"AdjustForDST": true}, "ScheduleStatus": {"Last": "a", "Next": "b", "LastUpdated": "c"}}'
    got = seen([timer], invocation(body), func.TimerRequest)
    want = func.get_binding_registry().get("timerTrigger").decode(Datum(body.decode(), "json"), trigger_metadata={})
    same("timer", (got.past_due, got.schedule_status, got.schedule), (want.past_due, want.schedule_status, want.schedule))
    got = seen([timer], invocation(b'{"IsPastDue": false, "Schedule": {}, "ScheduleStatus": null}'))
    same("no status", (got.past_due, got.schedule_status, isinstance(got, func.TimerRequest)), (False, {}, True))
    same("by hand", seen([timer], invocation(b"")).past_due, False)


def check_request():
    given = request(
        b'{"a": 1}',
        ("http_method", "post", "http_url", "http://h/api/x?a=1&b=&a=2&c=%20+", "http_query", "a=1&b=&a=2&c=%20+", "http_params", '{"id": "3"}'),
        ("Host", "h", "X-Twice", "1", "X-Twice", "2", "Content-Type", "application/json", "X-Empty", "", "Cookie", "a=1", "Cookie", "b=2"),
    )
    got = seen([HTTP], given, func.HttpRequest)
    want = azure_messages._by_converter("httpTrigger")(given)
    for name in ("method", "url"):
        same(name, getattr(got, name), getattr(want, name))
    for name in ("headers", "params", "route_params"):
        same(name, dict(getattr(got, name)), dict(getattr(want, name)))
    same("header", (got.headers["x-TWICE"], got.headers.get("cookie"), got.headers.get("x-empty")), ("1,2", "a=1; b=2", None))
    same("params", dict(got.params), {"a": "1,2", "c": "  "})
    same("method", (got.method, got.get_json(), got.get_body()), ("POST", {"a": 1}, b'{"a": 1}'))
    same("id", invocations.ids.pop(7), "6e0c9e5a-0000-4000-8000-000000000001")
    form = request(
        b'--B\r\nContent-Disposition: form-data; name="n"\r\n\r\nann\r\n--B\r\nContent-Disposition: form-data; name="f"; filename="f.txt"\r\n\r\n\x00\x01\x02\r\n--B--\r\n',
        ("http_method", "POST"),
        ("Content-Type", "multipart/form-data; boundary=B"),
    )
    got = seen([HTTP], form)
    same("form", (got.form["n"], got.files["f"].filename, got.files["f"].read()), ("ann", "f.txt", b"\0\1\2"))
    invocations.ids.clear()


def check_responses():
    def of(value):
        return answered(bound(lambda msg: value, [HTTP, ANSWER])(request()))

    same("str", of("é"), ({"http_status": "200", "content_type": "text/plain; charset=utf-8"}, "é".encode()))
    same("response", of(func.HttpResponse("x")), ({"http_status": "200", "content_type": "text/plain; charset=utf-8"}, b"x"))
    same("json", of(func.HttpResponse("{}", mimetype="application/json")), ({"http_status": "200", "content_type": "application/json"}, b"{}"))
    same("no body", of(func.HttpResponse(status_code=204)), ({"http_status": "204", "content_type": "text/plain; charset=utf-8"}, b""))
    same("content type", of(func.HttpResponse(b"\0", headers={"Content-Type": "image/png"}))[0]["content_type"], "image/png")
    response = func.HttpResponse("two", status_code=201, headers={"X": "1"})
    response.headers.add("Set-Cookie", "a=1; Path=/; HttpOnly")
    response.headers.add("Set-Cookie", "b=2; Max-Age=60; SameSite=Lax")
    about, body = of(response)
    same("status", (about["http_status"], body), ("201", b"two"))
    same("headers", json.loads(about["http_headers"]), [["X", "1"], ["Set-Cookie", "a=1; Path=/; HttpOnly"], ["Set-Cookie", "b=2; Max-Age=60; SameSite=Lax"]])
    for value, what in ((None, "None"), ({"a": 1}, "a dict"), (b"x", "a bytes")):
        fails(what, TypeError, f"function f returned {what}, which is not an HTTP response; return func.HttpResponse(...) or a str", lambda value=value: of(value))
    out = {"type": "http", "direction": "out", "name": "res"}

    def by_out(msg, res):
        res.set(func.HttpResponse("out"))

    same("out", answered(bound(by_out, [HTTP, out])(request()))[1], b"out")
    same("nothing set", bound(lambda msg, res: None, [HTTP, out])(request()), None)
    invocations.ids.clear()


def check_outputs():
    out, returned = {"type": "queue", "direction": "OUT", "name": "out"}, {"type": "queue", "direction": "OUT", "name": "$return"}

    @dataclasses.dataclass
    class Data:
        a: int

    def of(value):
        answer = bound(lambda msg: value, [QUEUE, returned], ["$return"])(invocation(b"x"))
        if answer is None:
            return None
        assert answer[0] == payloads.OK | payloads.SENT, answer
        found, rest = records(answer[1])
        assert rest == b"" and all(index == 0 and not about for index, about, _ in found), answer
        return [body for _, _, body in found]

    for what, value, want in (
        ("None", None, None),
        ("str", "a", [b"a"]),
        ("a JSON array", '["a", "b"]', [b'["a", "b"]']),
        ("empty", "", [b""]),
        ("bytes", b"\xff", [b"\xff"]),
        ("a message", func.QueueMessage(body="x", id="1"), [b"x"]),
        ("a message of bytes", func.QueueMessage(body=b"\xff"), [b"\xff"]),
        ("list", ["a", b"b", func.QueueMessage(body="c")], [b"a", b"b", b"c"]),
        ("no list", [], None),
        ("tuple", ("a", "b"), [b"a", b"b"]),
        ("generator", (c for c in "ab"), [b"a", b"b"]),
        ("dict", {"a": 1}, [b'{"a":1}']),
        ("dicts", [{"a": 1}, {"b": [2]}], [b'{"a":1}', b'{"b":[2]}']),
        ("number", 7, [b"7"]),
        ("dataclass", Data(1), [b'{"a":1}']),
        ("dataclasses", [Data(1), Data(2)], [b'{"a":1}', b'{"a":2}']),
        ("keys", {"a": 1}.keys(), [b"a"]),
    ):
        same(what, of(value), want)
    fails("an object", TypeError, "the output $return got an object, which cannot be sent", lambda: of([object()]))
    fails("None in a list", TypeError, "with None in it", lambda: of(["a", None]))

    def both(msg, out, context):
        out.set("first")
        out.set(["b", "c"])
        same("get", out.get(), ["b", "c"])
        return "a"

    _, payload = bound(both, [out, QUEUE, returned], ["$return", "out"])(invocation(b"x"))
    same("both", records(payload), ([(1, {}, b"b"), (1, {}, b"c"), (0, {}, b"a")], b""))
    _, payload = bound(lambda msg, out: out.set("1") or "answer", [HTTP, ANSWER, out], ["out"])(request())
    found, rest = records(payload)
    same("with a response", (found, rest[-6:]), ([(0, {}, b"1")], b"answer"))
    same("out is an Out", isinstance(_out_of(out), func.Out), True)
    fails("no $return", RuntimeError, "function f returned a str, but has no output $return", lambda: bound(lambda msg: "x", [QUEUE])(invocation(b"")))
    fails("an output that LOAD lacks", Misfit, "its output out is not among those of the configuration: other", lambda: bound(both, [QUEUE, out], ["other"]))
    invocations.ids.clear()


def _out_of(out):
    got = []
    bound(lambda msg, out: got.append(out), [QUEUE, out], ["out"])(invocation(b""))
    return got[0]


def check_messages_for_service_bus():
    topic = {"type": "serviceBus", "direction": "out", "name": "$return"}

    def of(value):
        return records(bound(lambda msg: value, [QUEUE, topic], ["$return"])(invocation(b"x"))[1])[0]

    same("str", of("a"), [(0, {"session_id": ""}, b"a")])
    same("message of azure.functions", of(func.QueueMessage(body="q")), [(0, {"session_id": ""}, b"q")])
    received = seen([BUS], invocation(b"body", BUS_ORIGIN))
    (_, about, body), = of(received)
    same("a received one", (about["message_id"], about["session_id"], about["attribute:n"], body), ("m1", "s1", "1", b"body"))
    from azure.servicebus import ServiceBusMessage

    at = datetime.datetime(2026, 12, 1, 15, 4, 5, 250000)
    full = ServiceBusMessage(
        "é", session_id="s", message_id="m", content_type="c/t", correlation_id="co", subject="su", partition_key="s", to="to", reply_to="r",
        reply_to_session_id="rs", scheduled_enqueue_time_utc=at, time_to_live=datetime.timedelta(minutes=1, seconds=30),
        application_properties={"t": "x", b"bytes": b"y", "n": 7, "f": 1.5, "b": True, "u": uuid.UUID(int=5), "at": at},
    )  # fmt: skip
    want = {
        "session_id": "s", "message_id": "m", "content_type": "c/t", "correlation_id": "co", "subject": "su", "partition_key": "s", "to": "to",
        "reply_to": "r", "reply_to_session": "rs", "scheduled_at": "2026-12-01T15:04:05.250000+00:00", "time_to_live": "90",
        "attribute:t": "x", "attribute:bytes": "y", "attribute:n": "7", "attribute:f": "1.5", "attribute:b": "true",
        "attribute:u": str(uuid.UUID(int=5)), "attribute:at": "2026-12-01T15:04:05.250000", "application_properties": '{"n": 7, "f": 1.5, "b": true}',
    }  # fmt: skip
    same("the SDK's message", of(full), [(0, want, "é".encode())])
    (_, first, body), second = of([ServiceBusMessage(b"\xff", session_id="a"), "b"])
    same("a list", (first["session_id"], body, second), ("a", b"\xff", (0, {"session_id": ""}, b"b")))
    same("no body", of(ServiceBusMessage(None))[0][2], b"")
    east = ServiceBusMessage("x", scheduled_enqueue_time_utc=datetime.datetime(2026, 12, 1, 17, tzinfo=datetime.timezone(datetime.timedelta(hours=2))))
    same("another zone", of(east)[0][1]["scheduled_at"], "2026-12-01T15:00:00+00:00")
    odd = ServiceBusMessage("x", application_properties={"k": [1]})
    fails("a property", TypeError, "the application property k is a list", lambda: of(odd))


def check_annotations_of_outputs():
    from azure.servicebus import ServiceBusMessage

    from drover.function_checks import check

    for kind in ("queue", "serviceBus"):
        out = {"type": kind, "direction": "OUT", "name": "out"}
        for annotation in (
            str, bytes, dict, func.QueueMessage, ServiceBusMessage, typing.List[str], typing.List[ServiceBusMessage], list[ServiceBusMessage],
            typing.List[typing.Union[str, bytes]], typing.Iterable[str],
        ):  # fmt: skip

            def f(msg, out):
                pass

            f.__annotations__["out"] = func.Out[annotation]
            same(f"{kind}, {annotation}", check(f, [QUEUE, out], "decorator"), [])

        def g(msg):
            pass

        for annotation in (typing.Generator[str, None, None], ServiceBusMessage, typing.List[dict]):
            g.__annotations__["return"] = annotation
            same(f"{kind}, returns {annotation}", check(g, [QUEUE, {**out, "name": "$return"}], "decorator"), [])


def check_annotations_of_requests():
    from azurefunctions.extensions.http.fastapi import Request, StreamingResponse

    from drover.function_checks import check

    def f(msg: Request) -> StreamingResponse:
        pass

    def g(msg: Request) -> dict:
        pass

    same("a request of FastAPI", (check(f, [HTTP, ANSWER], "decorator"), check(g, [HTTP, ANSWER], "decorator")), ([], []))
    same("of a queue", len(check(f, [QUEUE], "decorator")), 1)


def check_context():
    got = []

    def f(msg, context):
        got.append(context)

    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    call = bound(f, [QUEUE], retry={"strategy": "fixed_delay"}, max_attempts=4, directory="/app")
    call(invocation(b"", attempt=3, texts=("1", "", "", "traceparent", trace, "tracestate", "a=b")))
    call(invocation(b"", number=8))
    first, second = got
    same("name", (first.function_name, first.function_directory), ("f", "/app"))
    same("trace", (first.trace_context.trace_parent, first.trace_context.trace_state, first.trace_context.Traceparent), (trace, "a=b", trace))
    same("no trace", (second.trace_context.trace_parent, second.trace_context.trace_state, second.trace_context.attributes), ("", "", {}))
    same("retry", (first.retry_context.retry_count, first.retry_context.max_retry_count, first.retry_context.exception.message), (2, 3, ""))
    same("the first attempt", second.retry_context.retry_count, 0)
    same("a UUID", str(uuid.UUID(first.invocation_id)), first.invocation_id)
    same("its own", first.invocation_id != second.invocation_id and uuid.UUID(first.invocation_id).version == 4, True)
    first.thread_local_storage.invocation_id = second.invocation_id
    same("a thread's choice", invocations.find(-1), (8, second.invocation_id))
    del first.thread_local_storage.invocation_id
    same("no choice", invocations.find(-1), (-1, ""))
    same("of a call", invocations.find(7), (7, first.invocation_id))
    bound(f, [QUEUE], max_attempts=4)(invocation(b"", attempt=3))
    same("without a policy", (got[-1].retry_context.retry_count, got[-1].retry_context.max_retry_count), (0, 0))
    binding = {**QUEUE, "name": "context"}
    bound(lambda context: got.append(context), [binding])(invocation(b"body", QUEUE_ORIGIN))
    same("a binding with that name", got[-1].get_body(), b"body")
    bound(lambda msg, context: got.append(context), [HTTP, ANSWER])  # the request's ID is the invocation's

    def g(msg, context):
        got.append(context.invocation_id)
        return ""

    bound(g, [HTTP, ANSWER])(request())
    same("of a request", got[-1], "6e0c9e5a-0000-4000-8000-000000000001")
    invocations.ids.clear()


def check_forms_of_functions():
    returned = {"type": "queue", "direction": "OUT", "name": "$return"}

    def of(call):
        answer = bound(call, [QUEUE, returned], ["$return"])(invocation(b"x", QUEUE_ORIGIN))
        if hasattr(answer, "__await__"):
            answer = asyncio.run(_await(answer))
        return records(answer[1])[0][0][2]

    async def asynchronous(msg: str):
        await asyncio.sleep(0)
        return "async " + msg

    class Instance:
        def __call__(self, msg: str):
            return "called " + msg

    def by_name(*args, **kwargs):
        """As decorators of apps are written, which know that arguments have names."""
        return "named " + kwargs["msg"].get_body().decode()

    by_name.__wrapped__ = lambda msg: None

    same("async", of(asynchronous), b"async x")
    same("returns a coroutine", of(lambda msg: asynchronous(msg.get_body().decode())), b"async x")
    same("named", of(by_name), b"named x")
    same("instance", of(Instance()), b"called x")
    same("async with a context", bind({"name": "f", "azure": {"bindings": [QUEUE]}}, asynchronous, outcome).is_async, True)

    def raises(msg):
        raise ValueError("of the function")

    fails("raises", ValueError, "of the function", lambda: of(raises))


async def _await(value):
    return await value


for name, check in list(globals().items()):
    if name.startswith("check_"):
        try:
            check()
        except Exception:
            print(name)
            traceback.print_exc(file=sys.stdout)
