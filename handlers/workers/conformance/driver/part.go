package driver

import (
	"errors"
	"fmt"
	"io"

	"github.com/drover-run/drover/handlers/workers/protocol"
)

// RulePart is the rule for the form of a PART.
const RulePart = "u32 id, u8 flags"

// ExpectPart returns the next PART, or nil and the RESULT that came instead. The part is valid
// until the next receive.
func (w *Worker) ExpectPart() (*protocol.ResponsePart, Result) {
	kind, payload, err := w.receiveFrame()
	switch {
	case errors.Is(err, io.EOF):
		w.Fail("the worker closed its socket: "+w.Process.waitFor(w.ctx), "a PART or a RESULT")
	case err != nil:
		w.Fail(fmt.Sprintf("%v within %v", err, w.limit), "a PART or a RESULT")
	case kind == protocol.Result:
		return nil, w.readResult(payload)
	case kind != protocol.Part:
		w.Fail(fmt.Sprintf("a %v: %s", kind, describeFrame(kind, payload)), "a PART or a RESULT")
	}
	part, err := protocol.ReadPart(payload)
	if err != nil {
		w.FailBy(RulePart, err.Error(), "a PART as documented")
	}
	if !w.calls.has(int64(part.ID)) {
		w.FailBy(RuleOpen, fmt.Sprintf("a PART of %d, which is not in flight", part.ID), "one of a call in flight")
	}
	return &part, Result{}
}
