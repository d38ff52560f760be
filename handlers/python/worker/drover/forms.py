"""Derives the form of a function, its arguments, from its parameters."""

from __future__ import annotations

import functools
import inspect
from typing import Any, Callable

from drover import Context, Message

FORMS = "a function takes (body), (message) or (message, context)"
_PAGE = 'docs/workers.md, "Functions written for Azure Functions"'
AZURE = f"drover does not provide azure.functions; write a plain function, as in: def orders(message): ... ({_PAGE}, has what takes the place of what)"


class Misfit(Exception):
    """The function cannot be called; the text follows its name."""


def form(call: Callable[..., Any]) -> tuple[bool, bool]:
    """Returns whether a function takes the body alone, and whether it takes a context;
    raises Misfit."""
    if type(call).__module__.startswith("azure.functions"):
        raise Misfit(f" is decorated for Azure Functions: {AZURE}")
    if inspect.isclass(call):
        raise Misfit(f" is a class, and not a function; name a function that makes what it needs, or an instance that has __call__: {FORMS}")
    _check_body(call)
    signature = _signature(call)
    if signature is None:
        return True, False  # without a signature: pass the bytes
    parameters = list(signature.parameters.values())
    for annotation in [p.annotation for p in parameters] + [signature.return_annotation]:
        if "azure.functions" in _text(annotation, call):
            raise Misfit(f" takes or returns a type of azure.functions: {AZURE}")
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    named = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if not positional and any(p.kind is p.VAR_POSITIONAL for p in parameters):
        raise Misfit(f"{signature} cannot be called, as its parameters do not say what it takes; if a decorator made it, have that use functools.wraps: {FORMS}")
    if named or len(required) > 2 or not positional:
        raise Misfit(f"{signature} cannot be called: {FORMS}")
    if len(required) == 2 and required[0].name in ("context", "ctx"):
        raise Misfit(f"{signature} has its parameters in the wrong order: {FORMS}")
    if len(required) == 2 or len(positional) > 1 and _is_context(positional[1]):
        return False, True
    return not _is_message(positional[0]), False


def _check_body(call: Callable[..., Any]) -> None:
    """Raises Misfit for a generator function, which runs only when its result is iterated over."""
    while isinstance(call, functools.partial):
        call = call.func
    if not (inspect.isroutine(call) or inspect.isclass(call)):
        call = getattr(type(call), "__call__", call)
    for check, what in ((inspect.isgeneratorfunction, "a generator function"), (inspect.isasyncgenfunction, "an async generator function")):
        if check(call):
            raise Misfit(f" is {what} (it has yield), of which no line would run; return a list, or what else is complete")


def _signature(call: Callable[..., Any]) -> inspect.Signature | None:
    """Returns the signature of the outermost function: a decorator may have other parameters
    than the function that it decorates. None if it is unknown."""
    while True:
        try:
            signature = inspect.signature(call, follow_wrapped=False)
        except (TypeError, ValueError):
            return None
        kinds = {p.kind for p in signature.parameters.values()}
        inner = getattr(call, "__wrapped__", None)
        if inner is None or not callable(inner) or kinds - {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD} or inspect.Parameter.VAR_POSITIONAL not in kinds:
            return signature
        if inspect.ismethod(call) and inspect.isfunction(inner):
            inner = inner.__get__(call.__self__)
        call = inner


def _text(annotation: object, call: Callable[..., Any]) -> str:
    """Returns an annotation as text with its module."""
    if isinstance(annotation, str):
        while isinstance(call, functools.partial):
            call = call.func
        try:
            annotation = eval(annotation, getattr(inspect.unwrap(call), "__globals__", {}))
        except Exception:  # only a type checker can evaluate it
            return ""
    try:
        return repr(annotation)
    except Exception:
        return ""


def _is_message(parameter: inspect.Parameter) -> bool:
    annotation = parameter.annotation
    return parameter.name in ("message", "msg") or annotation is Message or annotation in ("Message", "drover.Message")


def _is_context(parameter: inspect.Parameter) -> bool:
    annotation = parameter.annotation
    return parameter.name in ("context", "ctx") or annotation is Context or annotation in ("Context", "drover.Context")
