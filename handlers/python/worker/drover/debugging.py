"""Runs functions under pdb, in a worker whose standard input is a terminal: that of
drover invoke --debug and drover replay --debug."""

from __future__ import annotations

import os
import sys
from types import CodeType
from typing import Any, Callable, Mapping, NoReturn, Sequence

from drover import functions
from drover.modules import modules_of

# pdb and what it needs are imported only by workers that use them.

_HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")
# Stepping out of a function does not step through the worker or the event loop.
_SKIPPED = ["drover", "drover.*", "asyncio", "asyncio.*"]
_PLAIN = "PYTHONBREAKPOINT" not in os.environ


def has_terminal() -> bool:
    return os.isatty(0)


def refuse_breakpoints() -> None:
    """Makes breakpoint() fail with advice in a worker without a terminal, where pdb would end at once.
    PYTHONBREAKPOINT overrides this, for other debuggers."""
    if _PLAIN:
        sys.breakpointhook = _refuse


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise RuntimeError(
        "breakpoint() needs a terminal, which only a worker of drover invoke FUNCTION --debug or drover replay ID --debug has;"
        " docs/debugging.md has the debuggers of editors"
    )


def start(path: str, wanted: Sequence[Mapping[str, Any]]) -> None:
    """Stops once at the first line of each function of LOAD, and where a function raises an exception.
    It is called in the thread that runs functions, after they were loaded."""
    if not _PLAIN:
        return  # another debugger
    import bdb
    import pdb

    class Stops(pdb.Pdb):
        own: set[str] = set()

        def do_clear(self, arg: str) -> None:
            """Is called with the number of a temporary breakpoint that was reached, too. The worker's
            own are deleted without a line that mentions them: the user did not set them."""
            if arg in self.own:
                self.own.discard(arg)
                self.clear_bpbynumber(int(arg))
            else:
                super().do_clear(arg)

    functions.failed = _inspect
    stops = Stops(nosigint=True, skip=_SKIPPED)
    for want in wanted:
        code = _code_of(_find(path, want))
        if code is not None and os.path.abspath(code.co_filename).startswith(os.path.join(os.path.abspath(path), "")):
            stops.set_break(code.co_filename, code.co_firstlineno, temporary=True, funcname=code.co_name)
    if not stops.breaks:
        return
    stops.own = {str(stop.number) for stop in bdb.Breakpoint.bpbynumber if stop}
    stops.reset()
    stops.botframe = sys._getframe()
    stops.set_continue()
    sys.settrace(stops.trace_dispatch)


def _find(path: str, want: Mapping[str, Any]) -> Any:
    azure = want.get("azure")
    if azure:
        from drover.azure_apps import find_call

        return find_call(path, azure.get("name") or want["name"], azure)
    return getattr(modules_of(path).load(want["module"]), want["function"])


def _code_of(call: Callable[..., Any]) -> CodeType | None:
    """Returns the code of a function, below its decorators; None if it has none in Python."""
    import functools
    import inspect

    while isinstance(call, functools.partial):
        call = call.func
    try:
        call = inspect.unwrap(call)
    except ValueError:  # a circle
        return None
    code = getattr(getattr(call, "__func__", call), "__code__", None) or getattr(getattr(type(call), "__call__", None), "__code__", None)
    return code if isinstance(code, CodeType) else None


def _inspect(error: BaseException) -> None:
    """Opens the debugger where an exception was raised. Quitting it ends the call."""
    import bdb
    import pdb
    import traceback

    tb = error.__traceback__
    while tb is not None and os.path.abspath(tb.tb_frame.f_code.co_filename).startswith(_HERE):
        tb = tb.tb_next
    if tb is None or isinstance(error, bdb.BdbQuit):
        return  # it was raised by the worker, or in the debugger
    sys.settrace(None)
    print("".join(traceback.format_exception(type(error), error, tb)), end="", flush=True)
    print("The function raised this exception. The debugger is at the line that raised it; q ends the call.", flush=True)
    pdb.post_mortem(tb)
