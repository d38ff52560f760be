"""The functions that the conformance suite calls; docs/worker-protocol.md describes each."""

import asyncio
import json
import logging
import os
import time

import drover

print("conformance: loading")


def echo(body):
    return body


def nothing(body):
    return None


def describe(message, context):
    return {
        "id": message.id,
        "subject": message.subject,
        "ordering_key": message.ordering_key,
        "attributes": message.attributes,
        "repeated": {name: message.values(name) for name in message.attributes if len(message.values(name)) > 1},
        "properties": message.properties,
        "attempt": message.attempt,
        "enqueued_ms": message.enqueued and round(message.enqueued.timestamp() * 1000),
        "deadline_ms": context.deadline and round(context.deadline * 1000),
        "size": len(message.body),
    }


def large(body):
    return b"x" * int(body)


def fail(body):
    raise ValueError(body.decode())


def fail_large(body):
    raise ValueError("x" * int(body))


def reject(body):
    raise drover.Reject(body.decode())


def retry(body):
    raise drover.Retry("later", after=float(body))


def sleep(message, context):
    end = time.monotonic() + int(message.body) / 1000
    while time.monotonic() < end and not context.cancelled:
        time.sleep(0.005)
    return "slept"


def say(body):
    print(body.decode())


def warn(body):
    logging.getLogger("conformance").warning(body.decode())


def write(body):
    at = 0
    while at < len(body):
        at += os.write(1, body[at:])


def state(message, context):
    before, (verb, _, rest) = context.session_state, message.text().partition(" ")
    if verb == "clear":
        context.session_state = None
    elif verb != "keep":
        context.session_state = rest.encode()
    if verb == "fail":
        raise ValueError("after the state was set")
    return b"none" if before is None else b"was " + before


def output(message):
    return drover.Output(message.body, content_type="text/x-test", correlation_id=message.id, attributes={"n": "é"})


def stream(body):
    return drover.Response(parts(body), status=201, headers={"x-test": "yes"})


def parts(body):
    if body == b"fail":
        yield "some"
        raise ValueError("late")
    rest = int(body)
    while rest > 0:
        yield b"x" * min(rest, 100_000)
        rest -= 100_000


async def stream_async(body):
    async def parts_async():
        for part in parts(body):
            yield part

    return drover.Response(parts_async(), status=201, headers={"x-test": "yes"})


def batch(messages):
    bodies = [message.text() for message in messages]
    if "throw" in bodies:
        raise ValueError("thrown")
    if bodies[0] == "whole":
        return str(len(messages))
    verdicts = {"done": None, "reject": drover.Reject("rejected"), "retry": drover.Retry("later", after=1.5), "fail": ValueError("failed")}
    whole = [
        {"id": m.id, "attempt": m.attempt, "subject": m.subject, "size": len(m.body), "enqueued_ms": m.enqueued and round(m.enqueued.timestamp() * 1000)}
        for m in messages
    ]
    return drover.Verdicts([verdicts.get(body, body) for body in bodies], result=whole)


async def batch_async(messages, context):
    await asyncio.sleep(0)
    return batch(messages)


async def output_async(message):
    return output(message)


def outputs(message, context):
    if message.body == b"none":
        return None
    if message.body == b"unknown":
        return drover.Outputs(nobody=b"x")
    if message.body == b"state":
        context.session_state = b"new"
    return drover.Outputs(first=output(message), second=["1", "2"], result="plain")


async def outputs_async(message, context):
    return outputs(message, context)


async def echo_async(body):
    await asyncio.sleep(0)
    return echo(body)


async def nothing_async(body):
    return nothing(body)


async def describe_async(message, context):
    await asyncio.sleep(0)
    return describe(message, context)


async def large_async(body):
    return large(body)


async def fail_async(body):
    await asyncio.sleep(0)
    fail(body)


async def fail_large_async(body):
    fail_large(body)


async def reject_async(body):
    await asyncio.sleep(0)
    reject(body)


async def retry_async(body):
    retry(body)


async def sleep_async(body):
    await asyncio.sleep(int(body) / 1000)
    return "slept"


async def say_async(body):
    await asyncio.sleep(0)
    say(body)


async def warn_async(body):
    warn(body)


async def write_async(body):
    write(body)


async def state_async(message, context):
    await asyncio.sleep(0)
    return state(message, context)
