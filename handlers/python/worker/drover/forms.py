"""Derives the form of a function, its arguments, from its parameters."""

from __future__ import annotations

import collections.abc
import functools
import inspect
import sys
import types
import typing
from typing import Any, Callable, NamedTuple, Optional, Sequence, Tuple

from drover import Context, Message, Reject, Response

FORMS = (
    "a function takes (body), (message) or (message, context), or parameters that are annotated: bytes, str, or a type to decode the body as,"
    " drover.Message, drover.Context (docs/python.md)"
)
_PAGE = 'docs/python.md, "Functions written for Azure Functions"'
AZURE = f"drover does not provide azure.functions; write a plain function, as in: def orders(message): ... ({_PAGE}, has what takes the place of what)"


class Misfit(Exception):
    """The function cannot be called; the text follows its name."""


# The parameters of an ASGI and of a WSGI app.
_WEB = {("scope", "receive", "send"): "asgi", ("environ", "start_response"): "wsgi", ("env", "start_response"): "wsgi"}


def web_kind(call: Callable[..., Any]) -> str:
    """Returns asgi or wsgi for such an app, by the names of its parameters; "" for any other
    function."""
    try:
        names = tuple(signature_of(call).parameters)
    except (TypeError, ValueError):
        return ""
    return _WEB.get(names, "")


def signature_of(call: Callable[..., Any], follow_wrapped: bool = True) -> inspect.Signature:
    """Returns a signature, even if a name in its annotations is not defined."""
    if sys.version_info >= (3, 14):
        from annotationlib import Format

        return inspect.signature(call, follow_wrapped=follow_wrapped, annotation_format=Format.FORWARDREF)
    return inspect.signature(call, follow_wrapped=follow_wrapped)


class Form(NamedTuple):
    """What a function takes."""

    kinds: Tuple[str, ...]  # of its arguments, in order: body, message or context
    decode: Optional[Callable[[bytes], Any]] = None  # decodes a body; None: it is passed unchanged

    @property
    def wants_body(self) -> bool:
        """Whether it takes only the body."""
        return self.kinds == ("body",)

    @property
    def wants_context(self) -> bool:
        return "context" in self.kinds

    @property
    def is_plain(self) -> bool:
        """Whether the function can be called without adapt."""
        return self.decode is None and self.kinds in (("body",), ("message",), ("message", "context"))

    def adapt(self, call: Callable[..., Any], replies: bool = False) -> Callable[..., Any]:
        """Returns a function that takes the body, the message, or the message and the context, and
        calls call with its arguments. For a body that does not fit it raises BadBody or, if the
        function replies to requests, returns the response 400."""
        decode, kinds, refused = self.decode or bytes, self.kinds, _refused_later if is_async(call) else _refused
        if kinds == ("body",) and not replies:
            return lambda body: call(decode(body))

        def adapted(given: Any, context: Any = None) -> Any:
            arguments = {"message": given, "context": context}
            if "body" in kinds:
                try:
                    arguments["body"] = decode(given if kinds == ("body",) else given.body)
                except Reject as error:
                    if not replies:
                        raise
                    return refused(error)
            return call(*[arguments[kind] for kind in kinds])

        return adapted


def is_async(call: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None))


def _refused(error: Reject) -> Response:
    return Response(f"{error}\n", 400)


async def _refused_later(error: Reject) -> Response:
    return _refused(error)


