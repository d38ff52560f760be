"""The storage queue SDK for Python against the emulator, and against Azurite: both must answer the same."""

import datetime
import time
import uuid

from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.storage.queue import (
    BinaryBase64DecodePolicy,
    BinaryBase64EncodePolicy,
    QueueClient,
    QueueSasPermissions,
    QueueServiceClient,
    TextBase64DecodePolicy,
    TextBase64EncodePolicy,
    generate_queue_sas,
)
from azure.storage.queue.aio import QueueClient as AsyncQueueClient

from checks import CONNECTION, check, main, raises, same

WAIT = 30  # seconds for what must come


def queue(**options):
    q = QueueClient.from_connection_string(CONNECTION, "py-" + uuid.uuid4().hex, **options)
    q.create_queue()
    return q


def texts(q, count=32):
    return [m.content for m in q.peek_messages(count)]


@check
def text_comes_back_as_sent():
    q = queue()
    for text in ('{"a":1}', "it's <b> & c", "a\r\nb\rc\td\n", "grüße 你好 🎈", "&#34; &amp; ]]> <![CDATA[", " space ", ""):
        q.send_message(text)
        (m,) = q.receive_messages()
        same(m.content, text)
        q.delete_message(m)


@check
def base64():
    for encode, decode, content in (
        (TextBase64EncodePolicy(), TextBase64DecodePolicy(), "grüße\x00"),
        (BinaryBase64EncodePolicy(), BinaryBase64DecodePolicy(), bytes(range(256))),
    ):
        q = queue(message_encode_policy=encode, message_decode_policy=decode)
        q.send_message(content)
        same(texts(q), [content])


@check
def receiving_and_deleting():
    q = queue()
    for i in range(40):
        q.send_message(str(i))
    same(q.get_queue_properties().approximate_message_count, 40)
    same(texts(q), [str(i) for i in range(32)])
    got = []
    for page in q.receive_messages(messages_per_page=32, visibility_timeout=60).by_page():
        got += page
    same(sorted(int(m.content) for m in got), list(range(40)))
    same({m.dequeue_count for m in got}, {1})
    for m in got:
        q.delete_message(m)
    error = raises(ResourceNotFoundError, q.delete_message, got[0])
    same(error.error_code, "MessageNotFound")
    same(q.receive_message(), None)


@check
def updating():
    q = queue()
    sent = q.send_message("one")
    m = q.receive_message(visibility_timeout=30)
    same((m.id, m.dequeue_count), (sent.id, 1))
    updated = q.update_message(m, content="two", visibility_timeout=0)
    error = raises(HttpResponseError, q.delete_message, m)
    same((error.status_code, error.error_code), (400, "PopReceiptMismatch"))
    again = q.receive_message()
    same((again.content, again.dequeue_count), ("two", 2))
    assert updated.pop_receipt != again.pop_receipt
    kept = q.update_message(again.id, again.pop_receipt, visibility_timeout=0)
    same(q.receive_message().content, "two")
    raises(HttpResponseError, q.delete_message, again.id, kept.pop_receipt)


@check
def hiding():
    q = queue()
    q.send_message("later", visibility_timeout=2)
    same(q.receive_message(), None)
    deadline = time.monotonic() + WAIT
    while not (m := q.receive_message(visibility_timeout=1)) and time.monotonic() < deadline:
        time.sleep(0.1)
    same(m.content, "later")
    while not (again := q.receive_message()) and time.monotonic() < deadline:
        time.sleep(0.1)
    same((again.content, again.dequeue_count), ("later", 2))


@check
def times_to_live():
    q = queue()
    week = q.send_message("week")
    assert abs(week.expires_on - week.inserted_on - datetime.timedelta(days=7)) < datetime.timedelta(seconds=2)
    same(q.send_message("never", time_to_live=-1).expires_on.year, 9999)
    q.send_message("soon", time_to_live=1)
    deadline = time.monotonic() + WAIT
    while "soon" in texts(q) and time.monotonic() < deadline:
        time.sleep(0.1)
    same(texts(q), ["week", "never"])
    for ttl in (0, -2):
        same(refusal(q.send_message, "x", time_to_live=ttl)[0], 400)
    same(refusal(q.send_message, "x", visibility_timeout=10, time_to_live=10), (400, "InvalidQueryParameterValue"))


def refusal(function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except HttpResponseError as error:
        return error.status_code, error.error_code
    return None


@check
def edges():
    q = queue()
    q.send_message("x")
    same(refusal(q.send_message, "x" * 65537), (413, "RequestBodyTooLarge"))
    same(refusal(q.send_message, "x" * 65536), None)
    same(refusal(q.send_message, "x", visibility_timeout=604801), (400, "OutOfRangeQueryParameterValue"))
    same(refusal(q.receive_message, visibility_timeout=604801), (400, "OutOfRangeQueryParameterValue"))


@check
def clearing():
    q = queue()
    for i in range(3):
        q.send_message(str(i))
    q.receive_message()
    q.clear_messages()
    same(texts(q), [])
    same(q.get_queue_properties().approximate_message_count, 0)


@check
def queues_and_metadata():
    service = QueueServiceClient.from_connection_string(CONNECTION)
    prefix = "meta-" + uuid.uuid4().hex[:8]
    names = [f"{prefix}-{i}" for i in range(5)]
    for name in names:
        service.create_queue(name, metadata={"team": "a&b <c>", "of": name})
    listed = list(service.list_queues(name_starts_with=prefix, include_metadata=True, results_per_page=2))
    same([q.name for q in listed], names)
    same([q.metadata for q in listed], [{"team": "a&b <c>", "of": name} for name in names])
    q = service.get_queue_client(names[0])
    same(q.get_queue_properties().metadata, {"team": "a&b <c>", "of": names[0]})
    q.set_queue_metadata({"only": "this"})
    same(q.get_queue_properties().metadata, {"only": "this"})
    error = raises(ResourceExistsError, q.create_queue, metadata={"other": "x"})
    same(error.error_code, "QueueAlreadyExists")
    q.delete_queue()
    error = raises(ResourceNotFoundError, q.get_queue_properties)
    same(error.error_code, "QueueNotFound")
    raises(ResourceNotFoundError, q.send_message, "x")


@check
def signatures():
    q = queue()
    key = dict(part.split("=", 1) for part in CONNECTION.strip(";").split(";"))
    token = generate_queue_sas(
        key["AccountName"], q.queue_name, key["AccountKey"], permission=QueueSasPermissions(add=True, process=True, read=True),
        expiry=datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1),
    )
    signed = QueueClient(key["QueueEndpoint"], q.queue_name, credential=token)
    signed.send_message("x")
    same(signed.receive_message().content, "x")


@check
async def the_async_client():
    q = AsyncQueueClient.from_connection_string(CONNECTION, "aio-" + uuid.uuid4().hex)
    async with q:
        await q.create_queue()
        await q.send_message("<a>")
        async for m in q.receive_messages():
            same(m.content, "<a>")
            await q.delete_message(m)
        same(await q.receive_message(), None)


if __name__ == "__main__":
    main()
