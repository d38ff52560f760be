"""Checks that a function of a function app fits its bindings, as the runtime of Azure Functions does."""

from __future__ import annotations

import collections.abc
import difflib
import inspect
import typing
from typing import Any, Callable, List, Mapping, Optional, Sequence, Tuple

from drover.azure_apps import is_request
from drover.forms import signature_of

# The types whose annotations are checked. Of others only the names are.
_KNOWN = ("queueTrigger", "queue", "serviceBusTrigger", "serviceBus", "httpTrigger", "http", "timerTrigger")
_PLAIN = (str, bytes)
_QUEUES = ("queue", "serviceBus")
_MANY = (list, set, collections.abc.Iterable, collections.abc.Iterator, collections.abc.Generator, collections.abc.Sequence)

# A message, and the name of the binding that it is about; empty for the function.
Found = Tuple[str, str]


def check(call: Callable[..., Any], bindings: Sequence[Mapping[str, Any]], where: str) -> List[Found]:
    """Everything that is wrong. where names the place of the bindings: decorator or function.json."""
    found = list(_directions(bindings))
    try:
        parameters = dict(signature_of(call).parameters)
    except (TypeError, ValueError) as error:
        return [*found, (f"its parameters cannot be read: {error}", "")]
    try:
        hints = typing.get_type_hints(call)
    except Exception as error:
        return [*found, (f"its annotations cannot be resolved: {type(error).__name__}: {error}", "")]
    bound = {b["name"]: b for b in bindings if b["name"] != "$return"}
    if "context" in parameters and "context" not in bound:
        parameters.pop("context")
        hint = hints.get("context")
        if hint is not None and getattr(hint, "__name__", "") != "Context":
            found.append((f"its parameter context is annotated {_named(hint)}; write func.Context, or give the parameter another name", ""))
    found += _names(parameters, bound, where)
    requests = [name for name in bound if bound[name]["type"] == "httpTrigger" and is_request(hints.get(name))]
    for name in parameters:
        if name in bound and name in hints and name not in requests:
            message = _annotation(name, bound[name], hints[name])
            if message:
                found.append((message, name))
    returned = next((b for b in bindings if b["name"] == "$return"), None)
    if returned is not None and "return" in hints and not requests:  # FastAPI converts many types
        message = _returns(returned, hints["return"])
        if message:
            found.append((message, "$return"))
    return found


def _directions(bindings: Sequence[Mapping[str, Any]]) -> typing.Iterator[Found]:
    for binding in bindings:
        direction = _direction(binding)
        if direction == "inout":
            yield f"its binding {binding['name']} has the direction inout, which Python functions cannot have; make it in or out", binding["name"]
        elif binding["name"] == "$return" and direction != "out":
            yield "its binding $return has the direction in; the result of a function goes out: set direction to out", "$return"


def _names(parameters: Mapping[str, inspect.Parameter], bound: Mapping[str, Any], where: str) -> typing.Iterator[Found]:
    """The parameters without a binding, and the bindings without a parameter, in pairs if there are."""
    extra = [name for name in parameters if name not in bound]
    unused = [name for name in bound if name not in parameters]
    word = "arg_name" if where == "decorator" else "name in function.json"
    for name in extra:
        kind = parameters[name].kind
        if kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            stars = "*" if kind is inspect.Parameter.VAR_POSITIONAL else "**"
            yield f"its parameter {stars}{name} has no binding; name each parameter as its binding, or use functools.wraps in the decorator that made it", ""
            continue
        near = (difflib.get_close_matches(name, unused, 1, 0.3) or unused[:1]) if unused else []
        if near:
            unused.remove(near[0])
            what = "trigger" if _is_trigger(bound[near[0]]) else "binding"
            yield f"the {what}'s {word} is {near[0]}, but the function's parameter is {name}; did you mean {near[0]}? They must be the same", near[0]
        else:
            yield f"its parameter {name} has no binding; remove it, or add a binding with the {word} {name}", ""
    for name in unused:
        what = "trigger" if _is_trigger(bound[name]) else "binding"
        yield f"the {what} {name} ({bound[name]['type']}) has no parameter; add a parameter {name} to the function", name


