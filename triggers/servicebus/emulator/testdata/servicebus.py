"""The Service Bus SDK for Python against the emulator."""

import datetime
import threading
import time
import uuid

from azure.servicebus import (
    AutoLockRenewer,
    NEXT_AVAILABLE_SESSION,
    ServiceBusClient,
    ServiceBusMessage,
    ServiceBusMessageState,
    ServiceBusReceiveMode,
    ServiceBusSubQueue,
)
from azure.servicebus.aio import ServiceBusClient as AsyncClient
from azure.servicebus.amqp import (
    AmqpAnnotatedMessage,
    AmqpMessageBodyType,
    AmqpMessageHeader,
    AmqpMessageProperties,
)
from azure.servicebus.exceptions import (
    MessageAlreadySettled,
    MessageLockLostError,
    MessageNotFoundError,
    MessageSizeExceededError,
    MessagingEntityDisabledError,
    OperationTimeoutError,
    ServiceBusAuthenticationError,
    ServiceBusError,
    SessionCannotBeLockedError,
    SessionLockLostError,
)

from checks import CONNECTION, check, entity, main, raises, same

WAIT = 30  # seconds for what must come


def client(**options):
    return ServiceBusClient.from_connection_string(CONNECTION, retry_total=0, **options)


def send(path, *messages, **options):
    with client() as c, c.get_queue_sender(path) as sender:
        sender.send_messages(list(messages), **options)


def bodies(messages):
    return [str(m) for m in messages]


def receive(receiver, count):
    """Receives exactly count messages."""
    got = []
    deadline = time.monotonic() + WAIT
    while len(got) < count and time.monotonic() < deadline:
        got += receiver.receive_messages(count - len(got), max_wait_time=5)
    same(len(got), count)
    return got


def none_left(receiver):
    same(bodies(receiver.receive_messages(1, max_wait_time=0.5)), [])


@check
def every_way_to_settle():
    path = entity("settle")
    send(path, *[ServiceBusMessage(x) for x in ("complete", "abandon", "dead", "defer")])
    with client() as c, c.get_queue_receiver(path) as receiver:
        complete, abandon, dead, defer = receive(receiver, 4)
        receiver.complete_message(complete)
        receiver.abandon_message(abandon)
        receiver.dead_letter_message(dead, reason="broken", error_description="no such order")
        receiver.defer_message(defer)
        (again,) = receive(receiver, 1)
        same((str(again), again.delivery_count), ("abandon", 1))
        receiver.complete_message(again)
        raises(MessageAlreadySettled, receiver.complete_message, again)
        none_left(receiver)

        (deferred,) = receiver.receive_deferred_messages(defer.sequence_number)
        same((str(deferred), deferred.state), ("defer", ServiceBusMessageState.DEFERRED))
        receiver.abandon_message(deferred)
        (deferred,) = receiver.receive_deferred_messages([defer.sequence_number])
        receiver.renew_message_lock(deferred)
        receiver.complete_message(deferred)
        raises(MessageNotFoundError, receiver.receive_deferred_messages, defer.sequence_number)

        with c.get_queue_receiver(path, sub_queue=ServiceBusSubQueue.DEAD_LETTER) as letters:
            (letter,) = receive(letters, 1)
            same(str(letter), "dead")
            same((letter.dead_letter_reason, letter.dead_letter_error_description), ("broken", "no such order"))
            same(letter.dead_letter_source, None)
            same(letter.delivery_count, 0)
            letters.complete_message(letter)


@check
def receive_and_delete():
    path = entity("delete")
    send(path, *[ServiceBusMessage(str(i)) for i in range(20)])
    with client() as c:
        with c.get_queue_receiver(path, receive_mode=ServiceBusReceiveMode.RECEIVE_AND_DELETE) as receiver:
            same(sorted(map(int, bodies(receive(receiver, 20)))), list(range(20)))
        with c.get_queue_receiver(path) as receiver:
            same(receiver.peek_messages(1), [])


@check
def iterating_over_a_receiver():
    path = entity("iterate")
    send(path, *[ServiceBusMessage(str(i)) for i in range(10)])
    with client() as c, c.get_queue_receiver(path, max_wait_time=2, prefetch_count=5) as receiver:
        got = []
        for message in receiver:
            got.append(str(message))
            receiver.complete_message(message)
        same(got, [str(i) for i in range(10)])


