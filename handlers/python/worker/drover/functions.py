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
from drover.forms import AZURE, Misfit, form
from drover.frames import FAILURE, OK, REJECT, RETRY
from drover.modules import modules_of
from drover.results import Unsendable, article, drop, result

_HERE = os.path.dirname(os.path.abspath(__file__))


class LoadError(Exception):
    def __init__(self, summary: str, detail: str = "") -> None:
        super().__init__(summary)
        self.detail = detail


class Function:
    """A function of the app and how to call it."""

    __slots__ = ("call", "due", "encode", "is_async", "name", "shown", "wants_body", "wants_context", "warned")

    def __init__(self, name: str, call: Callable[..., Any], results: str = "") -> None:
        self.name = name
        self.call = call
        self.due = 0  # the time from which the next call is measured, by time.perf_counter_ns
        self.warned = False  # whether the warning about a returned awaitable was sent
        self.encode: Callable[[object], tuple[int, bytes]] = drop if results == "dropped" else result
        self.shown = results == "shown"  # whether a value that cannot be encoded is only a warning
        self.is_async = inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None))
        self.wants_body, self.wants_context = form(call)


def load(path: str, wanted: Sequence[Mapping[str, str]]) -> list[Function]:
    """Imports the functions that the daemon requests; raises LoadError."""
    functions: list[Function] = []
    modules = modules_of(path)
    for want in wanted:
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
            raise LoadError(f"{module_name}.{name} is no function, but {article(call)}")
        try:
            functions.append(Function(want["name"], call, want.get("results", "")))
        except Misfit as error:
            raise LoadError(f"{module_name}.{name}{error}") from None
    return functions


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


def outcome(error: BaseException) -> tuple[int, bytes]:
    """Returns the status and payload of a result for any exception."""
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
