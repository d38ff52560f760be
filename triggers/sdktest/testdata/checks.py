"""Runs the functions of a script that are marked with @check, and prints what came of each for the Go test."""

import asyncio
import inspect
import json
import sys
import time
import traceback
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

CONNECTION = sys.argv[1]
_checks = []


def check(function):
    _checks.append(function)
    return function


def main(at_once=1):
    """Runs all checks, this many at a time."""
    with ThreadPoolExecutor(at_once) as pool:
        outcomes = list(pool.map(_run, _checks))
    for outcome in outcomes:
        print("CHECK " + json.dumps(outcome))
    print("DONE", len(_checks), flush=True)
    sys.exit(any(outcome["failure"] for outcome in outcomes))


def _run(function):
    started = time.monotonic()
    failure = ""
    try:
        result = function()
        if inspect.isawaitable(result):
            asyncio.run(result)
    except BaseException:
        failure = traceback.format_exc()
    return {"name": function.__name__, "failure": failure, "seconds": time.monotonic() - started}


def same(got, want):
    if type(got) is not type(want) or got != want:
        raise AssertionError(f"got {got!r} ({type(got).__name__}), want {want!r} ({type(want).__name__})")


def raises(kind, function, *args, **kwargs):
    try:
        got = function(*args, **kwargs)
    except kind as error:
        if type(error) is not kind:
            raise AssertionError(f"raised {type(error).__name__}, want {kind.__name__}") from error
        return error
    raise AssertionError(f"returned {got!r}, want {kind.__name__}")


def entity(path, kind="Queue", **description):
    """Creates a queue, topic or subscription through the emulator's admin API."""
    fields = "".join(f"<{name}>{value}</{name}>" for name, value in description.items())
    namespace = "http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"
    body = (
        '<entry xmlns="http://www.w3.org/2005/Atom"><content type="application/xml">'
        f'<{kind}Description xmlns="{namespace}">{fields}</{kind}Description></content></entry>'
    )
    host = CONNECTION.split("Endpoint=sb://")[1].split(";")[0]
    request = urllib.request.Request(f"http://{host}/{quote(path)}", data=body.encode(), method="PUT")
    with urllib.request.urlopen(request) as answer:
        answer.read()
    return path
