"""Functions that take batches: the messages of an INVOKE, and the verdicts on them in its result.

Imported only if the daemon requests such a function: others pay nothing for it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import struct
from types import MappingProxyType
from typing import Any, Callable, Mapping, NamedTuple, Sequence, Tuple

from drover import Context, Message, Reject, Verdicts
from drover.awaitables import awaited, is_awaitable
from drover.forms import Form
from drover.payloads import BATCH, OK
from drover.results import PLAIN

_COUNT = struct.Struct("<I")
_HEAD = struct.Struct("<IqI")  # attempt, enqueued, length of meta
_RECORD = struct.Struct("<BI")  # status, length of the payload

Encode = Callable[[object], Tuple[int, bytes]]
Outcome = Callable[[BaseException], Tuple[int, bytes]]


def split(batch: bytes, origins: bool = False) -> list[tuple[int, int, bytes, bytes, bytes]]:
    """Returns attempt, enqueued, meta, origin and body of each message of a batch, the body of an
    INVOKE. origins is whether the function gets the origins of messages."""
    out: list[tuple[int, int, bytes, bytes, bytes]] = []
    (count,) = _COUNT.unpack_from(batch)
    at = _COUNT.size
    for _ in range(count):
        attempt, enqueued, length = _HEAD.unpack_from(batch, at)
        at += _HEAD.size
        origin = b""
        if origins:
            end = at + 4 + _COUNT.unpack_from(batch, at)[0]
            origin = batch[at + 4 : end]
            at = end
        meta = batch[at : at + length]
        at += length
        end = at + 4 + _COUNT.unpack_from(batch, at)[0]
        out.append((attempt, enqueued, meta, origin, batch[at + 4 : end]))
        at = end
    return out


def wrap(function: Any, form: Form, outcome: Outcome) -> None:
    """Adapts a functions.Function that takes lists, so that the runners can call it. outcome is
    functions.outcome."""
    call = adapt(function.call, form, function.is_async)
    function.encode = encoder(function.encode, outcome)
    if form.wants_context:
        function.call = lambda message, context: call(_messages(message.body), context)
    else:
        function.wants_body = True
        function.call = lambda batch: call(_messages(batch), None)


def adapt(call: Callable[..., Any], form: Form, is_async: bool) -> Callable[[list[Message], Any], Any]:
    """Returns a function that takes the messages of a batch and the context, and calls call with its
    arguments. Messages whose bodies do not fit are rejected; call gets the others."""
    decode, kinds = form.decode or bytes, form.kinds

    def prepare(messages: list[Message], context: Context | None) -> _Call:
        if context is not None:
            context._message = messages[0]
        if "body" not in kinds:
            return _Call(messages, {}, [context if kind == "context" else messages for kind in kinds])
        bodies: list[Any] = []
        fit: list[Message] = []
        refused: dict[int, Reject] = {}
        for at, message in enumerate(messages):
            try:
                bodies.append(decode(message.body))
                fit.append(message)
            except Reject as error:
                refused[at] = error
        given = {"body": bodies, "message": fit, "context": context}
        return _Call(fit, refused, [given[kind] for kind in kinds])

    if is_async:

        async def run_async(messages: list[Message], context: Context | None) -> object:
            made = prepare(messages, context)
            return bind(await call(*made.arguments) if made.messages else None, made.messages, made.refused)

        return run_async

    def run(messages: list[Message], context: Context | None) -> object:
        made = prepare(messages, context)
        return bind(call(*made.arguments) if made.messages else None, made.messages, made.refused)

    return run


class _Call(NamedTuple):
    """A call for a batch: its messages, its arguments, and the reasons why other messages are
    rejected, by their index in the batch."""

    messages: Sequence[Message]
    refused: Mapping[int, Reject]
    arguments: Sequence[Any]


def _messages(batch: bytes) -> list[Message]:
    return [Message(body, attempt, enqueued, meta) for attempt, enqueued, meta, _, body in split(batch)]


class Bound:
    """Verdicts on messages, in their order, and the result of the call."""

    __slots__ = ("each", "result")

    def __init__(self, each: Sequence[object], result: object) -> None:
        self.each = each
        self.result = result


def bind(value: Any, messages: Sequence[Message], refused: Mapping[int, Reject] = MappingProxyType({})) -> Any:
    """Completes the verdicts that a function returned, so that each message of the batch has one.
    Returns other values unchanged. messages are the messages that the function got, and refused
    those that it did not get. The value of an awaitable is handled when it is available."""
    if value is not None and type(value) not in PLAIN and is_awaitable(value):
        return _bind_later(value, messages, refused)
    if isinstance(value, Verdicts):
        each, result = in_order(value.verdicts, messages), value.result
    elif refused:
        each, result = [None] * len(messages), value
    else:
        return value
    if refused:
        rest = iter(each)
        each = [refused[at] if at in refused else next(rest) for at in range(len(messages) + len(refused))]
    return Bound(each, result)


async def _bind_later(value: Any, messages: Sequence[Message], refused: Mapping[int, Reject]) -> object:
    while type(value) not in PLAIN and value is not None and is_awaitable(value):
        if isinstance(value, concurrent.futures.Future):
            value = asyncio.wrap_future(value)
        value = await awaited(value)
    return bind(value, messages, refused)


def in_order(verdicts: Sequence[object] | Mapping[str, object], messages: Sequence[Message]) -> Sequence[object]:
    if not isinstance(verdicts, Mapping):
        if len(verdicts) != len(messages):
            raise ValueError(f"drover.Verdicts has {len(verdicts)} verdicts for {len(messages)} messages; pass one for each, in order, or a dict by message id")
        return verdicts
    unknown = set(verdicts).difference(message.id for message in messages)
    if unknown:
        raise ValueError(f"drover.Verdicts has a verdict on {min(map(repr, unknown))}, but no message in this batch has this id")
    return [verdicts.get(message.id) for message in messages]


def encoder(encode: Encode, outcome: Outcome) -> Encode:
    """Returns the encoder of the return values of a function that takes batches. encode encodes
    plain results."""

    def result(value: object) -> tuple[int, bytes]:
        if not isinstance(value, Bound):
            return encode(value)
        return put_verdicts(value.each, None if value.result is None else encode(value.result), encode, outcome)

    return result


def put_verdicts(each: Sequence[object], own: tuple[int, bytes] | None, encode: Encode, outcome: Outcome) -> tuple[int, bytes]:
    """Returns the status and payload of a result with verdicts. own is the call's own result."""
    parts = [_COUNT.pack(len(each))]
    for one in each:
        status, payload = _verdict(one, encode, outcome)
        parts += (_RECORD.pack(status, len(payload)), payload)
    if own is not None:
        status, payload = own
        parts += (bytes((status,)), payload)
    return BATCH, b"".join(parts)


def _verdict(one: Any, encode: Encode, outcome: Outcome) -> tuple[int, bytes]:
    """Returns the status and payload of the verdict on a message: None, an exception, or its result."""
    if one is None:
        return OK, b""
    if isinstance(one, type) and issubclass(one, BaseException):
        one = one()
    if isinstance(one, BaseException):
        return outcome(one)
    try:
        return encode(one)
    except Exception as error:
        return outcome(error)
