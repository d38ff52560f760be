"""Loads the app's functions, and converts their exceptions to results."""

from __future__ import annotations

import inspect
import json
import os
import resource
import sys
import traceback
from types import FrameType, ModuleType
from typing import Any, Callable, Mapping, Sequence

from drover import _LONGEST_RETRY, Message, Reject, Retry, Timeout
from drover.forms import AZURE, Misfit, form, is_async, place_of, web_kind
from drover.modules import modules_of
from drover.payloads import FAILURE, OK, REJECT, RETRY
from drover.results import Result, Unsendable, article, encoder
from drover.streaming import streams

_HERE = os.path.dirname(os.path.abspath(__file__))


class LoadError(Exception):
    def __init__(self, summary: str, detail: str = "") -> None:
        super().__init__(summary)
        self.detail = detail


# The duration of a call before the first one: it may be long.
UNKNOWN = 1 << 62


class Function:
    """A function of the app and how to call it."""

    __slots__ = ("call", "due", "encode", "is_async", "name", "shown", "stays", "streams", "took", "urgent", "wants_body", "wants_context", "wants_invocation", "warned")

    def __init__(
        self, name: str, call: Callable[..., Any], results: str = "", outputs: Sequence[str] = (), replies: bool = False, batch: bool = False
    ) -> None:
        self.name = name
        self.call = call
        self.streams = replies and streams.enabled  # whether a generator that it returns is sent in parts
        self.stays = False  # whether it must run on the worker's event loop, and not in threads
        self.due = 0  # the time from which the next call is measured, by time.perf_counter_ns
        self.took = UNKNOWN  # the duration of the last measured call, in ns
        self.urgent = replies  # whether somebody waits for its results
        self.warned = False  # whether the warning about a returned awaitable was sent
        self.encode: Callable[[object], Result] = encoder(results, outputs, replies)
        self.shown = results == "shown"  # whether a value that cannot be encoded is only a warning
        self.wants_invocation = False
        kind = web_kind(call) if replies else ""
        if kind:
            from drover.web import make_call

            web = make_call(kind, call)
            self.call, self.is_async, self.wants_body, self.wants_context = web.call, web.is_async, False, False
            self.streams, self.stays, self.encode = False, web.is_async, _encoded
            return
        self.is_async = is_async(call)
        takes = form(call, self.streams, batch)
        self.wants_body, self.wants_context = takes.wants_body, takes.wants_context
        if self.streams and inspect.isasyncgenfunction(call):
            self.call, self.is_async = _returned(call), True
        if batch:
            from drover import batches

            batches.wrap(self, takes, outcome)
        elif not takes.is_plain:
            self.call = takes.adapt(self.call, replies)

    @classmethod
    def of_function_app(cls, name: str, call: Callable[..., Any], is_async: bool, stays: bool, urgent: bool) -> Function:
        """Makes a function of a function app. Its call takes an invocation, and returns the status
        and payload of the result; None for an empty one."""
        made = cls.__new__(cls)
        made.name, made.call, made.is_async = name, call, is_async
        made.due, made.took, made.warned, made.shown = 0, UNKNOWN, False, False
        made.streams, made.stays, made.urgent = False, stays, urgent
        made.wants_body = made.wants_context = False
        made.wants_invocation = True
        made.encode = _encoded
        return made


def _encoded(answer: Any) -> Result:
    """Encodes the result of a function of a function app, or of an ASGI or WSGI app, which is encoded
    already."""
    encoded: Result = answer
    return encoded


def _returned(call: Callable[..., Any]) -> Callable[..., Any]:
    """Returns an async function that returns the async generator of another one."""

    async def generator(*arguments: Any) -> Any:
        return call(*arguments)

    return generator


def load(path: str, wanted: Sequence[Mapping[str, Any]]) -> list[Function]:
    """Imports the functions that the daemon requests; raises LoadError."""
    functions: list[Function] = []
    modules = modules_of(path)
    for want in wanted:
        if want.get("azure"):
            functions.append(_load_azure(path, want))
            continue
        module_name, name = want["module"], want["function"]
        try:
            module = modules.load(module_name)
        except BaseException as error:  # an import may raise anything, even SystemExit
            raise LoadError(_import_summary(path, module_name, error), cut_traceback(error)) from None
        try:
            call = getattr(module, name)
        except AttributeError:
            raise LoadError(_no_function(module, module_name, name)) from None
        if not callable(call):
            raise LoadError(f"{module_name}.{name} is not a function, but {article(call)}")
        try:
            functions.append(Function(want["name"], call, want.get("results", ""), want.get("outputs") or (), want.get("reply", False), bool(want.get("batch"))))
        except Misfit as error:
            raise LoadError(f"{place_of(call)}{module_name}.{name}{error}") from None
    return functions


