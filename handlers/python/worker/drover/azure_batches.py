"""Functions of function apps that take a list of messages: those with cardinality many. They may
return drover.Verdicts, which Azure does not have."""

from __future__ import annotations

from typing import Any, Callable, Mapping, Sequence

from drover import Message, Verdicts
from drover.azure_results import Results
from drover.batches import Outcome, in_order, put_verdicts, split
from drover.frames import Invocation
from drover.payloads import OK

_NOTHING = OK, b""


def messages_of(invocation: Invocation, origins: bool) -> list[Any]:
    """Returns the messages of a batch, each in the form of an invocation."""
    number, index, batch, _, _, _, deadline, _ = invocation
    return [
        (number, index, body, meta, attempt, enqueued, deadline, origin)
        for attempt, enqueued, meta, origin, body in split(batch, origins)
    ]


def list_maker(make: Callable[[Invocation], object], want: Mapping[str, Any]) -> Callable[[Invocation], object]:
    """Returns what makes the list. make makes one of its messages, and want is the function in LOAD."""
    if not want.get("batch"):
        return lambda invocation: [make(invocation)]
    origins = bool(want.get("origin"))
    return lambda invocation: [make(one) for one in messages_of(invocation, origins)]


class BatchResults(Results):
    """The outputs of a function that takes batches."""

    def __init__(self, name: str, bindings: Sequence[Mapping[str, Any]], want: Mapping[str, Any], implicit: bool, outcome: Outcome) -> None:
        super().__init__(name, bindings, want.get("outputs") or [], implicit)
        self._origins = bool(want.get("origin"))
        self._outcome = outcome

    def finish(self, value: object, outs: Sequence[Any], invocation: Invocation) -> tuple[int, bytes] | None:
        if not isinstance(value, Verdicts):
            return super().finish(value, outs, invocation)
        messages = [Message(b"", one[4], one[5], one[3]) for one in messages_of(invocation, self._origins)]
        each = in_order(value.verdicts, messages)
        own = super().finish(value.result, outs, invocation)
        return put_verdicts(each, own, lambda one: super(BatchResults, self).finish(one, (), invocation) or _NOTHING, self._outcome)
