"""Sends to functions with Azure's SDKs for Python, and reads drover's outputs with them. Arguments: Service Bus, storage."""

import json
import sys
import time
import uuid

from azure.servicebus import ServiceBusClient, ServiceBusMessage
from azure.servicebus.amqp import AmqpAnnotatedMessage, AmqpMessageBodyType, AmqpMessageProperties
from azure.storage.queue import QueueClient, TextBase64DecodePolicy

from checks import CONNECTION, check, main, same

WAIT = 60  # seconds for what must come
STORAGE = sys.argv[2]


def send(*messages):
    with ServiceBusClient.from_connection_string(CONNECTION) as client, client.get_queue_sender("orders") as sender:
        for message in messages:
            sender.send_messages(message)


def results(client, **of):
    """Receives one result from a queue or subscription."""
    receiver = client.get_subscription_receiver(**of) if "topic_name" in of else client.get_queue_receiver(**of)
    with receiver:
        (message,) = receiver.receive_messages(1, max_wait_time=WAIT)
        receiver.complete_message(message)
    return message


def stored(name, **options):
    queue = QueueClient.from_connection_string(STORAGE, name, **options)
    deadline = time.monotonic() + WAIT
    while not (message := queue.receive_message()) and time.monotonic() < deadline:
        time.sleep(0.05)
    queue.delete_message(message)
    return message.content


def text(properties):
    decode = lambda v: v.decode() if isinstance(v, bytes) else v
    return {decode(k): decode(v) for k, v in (properties or {}).items()}


@check
def a_value_as_json():
    send(ServiceBusMessage(json.dumps({"kind": "value"}), message_id="m1", correlation_id="c1", subject="s", content_type="application/json",
                           application_properties={"n": 5, "flag": True}))
    want = {"kind": "value", "id": "m1", "correlation": "c1", "subject": "s", "type": "application/json", "n": "5", "flag": "true", "é": "<&\">"}
    with ServiceBusClient.from_connection_string(CONNECTION) as client:
        for got in (results(client, queue_name="receipts"), results(client, topic_name="events", subscription_name="billing")):
            same(got.body_type, AmqpMessageBodyType.DATA)
            same(json.loads(str(got)), want)
            same(got.content_type, "application/json")
    same(json.loads(stored("plain")), want)
    same(json.loads(stored("coded", message_decode_policy=TextBase64DecodePolicy())), want)


@check
def an_output_with_properties():
    send(ServiceBusMessage(json.dumps({"kind": "output"})))
    with ServiceBusClient.from_connection_string(CONNECTION) as client:
        for got in (results(client, queue_name="receipts"), results(client, topic_name="events", subscription_name="billing")):
            same(b"".join(got.body), "a;b\r\n1;é\r\n".encode())
            same((got.content_type, got.correlation_id, got.reply_to, got.to, got.subject), ("text/csv", "c2", "answers", "there", "sub"))
            same((got.message_id, text(got.application_properties)["team"]), ("out-1", "blue"))
    same(stored("plain"), "a;b\r\n1;é\r\n")
    same(stored("coded", message_decode_policy=TextBase64DecodePolicy()), "a;b\r\n1;é\r\n")


@check
def ids_that_are_no_text():
    ids = [77, uuid.UUID(int=7), b"\x01\x02raw"]
    for i in ids:
        send(AmqpAnnotatedMessage(data_body=b'{"kind": "value"}', properties=AmqpMessageProperties(message_id=i, correlation_id=5)))
    with ServiceBusClient.from_connection_string(CONNECTION) as client:
        got = {json.loads(str(results(client, queue_name="receipts")))["id"] for _ in ids}
        same(got, {"77", "00000000-0000-0000-0000-000000000007", "AQJyYXc="})


@check
def a_dead_letter():
    send(ServiceBusMessage(json.dumps({"kind": "bad"}), message_id="bad-1", content_type="application/json", application_properties={"n": 5}))
    with ServiceBusClient.from_connection_string(CONNECTION) as client:
        with client.get_queue_receiver("orders", sub_queue="deadletter") as receiver:
            (letter,) = receiver.receive_messages(1, max_wait_time=WAIT)
            assert "no such order" in (letter.dead_letter_reason or "") + (letter.dead_letter_error_description or ""), letter
            same((letter.message_id, letter.content_type, text(letter.application_properties)["n"]), ("bad-1", "application/json", 5))
            receiver.complete_message(letter)


if __name__ == "__main__":
    main()
