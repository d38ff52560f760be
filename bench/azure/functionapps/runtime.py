"""Measures azure-functions-runtime 1.3.0 without a host: calls of a function in one process, as its native
entry makes them. Python 3.13 with that package runs it.

Arguments: the directory of handlers/python/testdata, which has oracle.py, the directory of an app,
seconds, calls in flight, and names of functions. Prints calls per second for each name, as a JSON object:
of a function that is not async the faster one of the two native entries.
"""

import asyncio
import json
import os
import sys
import time
import uuid

sys.path.insert(0, sys.argv[1])
import oracle  # noqa: E402

APP, SECONDS, IN_FLIGHT, NAMES = os.path.abspath(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), sys.argv[5:]
BODY = "x" * 128
METADATA = {
    "Id": "5c8d1dc7-ed9a-4f4e-8e4e-0a1b2c3d4e5f", "DequeueCount": 1, "InsertionTime": "2026-12-01T02:03:04+00:00",
    "ExpirationTime": "2026-12-08T02:03:04+00:00", "NextVisibleTime": "2026-12-01T02:08:04+00:00", "PopReceipt": "AgAAAAMAAAAAAAAA",
}


def inputs(runtime):
    """Returns the input of a call. A host decodes it for each call."""
    metadata = {name: runtime.Datum(json.dumps(value), "json") for name, value in METADATA.items()}
    return [("msg", runtime.Datum(BODY, "string"))], metadata


async def by_coroutines(runtime, name):
    number, calls = runtime.number(name), 0
    end = time.perf_counter() + SECONDS

    async def lane():
        nonlocal calls
        while time.perf_counter() < end:
            ok, _, _, error, _ = await runtime.native.invocation_request_native(str(uuid.uuid4()), number, *inputs(runtime))
            if not ok:
                raise RuntimeError(error)
            calls += 1

    await asyncio.gather(*(lane() for _ in range(IN_FLIGHT)))
    return calls / SECONDS


def by_threads(runtime, name):
    number, calls = runtime.number(name), 0
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        handled, ok, _, _, error, _ = runtime.native.run_invocation_sync(str(uuid.uuid4()), number, *inputs(runtime))
        if not handled:
            return 0
        if not ok:
            raise RuntimeError(error)
        calls += 1
    return calls / SECONDS


async def main():
    sys.path.insert(0, APP)
    os.chdir(APP)
    runtime = oracle.Runtime(APP)
    await runtime.load()
    rates = {}
    for name in NAMES:
        rates[name] = max(await by_coroutines(runtime, name), await asyncio.to_thread(by_threads, runtime, name))
    print(json.dumps(rates))


asyncio.run(main())
os._exit(0)
