"""Loads the app's functions, calls them, and turns what they do into replies."""

import importlib
import inspect
import json
import os
import sys
import traceback

from drover import _LONGEST_RETRY, Message, Reject, Retry, Timeout
from drover.frames import FAILURE, OK, REJECT, RETRY

FORMS = "a function takes (body), (message) or (message, context)"
_HERE = os.path.dirname(os.path.abspath(__file__))


class LoadError(Exception):
    def __init__(self, summary, detail=""):
        super().__init__(summary)
        self.detail = detail


class Function:
    """A function of the app and how to call it."""

    __slots__ = ("call", "due", "is_async", "name", "wants_body", "wants_context")

    def __init__(self, name, call):
        self.name = name
        self.call = call
        self.due = 0  # when a call is to be measured next, by time.perf_counter_ns
        self.is_async = inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None))
        self.wants_body, self.wants_context = _form(name, call)


def _form(name, call):
    try:
        parameters = list(inspect.signature(call).parameters.values())
    except (TypeError, ValueError):
        return True, False  # a builtin: give it the bytes
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    extra = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if extra or len(required) > 2 or not positional:
        raise LoadError(f"{name}{inspect.signature(call)} cannot be called: {FORMS}")
    if len(required) == 2:
        return False, True
    first = positional[0]
    is_message = first.name in ("message", "msg") or first.annotation is Message
    if isinstance(first.annotation, str):
        is_message = is_message or first.annotation in ("Message", "drover.Message")
    return not is_message, False


def load(path, wanted):
    """Imports the functions that the daemon wants; raises LoadError."""
    if path not in sys.path[:1]:
        sys.path.insert(0, path)
    functions = []
    for want in wanted:
        module_name, name = want["module"], want["function"]
        try:
            module = importlib.import_module(module_name)
        except BaseException as error:  # whatever an import does, SystemExit too
            raise LoadError(_import_summary(path, module_name, error), cut_traceback(error)) from None
        try:
            call = getattr(module, name)
        except AttributeError:
            raise LoadError(_no_function(module, module_name, name)) from None
        if not callable(call):
            raise LoadError(f"{module_name}.{name} is no function, but {_article(call)}")
        functions.append(Function(want["name"], call))
    return functions


def _import_summary(path, module, error):
    summary = f"importing {module} from {path}: {one_line(error)}"
    if isinstance(error, ModuleNotFoundError):
        missing = (error.name or "").partition(".")[0]
        if missing != module.partition(".")[0]:
            return f"{summary} (by {sys.executable}; to install it there: {sys.executable} -m pip install {missing})"
        return f"{summary} (by {sys.executable}); is there a file {module.replace('.', '/')}.py, and is path right?"
    return summary


def _no_function(module, module_name, name):
    found = [n for n, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == module.__name__]
    return f"{module_name} has no function {name}; it has: {', '.join(sorted(found)) or 'none'}"


def _article(value):
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def encode(value):
    """The bytes of what a function returned; raises TypeError."""
    if value is None:
        return b""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"returned {_article(value)}, which cannot be sent: {error}; return None, bytes, str or what json.dumps takes"
        ) from None


def _said(error):
    try:
        return " ".join(str(error)[:10_000].split())[:1000]
    except Timeout:
        raise
    except BaseException as broken:  # of its own __str__
        return f"its text raised {type(broken).__name__}"


def one_line(error):
    text, name = _said(error), type(error).__name__
    return f"{name}: {text}" if text else name


def cut_traceback(error):
    """The traceback without the worker's own frames before the app's."""
    tb = error.__traceback__
    while tb is not None and _is_ours(tb.tb_frame):
        tb = tb.tb_next
    return "".join(traceback.format_exception(type(error), error, tb, limit=-2000))[-64_000:]


def _is_ours(frame):
    name = frame.f_code.co_filename
    return name.startswith((_HERE, "<frozen importlib")) or name.endswith("/importlib/__init__.py")


def outcome(error):
    """The status and payload of a reply about an exception, however odd that is."""
    try:
        return _outcome(error)
    except Timeout as late:  # it came just now
        return _outcome(late)
    except BaseException as broken:
        summary = f"{type(error).__name__}, of which no more can be told ({type(broken).__name__})"
        return FAILURE, json.dumps({"summary": summary}).encode()


def _outcome(error):
    if isinstance(error, Reject):
        return REJECT, json.dumps({"summary": _said(error) or "rejected"}).encode()
    if isinstance(error, Retry) and error.after is not None:
        if not 0 <= error.after <= _LONGEST_RETRY:  # it was set later
            summary = f"{one_line(error)} (after is {error.after}; it is from 0 to {_LONGEST_RETRY} seconds)"
            return FAILURE, json.dumps({"summary": summary, "detail": cut_traceback(error)}).encode()
        summary = _said(error) or "the function asked to be tried again"
        return RETRY, json.dumps({"summary": summary, "after": error.after}).encode()
    return FAILURE, json.dumps({"summary": one_line(error), "detail": cut_traceback(error)}).encode()


__all__ = ["OK", "Function", "LoadError", "cut_traceback", "encode", "load", "one_line", "outcome"]