def form(call: Callable[..., Any], streams: bool = False, batch: bool = False) -> Form:
    """Returns what a function takes; raises Misfit. streams means that it may be a generator
    function, and batch that it takes lists."""
    if type(call).__module__.startswith("azure.functions"):
        raise Misfit(f" is decorated for Azure Functions: {AZURE}")
    if inspect.isclass(call):
        raise Misfit(f" is a class, and not a function; name a function that makes what it needs, or an instance that has __call__: {FORMS}")
    if not streams:
        _check_body(call)
    signature, call = _signature(call)
    if signature is None:
        return Form(("message",) if batch else ("body",))
    scope = getattr(inspect.unwrap(plain_function(call)), "__globals__", {})
    parameters = list(signature.parameters.values())
    for annotation in [p.annotation for p in parameters] + [signature.return_annotation]:
        if "azure.functions" in _text(annotation, scope):
            raise Misfit(f" takes or returns a type of azure.functions: {AZURE}")
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    named = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if not positional and any(p.kind is p.VAR_POSITIONAL for p in parameters):
        raise Misfit(f"{signature} cannot be called, as its parameters do not say what it takes; if a decorator made it, have that use functools.wraps: {FORMS}")
    if named or not positional:
        raise Misfit(f"{signature} cannot be called: {FORMS}")
    try:
        return _Parameters(positional, scope, batch).form()
    except Misfit as error:
        raise Misfit(f"{signature}{error}") from None


_MESSAGES, _CONTEXTS = ("message", "msg"), ("context", "ctx")
_OURS = (bytes, str, Message, Context)
_LISTS = (list, collections.abc.Sequence, collections.abc.Collection, collections.abc.Iterable)
_BY_NAME = {"Message": Message, "drover.Message": Message, "Context": Context, "drover.Context": Context}


class _Parameters:
    """Assigns a kind to each parameter of a function."""

    def __init__(self, positional: Sequence[inspect.Parameter], scope: dict[str, Any], batch: bool) -> None:
        self._scope = scope
        self._batch = batch
        self._taken: list[inspect.Parameter] = []
        for p in positional:
            if self._taken and p.default is not p.empty and not self._is_ours(p):
                break  # it keeps its default, like those that follow
            self._taken.append(p)
        self._hints = [self._hint(p) for p in self._taken]

    def form(self) -> Form:
        taken = self._taken
        if len(taken) > 1 and taken[0].name in _CONTEXTS and self._hints[0] is Any:
            raise Misfit(f" has its parameters in the wrong order: {FORMS}")
        kinds = [self._kind(p.name, hint) for p, hint in zip(taken, self._hints)]
        if len(kinds) > 1:
            kinds[1] = kinds[1] or "context"
        if not kinds[0]:
            kinds[0] = "message" if self._batch or "context" in kinds and "message" not in kinds else "body"
        if "" in kinds:
            raise Misfit(f" cannot be called: {FORMS}")
        for kind in kinds:
            names = [p.name for p, k in zip(taken, kinds) if k == kind]
            if len(names) > 1:
                raise Misfit(f" cannot be called: its parameters {' and '.join(names)} would both get the {kind}: {FORMS}")
        return Form(tuple(kinds), self._decoder(kinds.index("body")) if "body" in kinds else None)

    def _is_ours(self, parameter: inspect.Parameter) -> bool:
        """Returns whether a parameter with a default gets the message or the context."""
        try:
            hint = self._hint(parameter)
        except Misfit:
            return False
        if hint is Any:
            return parameter.name in _CONTEXTS and len(self._taken) == 1
        return hint is Context or (_element(hint) if self._batch else hint) is Message

    def _kind(self, name: str, hint: Any) -> str:
        """Returns the kind of a parameter; "" if its position decides."""
        if hint is Any:
            if name in _MESSAGES or self._batch and name in ("messages", "msgs"):
                return "message"
            return "context" if name in _CONTEXTS and len(self._taken) > 1 else ""
        if hint is Context:
            return "context"
        if name in _CONTEXTS:
            raise Misfit(f": its parameter {name} is annotated {_shown(hint)}; annotate it drover.Context")
        if not self._batch:
            if _element(hint) is Message:
                raise Misfit(f": its parameter {name} is annotated {_shown(hint)}, but the function takes one message; annotate it drover.Message, or set batch in its configuration")
            return "message" if hint is Message else "body"
        element = _element(hint)
        if element is None:
            raise Misfit(f": its parameter {name} is annotated {_shown(hint)}, but the function takes batches, as its configuration has batch; annotate it list[{_shown(hint)}]")
        return "message" if element is Message or element is Any else "body"

    def _decoder(self, at: int) -> Callable[[bytes], Any] | None:
        hint = _element(self._hints[at]) if self._batch else self._hints[at]
        if hint is bytes or hint is Any:
            return None
        from drover.decoding import Unserved, body_decoder

        try:
            return body_decoder(hint)
        except Unserved as error:
            raise Misfit(f": its parameter {self._taken[at].name}: {error}") from None

    def _hint(self, parameter: inspect.Parameter) -> Any:
        """Returns the annotation of a parameter, evaluated; Any if there is none."""
        annotation = parameter.annotation
        if annotation is parameter.empty:
            return Any
        holder = types.SimpleNamespace(__annotations__={"hint": annotation})
        try:
            return _stripped(typing.get_type_hints(holder, self._scope, include_extras=True)["hint"])
        except Exception as error:
            text = annotation if isinstance(annotation, str) else getattr(annotation, "__forward_arg__", "")
            ours = _BY_NAME.get(text.strip("'\""))
            if isinstance(error, NameError) and ours is not None:
                return ours  # it was imported for the type checker only
            from drover.decoding import unevaluated

            raise Misfit(f": the annotation of its parameter {parameter.name} cannot be evaluated: {unevaluated(error)}") from None


