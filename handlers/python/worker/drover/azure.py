"""Runs the functions of function apps, which are written for the library azure.functions. The
library is the app's own; it is imported only if the app has such functions."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import typing
from typing import Any, Awaitable, Callable, Mapping, NamedTuple

from drover import Message, invocations
from drover.azure_apps import directory_of, is_request
from drover.azure_batches import BatchResults, list_maker
from drover.azure_context import Contexts, out_class
from drover.azure_messages import is_many, maker_of
from drover.azure_results import Results
from drover.forms import Misfit, signature_of
from drover.frames import Invocation
from drover.results import PLAIN
from drover.web import app_of, make_call

# The status and payload of a result; None if it is empty.
Answer = typing.Optional[typing.Tuple[int, bytes]]


class Bound(NamedTuple):
    """A function with its bindings: call takes an invocation, and returns an Answer, or an
    awaitable of one."""

    call: Callable[..., Any]
    is_async: bool
    stays: bool = False  # whether it must run on the worker's event loop


def bind(want: Mapping[str, Any], call: Callable[..., Any], outcome: Callable[[BaseException], tuple[int, bytes]]) -> Bound:
    """Returns a function of LOAD, whose Python function is call. outcome is functions.outcome.
    Raises Misfit, whose text follows the function's name."""
    from azure.functions import Out, get_binding_registry

    invocations.activate()
    if want["azure"].get("log_level") == "debug":
        logging.getLogger().setLevel(logging.DEBUG)
    azure: Mapping[str, Any] = want["azure"]
    name: str = azure.get("name") or want["name"]
    bindings: list[Mapping[str, Any]] = azure["bindings"]
    trigger = next((b for b in bindings if str(b["type"]).lower().endswith("trigger")), None)
    if trigger is None:
        raise Misfit(": it has no trigger")
    implicit = _is_implicit(get_binding_registry(), bindings)
    if want.get("batch"):
        results: Results = BatchResults(name, bindings, want, implicit, outcome)
    else:
        results = Results(name, bindings, want.get("outputs") or [], implicit)
    is_http = str(trigger["type"]).lower() == "httptrigger"
    contexts = Contexts(name, directory_of(azure.get("directory") or os.getcwd(), name, call), azure, is_http)
    app = app_of(call) if azure.get("http_type") in ("asgi", "wsgi") else None
    if app is not None:
        return _web_app(azure["http_type"], app, contexts)
    parameters, hints = _signature(call)
    takes_context = "context" in parameters and all(b["name"] != "context" for b in bindings)
    argument = trigger["name"]
    hint: Any = hints.get(argument)
    if is_http and is_request(hint):
        from drover.azure_requests import bind_request

        return Bound(bind_request(call, argument, hint, results, contexts, takes_context, out_class(Out)), True, True)
    make = maker_of(trigger, hint)
    if is_many(trigger):
        make = list_maker(make, want)
    is_async = inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None))
    if not takes_context and not results.outs:
        return Bound(*_alone(call, argument, make, results, is_async))
    return Bound(*_with_more(call, argument, make, results, contexts if takes_context else None, out_class(Out), is_async))


def _web_app(kind: str, app: Callable[..., Any], contexts: Contexts) -> Bound:
    """Returns the function of AsgiFunctionApp or WsgiFunctionApp. The app is called without the
    library, which stores whole responses and knows no end of a lifespan."""
    web = make_call(kind, app)

    def run(invocation: Invocation) -> Any:
        _, _, body, meta, attempt, enqueued, _, _ = invocation
        return web.call(Message(body, attempt, enqueued, meta), contexts.make(invocation))

    async def run_async(invocation: Invocation) -> Answer:
        answer: Answer = await run(invocation)
        return answer

    return Bound(run_async, True, True) if web.is_async else Bound(run, False)


def _is_implicit(registry: Any, bindings: list[Mapping[str, Any]]) -> bool:
    """Returns whether a function may return a value that no output takes. The library allows that
    with bindings that it does not know."""
    for binding in bindings:
        converter = registry.get(binding["type"])
        if converter is None or getattr(converter, "has_implicit_output", bool)():
            return True
    return False


def _signature(call: Callable[..., Any]) -> tuple[Mapping[str, inspect.Parameter], Mapping[str, Any]]:
    """Returns the parameters of a function, and its annotations as far as they can be resolved."""
    try:
        parameters = signature_of(call).parameters
    except (TypeError, ValueError) as error:
        raise Misfit(f": its parameters cannot be read: {error}") from None
    while isinstance(call, functools.partial):
        call = call.func
    try:
        return parameters, typing.get_type_hints(call if inspect.isroutine(call) else getattr(call, "__call__", call))
    except Exception:  # only a type checker can resolve them
        return parameters, {}


def _alone(
    call: Callable[..., Any],
    argument: str,
    make: Callable[[Invocation], object],
    results: Results,
    is_async: bool,
) -> tuple[Callable[[Invocation], Any], bool]:
    """Returns the call of a function that takes only its message. The message is passed by name, as
    on Azure, because decorators of apps rely on it. A function without decorators gets it by
    position, which takes half the time."""
    finish, quiet = results.finish, results.quiet
    pass_to: Callable[[object], Any] = call if _takes_first(call, argument) else lambda message: call(**{argument: message})

    def run(invocation: Invocation) -> Answer | Awaitable[Answer]:
        value = pass_to(make(invocation))
        if value is None and quiet:
            return None
        if type(value) not in PLAIN and inspect.isawaitable(value):
            return _finish_later(value, results, (), invocation)
        return finish(value, (), invocation)

    async def run_async(invocation: Invocation) -> Answer:
        value = await pass_to(make(invocation))
        return None if value is None and quiet else finish(value, (), invocation)

    return (run_async, True) if is_async else (run, False)


def _takes_first(call: Callable[..., Any], argument: str) -> bool:
    """Returns whether call is a function as it was defined, without decorators, whose first
    parameter is argument."""
    if not inspect.isfunction(call):
        return False
    code = call.__code__
    return code.co_argcount > code.co_posonlyargcount == 0 and code.co_varnames[0] == argument


def _with_more(
    call: Callable[..., Any],
    argument: str,
    make: Callable[[Invocation], object],
    results: Results,
    contexts: Contexts | None,
    out: Callable[[], Any],
    is_async: bool,
) -> tuple[Callable[[Invocation], Any], bool]:
    """Returns the call of a function that has outputs, or takes a context."""
    finish, names = results.finish, results.names

    def arguments(invocation: Invocation) -> tuple[dict[str, Any], list[Any]]:
        outs = [out() for _ in names]
        given = dict(zip(names, outs))
        given[argument] = make(invocation)
        if contexts is not None:
            given["context"] = contexts.make(invocation)
        return given, outs

    def run(invocation: Invocation) -> Answer | Awaitable[Answer]:
        given, outs = arguments(invocation)
        value = call(**given)
        if value is not None and type(value) not in PLAIN and inspect.isawaitable(value):
            return _finish_later(value, results, outs, invocation)
        return finish(value, outs, invocation)

    async def run_async(invocation: Invocation) -> Answer:
        given, outs = arguments(invocation)
        return finish(await call(**given), outs, invocation)

    return (run_async, True) if is_async else (run, False)


async def _finish_later(value: Any, results: Results, outs: Any, invocation: Invocation) -> Answer:
    """Awaits what a function returned that is not declared async."""
    while inspect.isawaitable(value):
        value = await value
    return results.finish(value, outs, invocation)
