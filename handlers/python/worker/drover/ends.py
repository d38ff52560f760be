"""The ends of a worker process. None of them waits for threads that may never return."""

import os
import sys
import traceback

from drover.streams import flush_foreign


def leave(writer):
    """Ends the worker when it has done all."""
    writer.flush()
    _exit(0)


def broken(error):
    """Ends the worker when its socket broke: nobody gets its answers any more."""
    if isinstance(error, (EOFError, BrokenPipeError, ConnectionResetError)):
        os._exit(0)  # the daemon is gone
    _last_words(f"drover: the socket to the daemon, file descriptor 3: {error}; did a function close it?\n")
    _exit(1)


def fail():
    """Ends the worker because of the exception that is being handled, which is none
    of a function's own: a frame was wrong, memory ran out for a reply, or a signal
    handler of the app's raised it in the worker's code."""
    _last_words("drover: the worker ends, as it cannot go on after this:\n" + traceback.format_exc())
    _exit(1)


def end_child(error):
    """Ends a process that a function forked, when the function has come to its end
    in it, as the interpreter would: it is no worker, and answers nothing."""
    status = 0
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        status = (error.code or 0) & 0xFF
    elif isinstance(error, SystemExit):
        _last_words(f"{error.code}\n")
        status = 1
    elif error is not None:
        _last_words("".join(traceback.format_exception(type(error), error, error.__traceback__)))
        status = 1
    _exit(status)


def _last_words(text):
    try:
        os.write(2, text.encode("utf-8", "replace"))
    except OSError:
        pass


def _exit(status):
    flush_foreign()
    for stream in (sys.__stdout__, sys.__stderr__):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # it is closed, or there was none
            pass
    os._exit(status)