@check
def deliveries_run_out():
    path = entity("limited", MaxDeliveryCount=2)
    send(path, ServiceBusMessage("x"))
    with client() as c, c.get_queue_receiver(path) as receiver:
        for attempt in range(2):
            (message,) = receive(receiver, 1)
            same(message.delivery_count, attempt)
            receiver.abandon_message(message)
        with c.get_queue_receiver(path, sub_queue="deadletter") as letters:
            (letter,) = receive(letters, 1)
            same(letter.dead_letter_reason, "MaxDeliveryCountExceeded")
            letters.complete_message(letter)


@check
def sessions():
    path = entity("sessions", RequiresSession="true")
    send(path, *[ServiceBusMessage(f"{s}{i}", session_id=s) for i in range(3) for s in ("a", "b")])
    with client() as c:
        with c.get_queue_receiver(path, session_id="b") as receiver:
            same(receiver.session.session_id, "b")
            same(receiver.session.get_state(), None)
            receiver.session.set_state("half")
            same(receiver.session.get_state(), b"half")
            before = receiver.session.locked_until_utc
            assert receiver.session.renew_lock() >= before
            with client() as other:
                raises(SessionCannotBeLockedError, other.get_queue_receiver(path, session_id="b").__enter__)
            got = receive(receiver, 3)
            same(bodies(got), ["b0", "b1", "b2"])
            same({m.session_id for m in got}, {"b"})
            receiver.complete_message(got[0])
            receiver.defer_message(got[1])
            receiver.dead_letter_message(got[2], reason="no")
            (deferred,) = receiver.receive_deferred_messages(got[1].sequence_number)
            receiver.complete_message(deferred)
            receiver.session.set_state(None)
            same(receiver.session.get_state(), None)
        with c.get_queue_receiver(path, session_id=NEXT_AVAILABLE_SESSION) as receiver:
            same(receiver.session.session_id, "a")
            same(bodies(receiver.peek_messages(5)), ["a0", "a1", "a2"])
            for message in receive(receiver, 3):
                receiver.complete_message(message)
        raises(OperationTimeoutError, c.get_queue_receiver(path, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=1).__enter__)
        with c.get_queue_sender(path) as sender:
            raises(ServiceBusError, sender.send_messages, ServiceBusMessage("without"))
        with c.get_queue_receiver(path, sub_queue=ServiceBusSubQueue.DEAD_LETTER) as letters:
            (letter,) = receive(letters, 1)
            same((str(letter), letter.session_id), ("b2", "b"))
            letters.complete_message(letter)


@check
def a_session_lock_ends():
    path = entity("short-session", RequiresSession="true", LockDuration="PT1S")
    send(path, ServiceBusMessage("x", session_id="s"))
    with client() as c, c.get_queue_receiver(path, session_id="s") as receiver:
        (message,) = receive(receiver, 1)
        with c.get_queue_receiver(path, session_id=NEXT_AVAILABLE_SESSION) as next_one:  # waits until the lock ends
            (again,) = receive(next_one, 1)
            raises(SessionLockLostError, receiver.complete_message, message)
            next_one.complete_message(again)


@check
def a_message_lock_ends():
    path = entity("short", LockDuration="PT1S")
    send(path, ServiceBusMessage("x"))
    with client() as c, c.get_queue_receiver(path) as receiver:
        (message,) = receive(receiver, 1)
        (again,) = receive(receiver, 1)
        same(again.delivery_count, 1)
        raises(MessageLockLostError, receiver.complete_message, message)
        receiver.complete_message(again)


@check
def locks_are_renewed():
    path = entity("renewed", LockDuration="PT10S")
    send(path, ServiceBusMessage("x"))
    with client() as c, c.get_queue_receiver(path) as receiver, AutoLockRenewer(max_lock_renewal_duration=WAIT) as renewer:
        (message,) = receive(receiver, 1)
        first = message.locked_until_utc
        renewer.register(receiver, message)
        deadline = time.monotonic() + WAIT
        while message.locked_until_utc <= first and time.monotonic() < deadline:
            time.sleep(0.02)
        assert message.locked_until_utc > first
        receiver.complete_message(message)


