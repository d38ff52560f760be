"""The functions of python.yaml, servicebus.yaml, storagequeue.yaml and example.yaml."""

import json


def thumbnails(body):
    print("a thumbnail of", body.decode())


def images(message):
    if not message.body:
        raise ValueError("an image without a name")
    return "small " + message.text()


def billing(message):
    print("billing", message.text())
    return {"paid": message.text()}


def carts(message, context):
    items = json.loads(context.session_state or b"[]") + [message.text()]
    context.session_state = json.dumps(items).encode()
    print("the cart of", message.ordering_key, "has", items)


def orders(message):
    print("an order", message.text())
