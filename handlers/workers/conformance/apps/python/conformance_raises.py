"""A module that does not load."""


def echo(body):
    return body


raise RuntimeError("conformance: not today")
