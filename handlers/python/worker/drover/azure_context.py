"""What a function of a function app gets besides its message: its Context, and an Out for each
output."""

from __future__ import annotations

import threading
from typing import Any, Mapping

from drover import _LENGTH, Message, _trace, invocations
from drover.frames import Invocation


class TraceContext:
    """The trace of the message. Earlier versions used the names in upper case."""

    __slots__ = ("attributes", "trace_parent", "trace_state")

    def __init__(self, parent: str, state: str) -> None:
        self.trace_parent = parent
        self.trace_state = state
        self.attributes: dict[str, str] = {}

    @property
    def Traceparent(self) -> str:
        return self.trace_parent

    @property
    def Tracestate(self) -> str:
        return self.trace_state

    @property
    def Attributes(self) -> dict[str, str]:
        return self.attributes


class RpcException:
    """The exception of the attempt before, which drover does not keep: all texts are empty, as on
    Azure at the first attempt."""

    source = stack_trace = message = ""


class RetryContext:
    """How often the function has failed for this message, and how often it is retried at most."""

    __slots__ = ("max_retry_count", "retry_count")
    exception = rpc_exception = RpcException()

    def __init__(self, count: int, most: int) -> None:
        self.retry_count = count
        self.max_retry_count = most


class Context:
    """The library's Context. What is derived from the message is read on request."""

    __slots__ = ("_invocation", "_most", "_trace_context", "function_directory", "function_name", "invocation_id")

    def __init__(self, name: str, directory: str, most: int, invocation: Invocation, known: str) -> None:
        self.function_name = name
        self.function_directory = directory
        self.invocation_id = known
        self._most = most
        self._invocation = invocation
        self._trace_context: TraceContext | None = None

    @property
    def thread_local_storage(self) -> threading.local:
        return invocations.storage

    @property
    def trace_context(self) -> TraceContext:
        if self._trace_context is None:
            parent, state = _trace(Message(b"", meta=self._invocation[3]))
            self._trace_context = TraceContext(parent or "", state or "")
        return self._trace_context

    @property
    def retry_context(self) -> RetryContext:
        most = self._most
        return RetryContext(max(0, self._invocation[4] - 1) if most else 0, most)


def begin_request(invocation: Invocation) -> str:
    """Gives the call of an HTTP function the ID of its request; "" if that has none."""
    meta = invocation[3]
    if len(meta) < 4:
        return ""
    (length,) = _LENGTH.unpack_from(meta)  # of the first text of meta
    known = meta[4 : 4 + length].decode("utf-8", "surrogateescape")
    if known:
        invocations.ids[invocation[0]] = known
    return known


class Contexts:
    """Makes the contexts of a function."""

    def __init__(self, name: str, directory: str, azure: Mapping[str, Any], is_http: bool) -> None:
        self._name = name
        self._is_http = is_http
        self._directory = directory
        # On Azure the counts come from the retry policy, and are 0 without one.
        self._most = max(0, int(azure.get("max_attempts") or 1) - 1) if azure.get("retry") else 0

    def make(self, invocation: Invocation) -> Context:
        number = invocation[0]
        known = invocations.ids.get(number) or (begin_request(invocation) if self._is_http else "") or invocations.new_id(number)
        return Context(self._name, self._directory, self._most, invocation, known)


def out_class(abstract: Any) -> Any:
    """Returns a class of the library's abstract Out. The function sets a value, which is sent when
    it returns."""

    class Out(abstract):  # type: ignore[misc]  # the library has types of its own
        def __init__(self) -> None:
            self._value: object = None

        def set(self, val: object) -> None:
            self._value = val

        def get(self) -> object:
            return self._value

    return Out