@check
def scheduling():
    path = entity("scheduled")
    later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
    with client() as c, c.get_queue_sender(path) as sender, c.get_queue_receiver(path) as receiver:
        numbers = sender.schedule_messages([ServiceBusMessage("a", message_id="1"), ServiceBusMessage("b")], later)
        same(len(numbers), 2)
        a, b = receiver.peek_messages(10)
        same([m.state for m in (a, b)], [ServiceBusMessageState.SCHEDULED] * 2)
        same(([a.sequence_number, b.sequence_number], a.message_id), (numbers, "1"))
        assert abs(a.scheduled_enqueue_time_utc - later) < datetime.timedelta(seconds=1)
        sender.cancel_scheduled_messages(numbers)
        same(receiver.peek_messages(10), [])
        raises(MessageNotFoundError, sender.cancel_scheduled_messages, numbers[0])
        soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=1)
        sender.send_messages(ServiceBusMessage("sent", scheduled_enqueue_time_utc=soon))
        (got,) = receive(receiver, 1)
        assert datetime.datetime.now(datetime.timezone.utc) >= soon.replace(microsecond=0)
        receiver.complete_message(got)


@check
def peeking():
    path = entity("peek")
    send(path, *[ServiceBusMessage(str(i)) for i in range(30)])
    with client() as c, c.get_queue_receiver(path) as receiver:
        same(bodies(receiver.peek_messages(10)), [str(i) for i in range(10)])
        same(bodies(receiver.peek_messages(10)), [str(i) for i in range(10, 20)])
        same(bodies(receiver.peek_messages(3, sequence_number=1)), ["0", "1", "2"])
        same(len(receive(receiver, 30)), 30)
        same(len(receiver.peek_messages(100, sequence_number=1)), 30)  # locked ones too


@check
def peeking_at_large_messages():
    path = entity("large")
    for i in range(6):
        send(path, ServiceBusMessage(str(i) * 100_000))
    with client() as c, c.get_queue_receiver(path) as receiver:
        seen = []
        while page := receiver.peek_messages(10):
            seen += page
        same([str(m)[:1] for m in seen], list("012345"))
        for message in receive(receiver, 6):
            receiver.defer_message(message)
        same(len(receiver.receive_deferred_messages([m.sequence_number for m in seen])), 6)


@check
def a_message_may_be_too_large():
    path = entity("size")
    with client() as c, c.get_queue_sender(path) as sender:
        raises(MessageSizeExceededError, sender.send_messages, ServiceBusMessage("x" * 300_000))
        sender.send_messages(ServiceBusMessage("fits " + "x" * 261_000))
        batch = sender.create_message_batch()
        raises(MessageSizeExceededError, batch.add_message, ServiceBusMessage("x" * 300_000))
        count = 0
        try:
            while True:
                batch.add_message(ServiceBusMessage("x" * 1000))
                count += 1
        except MessageSizeExceededError:
            pass
        assert count > 200, count
        sender.send_messages(batch)
    with client() as c, c.get_queue_receiver(path) as receiver:
        got = receive(receiver, 1 + count)
        same(len(str(got[0])), 261_005)


@check
def topics():
    entity("news", kind="Topic")
    for name in ("a", "b"):
        entity("news/Subscriptions/" + name, kind="Subscription")
    with client() as c:
        with c.get_topic_sender("news") as sender:
            sender.send_messages([ServiceBusMessage("1"), ServiceBusMessage("2")])
            later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
            numbers = sender.schedule_messages(ServiceBusMessage("never"), later)
            sender.cancel_scheduled_messages(numbers)
        for name in ("a", "b"):
            with c.get_subscription_receiver("news", name) as receiver:
                first, second = receive(receiver, 2)
                same(bodies([first, second]), ["1", "2"])
                receiver.complete_message(first)
                receiver.dead_letter_message(second, reason=name)
                same(receiver.peek_messages(10, sequence_number=1), [])
            with c.get_subscription_receiver("news", name, sub_queue=ServiceBusSubQueue.DEAD_LETTER) as letters:
                (letter,) = receive(letters, 1)
                same(letter.dead_letter_reason, name)
                letters.complete_message(letter)


@check
def every_system_property():
    path = entity("system")
    ttl = datetime.timedelta(hours=2)
    sent = ServiceBusMessage(
        b"body", content_type="application/json", correlation_id="c1", message_id="m1", partition_key="p1",
        reply_to="answers", reply_to_session_id="rs", session_id="p1", subject="s", time_to_live=ttl, to="t",
    )
    send(path, sent)
    with client() as c, c.get_queue_receiver(path) as receiver:
        (got,) = receive(receiver, 1)
        for name in ("content_type", "correlation_id", "message_id", "partition_key", "reply_to",
                     "reply_to_session_id", "session_id", "subject", "time_to_live", "to"):
            same(getattr(got, name), getattr(sent, name))
        same(b"".join(got.body), b"body")
        same(got.expires_at_utc, got.enqueued_time_utc + ttl)
        same((got.sequence_number, got.enqueued_sequence_number), (1, None))
        assert got.locked_until_utc > got.enqueued_time_utc
        assert isinstance(got.lock_token, uuid.UUID)
        receiver.abandon_message(got)
        (got,) = receive(receiver, 1)
        same((got.content_type, got.correlation_id, got.delivery_count), ("application/json", "c1", 1))