def _load_azure(path: str, want: Mapping[str, Any]) -> Function:
    """Loads a function of a function app; raises LoadError."""
    from drover.azure import bind
    from drover.azure_apps import Missing, find_call

    azure, name = want["azure"], want["name"]
    try:
        bound = bind(want, find_call(path, azure.get("name") or name, azure), outcome)
    except Missing as error:
        raise LoadError(f"function {name}: {error}") from None
    except Misfit as error:
        raise LoadError(f"function {name}{error}") from None
    except BaseException as error:  # an import may raise anything, even SystemExit
        raise LoadError(f"function {name}: importing the function app {path}: {one_line(error)}", cut_traceback(error)) from None
    return Function.of_function_app(name, bound.call, bound.is_async, bound.stays, bool(want.get("reply")))


def _import_summary(path: str, module: str, error: BaseException) -> str:
    summary = f"importing {module} from {path}: {one_line(error)}"
    if isinstance(error, ModuleNotFoundError):
        missing = (error.name or "").partition(".")[0]
        if missing == "azure" and any("azure.functions" in (frame.line or "") for frame in traceback.extract_tb(error.__traceback__)[-1:]):
            return f"{summary}; {AZURE}"
        if missing != module.partition(".")[0]:
            return f"{summary} (by {sys.executable}; to install it there: {sys.executable} -m pip install {missing})"
        return f"{summary} (by {sys.executable}); is there a file {module.replace('.', '/')}.py, and is path right?"
    if isinstance(error, ImportError) and "beyond top-level package" in str(error):
        return f"{summary}; it names a directory above path: set path to that directory, and module to the package and its module, as in orders.{module}"
    return summary


def _no_function(module: ModuleType, module_name: str, name: str) -> str:
    found = [n for n, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == module.__name__]
    return f"{module_name} has no function {name}; it has: {', '.join(sorted(found)) or 'none'}"


def _said(error: BaseException) -> str:
    try:
        return " ".join(str(error)[:10_000].split())[:1000]
    except Timeout:
        raise
    except BaseException as broken:  # raised by its own __str__
        return f"its text raised {type(broken).__name__}"


def one_line(error: BaseException) -> str:
    text, name = _said(error), type(error).__name__
    if isinstance(error, MemoryError):
        text = "; ".join(filter(None, (text, _address_space())))
    elif isinstance(error, AttributeError) and _expected_message(text):
        text += "; the function gets the body as bytes: name its parameter message, or annotate it drover.Message, to get the message"
    return f"{name}: {text}" if text else name


def _expected_message(text: str) -> bool:
    """Returns whether the text of an AttributeError shows that a function used the bytes of
    a body as a Message."""
    words = text.split("'")
    return text.startswith("'bytes' object has no attribute '") and not words[3].startswith("_") and hasattr(Message, words[3])


def _address_space() -> str:
    """Returns a text about the limit of this process's memory, if it has one."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return "" if limit == resource.RLIM_INFINITY else f"limits.address_space is {limit >> 20} MiB"


def cut_traceback(error: BaseException) -> str:
    """Returns the traceback without the worker's own frames before the app's."""
    tb = error.__traceback__
    while tb is not None and _is_ours(tb.tb_frame):
        tb = tb.tb_next
    return "".join(traceback.format_exception(type(error), error, tb, limit=-2000))[-64_000:]


def _is_ours(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    return name.startswith((_HERE, "<frozen importlib")) or name.endswith("/importlib/__init__.py")


# Called with the exception of a call, in a worker that is debugged.
failed: Callable[[BaseException], None] | None = None


def outcome(error: BaseException) -> tuple[int, bytes]:
    """Returns the status and payload of a result for any exception."""
    if failed is not None:
        failed(error)
    try:
        return _outcome(error)
    except Timeout as late:  # it was raised only now
        return _outcome(late)
    except BaseException as broken:
        summary = f"{type(error).__name__}, whose text cannot be read ({type(broken).__name__})"
        return FAILURE, json.dumps({"summary": summary}).encode()


def _outcome(error: BaseException) -> tuple[int, bytes]:
    if isinstance(error, (Reject, Unsendable)):
        return REJECT, json.dumps({"summary": _said(error) or "rejected"}).encode()
    if isinstance(error, Retry) and error.after is not None:
        if not 0 <= error.after <= _LONGEST_RETRY:  # it was changed after its constructor had checked it
            summary = f"{one_line(error)} (after is {error.after}; it is from 0 to {_LONGEST_RETRY} seconds)"
            return FAILURE, json.dumps({"summary": summary, "detail": cut_traceback(error)}).encode()
        summary = _said(error) or "the function requested a retry"
        return RETRY, json.dumps({"summary": summary, "after": error.after}).encode()
    return FAILURE, json.dumps({"summary": one_line(error), "detail": cut_traceback(error)}).encode()


__all__ = ["OK", "Function", "LoadError", "cut_traceback", "load", "one_line", "outcome"]
