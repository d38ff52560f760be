"""The payloads of results, as in docs/worker-protocol.md."""

from __future__ import annotations

import struct
from typing import Iterable, Mapping

# The statuses of a RESULT.
OK, FAILURE, REJECT, RETRY, NOT_TRIED, STATE, BATCH = 0, 1, 2, 3, 4, 5, 6
DESCRIBED = 128  # added to OK and STATE: the output follows its properties
SENT = 64  # added to OK and STATE: messages for named outputs precede these
MAX_SENT = 100_000  # the maximum number of such messages in a RESULT

_LENGTH = struct.Struct("<I")
_INDEX = struct.Struct("<H")


def put_properties(properties: Mapping[str, str], payload: bytes) -> bytes:
    """Returns the payload of a result with properties, a dict of str to str."""
    texts = [text.encode("utf-8", "surrogateescape") for pair in properties.items() for text in pair]
    pairs = b"".join([_LENGTH.pack(len(text)) + text for text in texts])
    return _LENGTH.pack(len(pairs)) + pairs + payload


def put_outputs(records: Iterable[tuple[int, Mapping[str, str], bytes]]) -> bytes:
    """Returns the section of a RESULT with messages for named outputs: for each the index of its
    output in LOAD, its properties, and its body. The properties and the payload of the plain
    result follow it."""
    parts = [_INDEX.pack(index) + put_properties(properties, _LENGTH.pack(len(body))) + body for index, properties, body in records]
    section = b"".join(parts)
    return _LENGTH.pack(len(section)) + section