@check
def ids_of_any_type():
    path = entity("ids")
    ids = [77, 2**63, uuid.UUID(int=7), b"\x01\x02raw", "text", "é\n<&>"]
    with client() as c, c.get_queue_sender(path) as sender:
        for i in ids:
            sender.send_messages(AmqpAnnotatedMessage(data_body=b"x", properties=AmqpMessageProperties(message_id=i, correlation_id=i)))
    with client() as c, c.get_queue_receiver(path) as receiver:
        got = [m.raw_amqp_message.properties for m in receive(receiver, len(ids))]
        encode = lambda v: v.encode() if isinstance(v, str) else v  # the SDK gives raw text as bytes
        for want, properties in zip(ids, got):
            same(encode(properties.message_id), encode(want))
            same(encode(properties.correlation_id), encode(want))


@check
def properties_of_every_type():
    path = entity("types")
    values = {
        "null": None, "true": True, "false": False, "int": 1, "negative": -5, "least": -(2**31),
        "double": 1.5, "text": "grüße\r\n", "empty": "", "uuid": uuid.UUID(int=9),
        "time": datetime.datetime(2024, 2, 29, 12, 30, 15, 250000, datetime.timezone.utc),
    }
    typed = {
        "ubyte": ("UBYTE", 255), "byte": ("BYTE", -7), "ushort": ("USHORT", 65535), "short": ("SHORT", -300),
        "uint": ("UINT", 2**32 - 1), "ulong": ("ULONG", 2**64 - 1), "float": ("FLOAT", 0.25), "long": ("LONG", -(2**63)), "symbol": ("SYMBOL", b"sym"),
    }
    sent = dict(values)
    for name, (kind, value) in typed.items():
        sent[name] = {"TYPE": kind, "VALUE": value}
    send(path, ServiceBusMessage("x", application_properties=sent))
    with client() as c, c.get_queue_receiver(path) as receiver:
        (message,) = receive(receiver, 1)
        _typed_properties(message, values, typed)
        receiver.dead_letter_message(message, reason="r")  # the section is written anew
        with c.get_queue_receiver(path, sub_queue="deadletter") as letters:
            (message,) = receive(letters, 1)
            _typed_properties(message, values, typed)
            letters.complete_message(message)


def _typed_properties(message, values, typed):
    got = {k.decode() if isinstance(k, bytes) else k: v for k, v in message.application_properties.items()}
    for name, want in values.items():
        have = got[name]
        if isinstance(want, str):
            want = want.encode()
        if isinstance(want, datetime.datetime):
            want = int(want.timestamp() * 1000)
        same((name, have), (name, want))
    for name, (_, want) in typed.items():
        same((name, got[name]), (name, want))


@check
def bodies_of_every_kind():
    path = entity("bodies")
    with client() as c, c.get_queue_sender(path) as sender:
        sender.send_messages(AmqpAnnotatedMessage(data_body=[b"one", b"two"]))
        sender.send_messages(AmqpAnnotatedMessage(value_body={"a": [1, -2, None, {"deep": b"x"}]}, footer={"f": 1}))
        sender.send_messages(AmqpAnnotatedMessage(sequence_body=[["a", 1], [2.5]]))
        sender.send_messages(AmqpAnnotatedMessage(
            data_body=b"h", header=AmqpMessageHeader(durable=True, priority=7), annotations={"mine": "kept", "n": 5},
        ))
    with client() as c, c.get_queue_receiver(path) as receiver:
        data, value, sequence, annotated = receive(receiver, 4)
        same((data.body_type, list(data.body)), (AmqpMessageBodyType.DATA, [b"one", b"two"]))
        same((value.body_type, value.body), (AmqpMessageBodyType.VALUE, {b"a": [1, -2, None, {b"deep": b"x"}]}))
        same(value.raw_amqp_message.footer, {b"f": 1})
        same((sequence.body_type, list(sequence.body)), (AmqpMessageBodyType.SEQUENCE, [[b"a", 1], [2.5]]))
        raw = annotated.raw_amqp_message
        same((raw.header.durable, raw.header.priority), (True, 7))
        same((raw.annotations[b"mine"], raw.annotations[b"n"]), (b"kept", 5))


