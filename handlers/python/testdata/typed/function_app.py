"""Uses all of `import drover`, as apps do; it runs, and passes mypy --strict."""

import asyncio
import datetime
import json
from typing import Any, Dict, List, Optional, Tuple, Union

import drover

opened: List[str] = []


@drover.after_fork
def connect() -> None:
    opened.append("connection")


@drover.at_exit
def disconnect() -> None:
    opened.clear()


@drover.at_exit
async def say_goodbye() -> None:
    await asyncio.sleep(0)


def wrong(message: drover.Message) -> None:
    """Where drover had no types, mypy --strict would say that these comments are not needed."""
    number: int = message.id  # type: ignore[assignment]
    drover.Output(b"", subject=number)  # type: ignore[arg-type]
    drover.Outputs([message])  # type: ignore[arg-type]
    drover.Response(b"", "200")  # type: ignore[arg-type]


def about(message: drover.Message) -> Dict[str, Optional[str]]:
    body: bytes = message.body
    values: List[str] = message.values("color")
    attributes: Dict[str, str] = message.attributes
    properties: Dict[str, str] = message.properties
    moments: List[Optional[datetime.datetime]] = [message.enqueued, message.expires_at]
    numbers: List[Optional[int]] = [message.attempt, message.sequence_number, message.delivery_count, message.dequeue_count]
    return {
        "id": message.id,
        "subject": message.subject,
        "ordering_key": message.ordering_key,
        "content_type": message.content_type,
        "correlation_id": message.correlation_id,
        "reply_to": message.reply_to,
        "reply_to_session": message.reply_to_session,
        "to": message.to,
        "session_id": message.session_id,
        "partition_key": message.partition_key,
        "rest": f"{len(body)} {message.text()} {values} {sorted(attributes)} {sorted(properties)} {moments} {numbers}",
    }


def orders(message: drover.Message, context: drover.Context) -> drover.Output:
    try:
        order: Any = message.json()
    except ValueError as error:
        raise drover.Reject(f"no JSON: {error}") from error
    try:
        left: Optional[float] = context.remaining()
        deadline: Optional[float] = context.deadline
        if context.cancelled or left is not None and deadline is not None and left < 0.001:
            raise drover.Retry("too late", after=30)
    except drover.Retry as retry:
        after: Optional[float] = retry.after
        raise drover.Retry(after=after) from None
    except drover.Timeout:
        raise drover.Timeout("as it was") from None
    trace: List[Optional[str]] = [context.traceparent, context.tracestate]
    output = drover.Output(
        {"order": order, "about": about(message), "by": context.function, "trace": trace, "opened": opened},
        content_type="application/json",
        correlation_id=message.correlation_id or message.id,
        message_id="answer",
        reply_to="answers",
        reply_to_session=None,
        session_id=message.reply_to_session,
        subject="order.done",
        to="shop",
        partition_key="7",
        scheduled_at=datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1),
        time_to_live=datetime.timedelta(hours=2),
        attributes={"color": "red"},
    )
    output.properties["content_type"] = "application/x-order"
    output.attributes["size"] = "5"
    output.body = json.dumps(output.body)
    return output


async def sessions(message: drover.Message, context: drover.Context) -> Union[bytes, None]:
    state: Optional[bytes] = context.session_state
    context.session_state = bytearray(state or b"") + message.body
    await asyncio.sleep(0)
    return context.session_state


def split(message: drover.Message) -> drover.Outputs:
    lines: List[str] = message.text().splitlines()
    outputs = drover.Outputs({"$return": drover.Output(lines, session_id="s")}, result=len(lines), lines=lines, audit={"lines": len(lines)})
    outputs.messages["more"] = None
    outputs.result = str(outputs.result)
    return outputs


def page(message: drover.Message) -> drover.Response:
    response = drover.Response(message.body, 201, {"X-A": "1"}, content_type="a/b")
    status: int = response.status
    headers: List[Tuple[str, str]] = response.headers
    return drover.Response((part for part in ("a", "b")), status=status, headers=headers)


def batch(messages: List[drover.Message], context: drover.Context) -> drover.Verdicts:
    verdicts = drover.Verdicts([drover.Reject("empty") if not m.body else None for m in messages], result={"n": len(messages)})
    assert not isinstance(verdicts.verdicts, dict) and verdicts.result
    return verdicts


def by_id(messages: List[drover.Message]) -> drover.Verdicts:
    return drover.Verdicts({m.id: drover.Retry("later", after=5) for m in messages})


def tested() -> None:
    """As an app's own tests make them."""
    assert page(drover.Message(b"")).headers == [("X-A", "1")]
    assert sorted(split(drover.Message(b"a\nb")).messages) == ["$return", "audit", "lines", "more"]
    message = drover.Message(b"{}", attempt=2)
    assert orders(message, drover.Context("orders", message=message)).body