def _annotation(name: str, binding: Mapping[str, Any], hint: Any) -> str:
    """What is wrong with the annotation of a parameter; empty if nothing is."""
    out = _direction(binding) == "out"
    is_out = getattr(typing.get_origin(hint) or hint, "__name__", "") == "Out"
    if out and not is_out:
        return f"its parameter {name} is an output, but is annotated {_named(hint)}; write func.Out[{_named(hint)}]"
    if is_out and not out:
        return f"its parameter {name} is an input, but is annotated {_named(hint)}; write the type without func.Out"
    if is_out:
        inner = typing.get_args(hint)
        if len(inner) != 1:
            return f"its parameter {name} is annotated {_named(hint)}; write func.Out with one type, such as func.Out[str]"
        hint = inner[0]
    return _fits(f"its parameter {name}", binding, hint, out)


def _returns(binding: Mapping[str, Any], hint: Any) -> str:
    if getattr(typing.get_origin(hint) or hint, "__name__", "") == "Out":
        return f"its result is annotated {_named(hint)}; write the type without func.Out"
    if hint is type(None):
        return f"it returns None by its annotation, but $return is bound to {binding['type']}; annotate what it returns, or remove the binding"
    return _fits("its result", binding, hint, True)


def _fits(what: str, binding: Mapping[str, Any], hint: Any, out: bool) -> str:
    if not isinstance(hint, type) and not _generic(hint):
        return f"{what} is annotated {_named(hint)}, which is not a type that a binding can have; write one type"
    kind = binding["type"]
    if kind not in _KNOWN or hint in _PLAIN and not (out and kind == "http"):
        return ""
    if out and kind in _QUEUES and _can_send(hint):
        return ""
    if str(getattr(hint, "__module__", "")).startswith("azurefunctions.extensions"):
        return ""  # types of another package, which checks them itself
    if typing.get_origin(hint) is list:
        hint = List[typing.get_args(hint)[0]]  # type: ignore[misc]  # the library knows this form only
    converter: Any = _converter(kind)
    try:
        ok = converter is None or (converter.check_output_type_annotation(hint) if out else converter.check_input_type_annotation(hint))
    except TypeError:  # of issubclass
        ok = False
    return "" if ok else f"{what} is annotated {_named(hint)}, which does not fit the binding {kind}; use {_usual(kind)}"


def _can_send(hint: Any) -> bool:
    """Whether drover sends values of an annotated type to a queue or topic. The library has fewer."""
    if typing.get_origin(hint) in _MANY:
        return all(map(_can_send, typing.get_args(hint)[:1]))  # of a generator: what it yields
    if typing.get_origin(hint) is typing.Union:  # of the elements of a list; elsewhere Azure refuses it
        return all(map(_can_send, typing.get_args(hint)))
    if hint in (str, bytes, dict, list, object):
        return True
    return isinstance(hint, type) and any(base.__name__ in ("ServiceBusMessage", "QueueMessage") and base.__module__.startswith("azure.") for base in hint.__mro__)


def _converter(kind: str) -> Optional[object]:
    from azure.functions import get_binding_registry

    registry: Any = get_binding_registry()
    return typing.cast(Optional[object], registry.get(kind))


def _usual(kind: str) -> str:
    return {
        "queueTrigger": "func.QueueMessage, str or bytes",
        "queue": "str, bytes, func.QueueMessage, or typing.List of these",
        "serviceBusTrigger": "func.ServiceBusMessage, str or bytes, or typing.List[func.ServiceBusMessage] with cardinality many",
        "serviceBus": "str, bytes, azure.servicebus.ServiceBusMessage, or typing.List of these",
        "httpTrigger": "func.HttpRequest",
        "http": "func.HttpResponse or str",
        "timerTrigger": "func.TimerRequest",
    }[kind]


def _generic(hint: Any) -> bool:
    """Whether an annotation is a type with arguments, but no union or callable."""
    origin = typing.get_origin(hint)
    return isinstance(origin, type) and origin not in (tuple, collections.abc.Callable) and getattr(origin, "__name__", "") != "UnionType"


def _direction(binding: Mapping[str, Any]) -> str:
    return str(binding.get("direction", "in")).lower()


def _is_trigger(binding: Mapping[str, Any]) -> bool:
    return str(binding["type"]).lower().endswith("trigger")


def _named(hint: Any) -> str:
    if isinstance(hint, type) and typing.get_origin(hint) is None:
        module = "func." if hint.__module__.startswith("azure.functions") else ""
        return "None" if hint is type(None) else module + hint.__name__
    return repr(hint).replace("azure.functions._abc.", "func.").replace("azure.functions.", "func.")