@check
def time_to_live_ends():
    path = entity("ttl", DeadLetteringOnMessageExpiration="true")
    send(path, ServiceBusMessage("x", time_to_live=datetime.timedelta(seconds=1)))
    with client() as c, c.get_queue_receiver(path, sub_queue="deadletter") as letters:
        (letter,) = receive(letters, 1)
        same(letter.dead_letter_reason, "TTLExpiredException")
        letters.complete_message(letter)


@check
def duplicates_of_any_id():
    path = entity("once", RequiresDuplicateDetection="true")
    with client() as c, c.get_queue_sender(path) as sender:
        for i in ("a", "a", 1, 1, "1"):
            sender.send_messages(AmqpAnnotatedMessage(data_body=b"x", properties=AmqpMessageProperties(message_id=i)))
    with client() as c, c.get_queue_receiver(path) as receiver:
        same(len(receive(receiver, 3)), 3)
        none_left(receiver)


@check
def what_is_missing_or_disabled():
    with client() as c:
        # The service refuses the token, so that is what the SDK reports for a missing entity.
        raises(ServiceBusAuthenticationError, c.get_queue_sender("nowhere").__enter__)
        raises(ServiceBusAuthenticationError, c.get_queue_receiver("nowhere").__enter__)
        path = entity("closed", Status="Disabled")
        raises(MessagingEntityDisabledError, c.get_queue_sender(path).__enter__)


@check
def a_receiver_that_waits():
    path = entity("waiting")
    with client() as c, c.get_queue_receiver(path) as receiver:
        got = []
        waiting = threading.Thread(target=lambda: got.extend(receiver.receive_messages(1, max_wait_time=WAIT)))
        waiting.start()
        send(path, ServiceBusMessage("late"))
        waiting.join()
        same(bodies(got), ["late"])


@check
async def the_async_client():
    path, ordered = entity("aio"), entity("aio-sessions", RequiresSession="true")
    async with AsyncClient.from_connection_string(CONNECTION, retry_total=0) as c:
        async with c.get_queue_sender(path) as sender:
            batch = await sender.create_message_batch()
            for text in ("complete", "abandon", "dead", "defer"):
                batch.add_message(ServiceBusMessage(text))
            await sender.send_messages(batch)
            later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
            await sender.cancel_scheduled_messages(await sender.schedule_messages(ServiceBusMessage("never"), later))
        async with c.get_queue_receiver(path, max_wait_time=3) as receiver:
            same(bodies(await receiver.peek_messages(10)), ["complete", "abandon", "dead", "defer"])
            got = {}
            while len(got) < 4:
                got.update((str(m), m) for m in await receiver.receive_messages(4, max_wait_time=WAIT))
            await receiver.complete_message(got["complete"])
            await receiver.abandon_message(got["abandon"])
            await receiver.dead_letter_message(got["dead"], reason="r")
            await receiver.defer_message(got["defer"])
            (deferred,) = await receiver.receive_deferred_messages(got["defer"].sequence_number)
            await receiver.complete_message(deferred)
            async for message in receiver:
                same(str(message), "abandon")
                await receiver.renew_message_lock(message)
                await receiver.complete_message(message)
        async with c.get_queue_receiver(path, sub_queue=ServiceBusSubQueue.DEAD_LETTER) as letters:
            (letter,) = await letters.receive_messages(1, max_wait_time=WAIT)
            same((str(letter), letter.dead_letter_reason), ("dead", "r"))
            await letters.complete_message(letter)
        async with c.get_queue_sender(ordered) as sender:
            await sender.send_messages(ServiceBusMessage("x", session_id="s"))
        async with c.get_queue_receiver(ordered, session_id=NEXT_AVAILABLE_SESSION) as receiver:
            same(receiver.session.session_id, "s")
            await receiver.session.set_state(b"state")
            same(await receiver.session.get_state(), b"state")
            await receiver.session.renew_lock()
            (message,) = await receiver.receive_messages(1, max_wait_time=WAIT)
            await receiver.complete_message(message)


if __name__ == "__main__":
    main(at_once=8)  # the SDK takes a second to connect
