"""The function of cluster.yaml."""


def handle_order(message):
    print("an order", message.text())
