"""A worker process: reads invocations from file descriptor 3 and writes their results to it.

Sync functions run in the main thread, or in threads if the daemon requests several or
the app has async functions, too; async functions run on one asyncio loop.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import signal
import socket
from typing import Any, NoReturn, Sequence

import drover
from drover import debugging, frames, template
from drover.async_runner import AsyncRunner
from drover.event_loops import StartError, startups, worker_loop
from drover.exit import broken, fail, leave
from drover.frames import Drain, Frame, Hello, Load, Reader, Writer
from drover.functions import Function, LoadError, cut_traceback, load, one_line
from drover.heartbeat import Heartbeat
from drover.imports import Imports
from drover.logs import Output
from drover.main_thread_runner import MainThreadRunner
from drover.profiling import profiler
from drover.runner import Runner
from drover.stacks import at_fatal_signals, last_words
from drover.streaming import streams
from drover.thread_pool_runner import ThreadPoolRunner


def main() -> NoReturn:
    sock = socket.socket(fileno=3)
    sock.set_inheritable(False)
    at_fatal_signals()
    if not debugging.has_terminal():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the daemon handles a terminal's Ctrl-C
        debugging.refuse_breakpoints()
    writer, reader = Writer(sock), Reader(sock)
    streams.writer = profiler.writer = writer
    writer.before_end = profiler.finish
    try:
        _serve(sock, reader, writer)
    except (OSError, EOFError) as error:
        broken(error)
    except BaseException:  # such as an invalid frame; threads must not keep the process alive
        fail()
    leave(writer)


def _serve(sock: socket.socket, reader: Reader, writer: Writer) -> NoReturn:
    load_frame, rest, output = _greet(reader, writer, None)
    imports = Imports(writer, load_frame["app"]) if writer.imports else None
    functions = _load(writer, load_frame)
    # Objects created by the app's imports stay, so the collector need not scan them again.
    gc.collect()
    gc.freeze()
    why = template.unforkable(bool(drover._after_fork))
    if load_frame.get("template") and not rest and not why:
        _ready(writer, functions, why, imports)
        template.serve(sock, reader, writer)
        load_frame, rest, output = _greet(reader, writer, output)
        functions = _load(writer, load_frame)
    _hooks(writer)
    _ready(writer, functions, why, imports)
    threads = load_frame["threads"]
    if any(f.is_async for f in functions):
        runner: Runner = AsyncRunner(sock, reader, writer, output, functions, threads)
    else:
        runner = _runner(sock, reader, writer, output, functions, threads, None)
    if debugging.has_terminal():
        debugging.start(load_frame["app"], load_frame["functions"])
    writer.watch.start()
    Heartbeat(writer).start()
    while True:
        threads, rest = runner.run(rest), ()
        runner = _runner(sock, reader, writer, output, functions, threads, runner)


def _runner(
    sock: socket.socket,
    reader: Reader,
    writer: Writer,
    output: Output,
    functions: list[Function],
    threads: int,
    before: Runner | None,
) -> Runner:
    """Returns a runner of sync functions with this many threads."""
    if threads > 1:
        return ThreadPoolRunner(sock, reader, writer, output, functions, threads, before)
    return MainThreadRunner(sock, reader, writer, output, functions, before)


def _greet(reader: Reader, writer: Writer, output: Output | None) -> tuple[dict[str, Any], Sequence[Frame], Output]:
    """Answers HELLO. Returns LOAD, a DRAIN that follows it, if any, and the replacement of
    the standard streams."""
    reader.due = frames.HELLO
    hello, rest = _first(reader, writer)
    can = hello["capabilities"]
    writer.max = hello["max_frame"]
    writer.stats, writer.measures, writer.blocked = "stats" in can, "measures" in can, "blocked" in can
    writer.heartbeat, writer.imports = "heartbeat" in can, "imports" in can
    streams.enabled = "stream" in can
    writer.json(
        frames.WELCOME,
        {
            "protocol": frames.PROTOCOL,
            "pid": os.getpid(),
            "language": platform.python_implementation(),
            "version": platform.python_version(),
            "capabilities": frames.CAPABILITIES,
        },
    )
    writer.flush()
    if rest or hello["protocol"] != frames.PROTOCOL:
        leave(writer)  # the daemon reports the mismatch
    reader.max, reader.due = hello["max_frame"], frames.LOAD
    load_frame, rest = _first(reader, writer)
    reader.due, reader.functions = None, len(load_frame["functions"])
    return load_frame, rest, output or Output(writer, "log" in can)


def _load(writer: Writer, load_frame: dict[str, Any]) -> list[Function]:
    try:
        return load(load_frame["app"], load_frame["functions"])
    except LoadError as error:
        _failed(writer, error)


def _hooks(writer: Writer) -> None:
    """Calls the app's after_fork functions, and starts its ASGI apps."""
    for hook in drover._after_fork:
        try:
            hook()
        except BaseException as error:
            summary = f"{getattr(hook, '__qualname__', hook)}, which is marked with drover.after_fork: {one_line(error)}"
            _failed(writer, LoadError(summary, cut_traceback(error)))
    for startup in startups:
        try:
            worker_loop().run_until_complete(startup())
        except StartError as error:
            _failed(writer, LoadError(f"the ASGI app did not start: {error}", error.detail))
        except BaseException as error:  # the app's own, or such as SystemExit
            _failed(writer, LoadError(f"the ASGI app did not start: {one_line(error)}", cut_traceback(error)))


def _failed(writer: Writer, error: LoadError) -> NoReturn:
    writer.json(frames.FAILED, {"summary": str(error), "detail": error.detail})
    leave(writer)


def _ready(writer: Writer, functions: Sequence[Function], why: str, imports: Imports | None) -> None:
    if imports is not None:
        imports.ready()
    kinds = [{"name": f.name, "kind": "async" if f.is_async else "sync"} for f in functions]
    ready = {"functions": kinds, "stacks_signal": last_words()}
    writer.json(frames.READY, {**ready, "unforkable": why} if why else ready)
    writer.flush()


def _first(reader: Reader, writer: Writer) -> tuple[dict[str, Any], Sequence[Frame]]:
    """Returns the content of the expected frame of JSON, and a DRAIN that follows it, if any."""
    while True:
        got = reader.read()
        if got and isinstance(got[0], Drain):
            leave(writer)  # nothing was invoked
        if got:
            if not isinstance(got[0], (Hello, Load)):
                raise ValueError(f"a CANCEL where a frame of type {reader.due} is due")
            return json.loads(got[0].payload), got[1:]
