"""Makes a message's trace the current one of OpenTelemetry, in an app that uses it."""

from __future__ import annotations

import contextlib
import sys
from typing import Callable, Iterator

from drover import Message, _trace
from drover.frames import Invocation

# Parts of a message's meta. It contains one of them if it has a trace.
_SIGNS = (b"traceparent", b"Traceparent", b"Diagnostic-Id")


def of_app() -> Callable[[Invocation], contextlib.AbstractContextManager[None]] | None:
    """Returns a context manager for invocations if the app, which is loaded, has imported
    OpenTelemetry; otherwise None."""
    if "opentelemetry" not in sys.modules:
        return None
    try:
        from opentelemetry import context
        from opentelemetry.trace.propagation.tracecontext import (
            TraceContextTextMapPropagator,
        )
    except ImportError:  # another module with that name
        return None
    extract = TraceContextTextMapPropagator().extract

    @contextlib.contextmanager
    def current(invocation: Invocation) -> Iterator[None]:
        meta = invocation[3]
        parent = state = None
        if any(sign in meta for sign in _SIGNS):
            parent, state = _trace(Message(b"", meta=meta))
        if parent is None:
            yield
            return
        token = context.attach(extract({"traceparent": parent, "tracestate": state or ""}))
        try:
            yield
        finally:
            context.detach(token)

    return current
