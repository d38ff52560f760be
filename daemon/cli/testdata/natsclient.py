"""nats-py against the embedded server of a daemon. Arguments: its URL, its token."""

import asyncio
import json
import sys

import nats
from nats.js.errors import NoKeysError, NotFoundError

from checks import CONNECTION, check, main, same

WAIT = 60  # seconds for what must come
TOKEN = sys.argv[2]


def connect():
    return nats.connect(CONNECTION, token=TOKEN, connect_timeout=WAIT)


async def pull(js, subject, stream, count):
    """Takes exactly count messages from a stream."""
    subscription = await js.pull_subscribe(subject, durable="reader", stream=stream)
    got = []
    while len(got) < count:
        got += await subscription.fetch(count - len(got), timeout=WAIT)
    for message in got:
        await message.ack()
    await subscription.unsubscribe()
    return got


@check
async def no_token_no_entry():
    try:
        await nats.connect(CONNECTION, allow_reconnect=False, connect_timeout=WAIT)
    except nats.errors.Error as error:
        assert "Authorization" in str(error), error
    else:
        raise AssertionError("connected without the token")


@check
async def publishing_and_results():
    async with await connect() as nc:
        js = nc.jetstream()
        await js.add_stream(name="RECEIPTS", subjects=["receipts"])
        await nc.publish("orders.plain", b"core")  # without a confirmation
        await nc.flush()
        (result,) = await pull(js, "receipts", "RECEIPTS", 1)
        same(result.data, b"core\x00/None")
        ack = await js.publish("orders.js", "grüße".encode(), headers={"Nats-Msg-Id": "1", "kind": "new"})
        same((ack.stream, ack.duplicate), ("orders", None))
        ack = await js.publish("orders.js", b"again", headers={"Nats-Msg-Id": "1"})
        same(ack.duplicate, True)
        (result,) = await pull(js, "receipts", "RECEIPTS", 1)
        same(result.data, "grüße\x00/new".encode())


@check
async def streams_and_consumers():
    async with await connect() as nc:
        js = nc.jetstream()
        stream = await js.stream_info("orders")
        same((stream.config.subjects, stream.config.retention), (["orders.>"], "workqueue"))
        consumer = await js.consumer_info("orders", "orders")
        same((consumer.config.ack_policy, consumer.config.max_deliver), ("explicit", -1))
        await js.add_stream(name="OTHER", subjects=["other.*"])
        for i in range(100):
            await js.publish("other.x", str(i).encode())
        got = await pull(js, "other.x", "OTHER", 100)
        same([m.data for m in got], [str(i).encode() for i in range(100)])
        subscription = await js.pull_subscribe("other.x", durable="mine", stream="OTHER")
        (first,) = await subscription.fetch(1, timeout=WAIT)
        await first.nak()
        delivered = {}
        while len(delivered) < 100:
            for message in await subscription.fetch(100, timeout=WAIT):
                delivered[message.data] = message.metadata.num_delivered
                await message.ack()
        same(delivered[first.data], 2)
        await js.purge_stream("OTHER")
        same((await js.stream_info("OTHER")).state.messages, 0)
        await js.delete_stream("OTHER")
        try:
            await js.stream_info("OTHER")
            raise AssertionError("the stream was not deleted")
        except NotFoundError:
            pass


async def keys_of(kv):
    """The keys of a bucket. nats-py reports none if the server has sent them all and it has read none yet."""
    while True:
        try:
            return await kv.keys()
        except NoKeysError:
            await asyncio.sleep(0.05)


@check
async def key_values_and_objects():
    async with await connect() as nc:
        js = nc.jetstream()
        kv = await js.create_key_value(bucket="settings", history=5)
        await kv.put("colour", b"blue")
        revision = await kv.update("colour", b"green", 1)
        same(((await kv.get("colour")).value, revision), (b"green", 2))
        same(await keys_of(kv), ["colour"])
        await kv.delete("colour")
        store = await js.create_object_store("files")
        await store.put("big", bytes(300_000))
        same(len((await store.get("big")).data), 300_000)


@check
async def requests_and_dead_letters():
    async with await connect() as nc:
        js = nc.jetstream()

        async def answer(message):
            await message.respond(message.data.upper())

        await nc.subscribe("service", cb=answer)
        same((await nc.request("service", b"ping", timeout=WAIT)).data, b"PING")
        await js.publish("orders.bad", b"bad", headers={"Nats-Msg-Id": "bad-1", "kind": "broken"})
        while "orders-DEAD" not in [stream.config.name for stream in await js.streams_info()]:
            await asyncio.sleep(0.05)  # the first dead letter makes the stream
        (letter,) = await pull(js, "orders-DEAD.>", "orders-DEAD", 1)
        same((letter.subject, letter.data), ("orders-DEAD.orders.bad", b"bad"))
        headers = letter.headers
        same((headers["Drover-Function"], headers["Drover-Message-Id"], headers["kind"]), ("orders", "bad-1", "broken"))
        assert "no such order" in headers["Drover-Error"], headers
        json.loads(headers.get("Drover-Traceback", "null"))
        reply = await nc.request("$JS.API.STREAM.MSG.GET.orders-DEAD", json.dumps({"last_by_subj": "orders-DEAD.orders.bad"}).encode(), timeout=WAIT)
        same(json.loads(reply.data)["message"]["subject"], "orders-DEAD.orders.bad")


if __name__ == "__main__":
    main()
