"""HTTP functions of function apps that take the Request of FastAPI and return its responses, with
the package azurefunctions-extensions-http-fastapi. Each is called as an ASGI app, so that a
StreamingResponse is sent while it is produced."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
from typing import Any, Callable, NamedTuple

from drover import Message
from drover.azure_context import Contexts
from drover.azure_results import Results
from drover.frames import Invocation
from drover.payloads import OK, SENT, put_outputs
from drover.results import article
from drover.web import make_call


class _Running(NamedTuple):
    """What a call needs besides its scope."""

    message: Message
    context: object
    outs: list[Any]


_running: contextvars.ContextVar[_Running] = contextvars.ContextVar("drover_azure_request")


def bind_request(
    call: Callable[..., Any],
    argument: str,
    request: Callable[..., Any],
    results: Results,
    contexts: Contexts,
    takes_context: bool,
    out: Callable[[], Any],
) -> Callable[[Invocation], Any]:
    """Returns the async call of a function whose parameter argument is a request of FastAPI, of the
    class request."""
    is_async = inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise RuntimeError("a function has no lifespan")
        running = _running.get()
        scope["path_params"] = json.loads(running.message.properties.get("http_params") or "{}")
        given = dict(zip(results.names, running.outs))
        given[argument] = request(scope, receive)
        if takes_context:
            given["context"] = running.context
        value = await call(**given) if is_async else await asyncio.to_thread(call, **given)
        while inspect.isawaitable(value):
            value = await value
        await _response(value)(scope, receive, send)

    web = make_call("asgi", app)

    async def run(invocation: Invocation) -> tuple[int, bytes]:
        _, _, body, meta, attempt, enqueued, _, _ = invocation
        message = Message(body, attempt, enqueued, meta)
        context = contexts.make(invocation)
        outs = [out() for _ in results.names]
        _running.set(_Running(message, context, outs))
        status, payload = await web.call(message, context)
        records = results.records_of(outs)
        if records:
            return status | SENT, put_outputs(records) + payload
        return status or OK, payload

    return run


def _response(value: Any) -> Any:
    """Returns the response of FastAPI for what a function returned."""
    from fastapi.encoders import jsonable_encoder
    from fastapi.responses import JSONResponse, Response

    if isinstance(value, Response):
        return value
    if hasattr(value, "get_body"):  # a func.HttpResponse
        return _of_library(value, Response)
    if value is None:
        raise TypeError("the function returned None, which is not an HTTP response; return a Response of azurefunctions.extensions.http.fastapi")
    try:
        return JSONResponse(jsonable_encoder(value))
    except Exception as error:
        raise TypeError(f"the function returned {article(value)}, which is not an HTTP response: {error}") from None


def _of_library(value: Any, response: Callable[..., Any]) -> Any:
    made = response(value.get_body(), int(value.status_code), media_type=value.mimetype)
    for name, text in value.headers.items():
        if name.lower() == "content-type":
            made.headers[name] = text
        else:
            made.headers.append(name, text)
    return made