def _stripped(hint: Any) -> Any:
    """Returns a type without wrappers that do not matter for the types of _OURS."""
    if hint is object:
        return Any
    inner = getattr(hint, "__supertype__", None) or hasattr(hint, "__metadata__") and hint.__origin__
    if inner and _stripped(inner) in _OURS:
        return _stripped(inner)
    if type(None) in typing.get_args(hint) and _element(hint) is None:
        others = [each for each in typing.get_args(hint) if each is not type(None)]
        if len(others) == 1 and others[0] in (Message, Context):
            return others[0]
    return hint


def _element(hint: Any) -> Any:
    """Returns the type of the elements of a list; Any if it has none, and None for another type."""
    if (typing.get_origin(hint) or hint) not in _LISTS:
        return None
    return _stripped((*typing.get_args(hint), Any)[0])


def _shown(hint: Any) -> str:
    from drover.decoding import shown

    return shown(hint)


def _check_body(call: Callable[..., Any]) -> None:
    """Raises Misfit for a generator function, which runs only when its result is iterated over."""
    call = plain_function(call)
    for check, what in ((inspect.isgeneratorfunction, "a generator function"), (inspect.isasyncgenfunction, "an async generator function")):
        if check(call):
            raise Misfit(f" is {what} (it has yield), so its code would not run; return a list or another complete value")


def plain_function(call: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function of a functools.partial, or of an object with __call__."""
    while isinstance(call, functools.partial):
        call = call.func
    if not (inspect.isroutine(call) or inspect.isclass(call)):
        call = getattr(type(call), "__call__", call)
    return call


def place_of(call: Callable[..., Any]) -> str:
    """Returns the file and the line of a function, with a colon and a space; "" if they are unknown."""
    code = getattr(inspect.unwrap(plain_function(call)), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}: " if code is not None else ""


def _signature(call: Callable[..., Any]) -> tuple[inspect.Signature | None, Callable[..., Any]]:
    """Returns the signature of the outermost function with explicit parameters, and that function:
    a decorator may have other parameters than the function that it decorates. The signature is
    None if it is unknown."""
    while True:
        try:
            signature = signature_of(call, follow_wrapped=False)
        except (TypeError, ValueError):
            return None, call
        kinds = {p.kind for p in signature.parameters.values()}
        inner = getattr(call, "__wrapped__", None)
        if inner is None or not callable(inner) or kinds - {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD} or inspect.Parameter.VAR_POSITIONAL not in kinds:
            return signature, call
        if inspect.ismethod(call) and inspect.isfunction(inner):
            inner = inner.__get__(call.__self__)
        call = inner


def _text(annotation: object, scope: dict[str, Any]) -> str:
    """Returns an annotation as text with its module."""
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, scope)
        except Exception:  # only a type checker can evaluate it
            return ""
    try:
        return repr(annotation)
    except Exception:
        return ""
