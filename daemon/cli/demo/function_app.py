"""The Python functions of `drover demo`: one bound by the CPU, one by waiting."""

import asyncio
import hashlib
import json
import pathlib

ENDPOINT = json.loads(pathlib.Path(__file__).with_name("endpoint.json").read_text())
ROUNDS = 20_000  # about 10 ms of one core


def digest(body):
    """CPU-bound: hashes the body over and over."""
    value = bytes(body)
    for _ in range(ROUNDS):
        value = hashlib.sha256(value).digest()
    return value.hex()


async def fetch(message):
    """I/O-bound: asks a local endpoint that takes 100 ms to answer."""
    reader, writer = await asyncio.open_connection(ENDPOINT["host"], ENDPOINT["port"])
    try:
        path = message.text()
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {ENDPOINT['host']}\r\n\r\n".encode())
        answer = await reader.read()
    finally:
        writer.close()
    status = answer.split(b" ", 2)[1]
    if status != b"200":
        raise RuntimeError(f"the endpoint answered {status.decode()} to {path}")
    return answer.partition(b"\r\n\r\n")[2]
