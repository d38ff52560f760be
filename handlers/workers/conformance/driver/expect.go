package driver

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

// Result is a RESULT. Its payload is a copy.
type Result struct {
	protocol.Reply
	Outcome    protocol.Outcome // of a failure, a rejection or a retry
	State      []byte           // set if Status is State; nil if it has none
	Messages   []protocol.Sent  // for named outputs
	Properties triggers.Properties
	Output     []byte // the plain result, after all of these
}

// ExpectFrame returns the payload of the next frame, which must have this type. It is valid until the next receive.
func (w *Worker) ExpectFrame(want protocol.Kind) []byte {
	kind, payload, err := w.receiveFrame()
	switch {
	case errors.Is(err, io.EOF):
		w.Fail("the worker closed its socket: "+w.Process.waitFor(w.ctx), fmt.Sprint("a ", want))
	case err != nil:
		w.Fail(fmt.Sprintf("%v within %v", err, w.limit), fmt.Sprint("a ", want))
	case kind != want:
		w.Fail(fmt.Sprintf("a %v: %s", kind, describeFrame(kind, payload)), fmt.Sprint("a ", want))
	}
	return payload
}

// ExpectJSON reads the next frame, which must have this type and these keys.
func (w *Worker) ExpectJSON(kind protocol.Kind, into any, keys ...string) {
	decodeFrame(w, kind, w.ExpectFrame(kind), into, keys...)
}

// decodeFrame decodes JSON, which must have these keys.
func decodeFrame(w *Worker, kind protocol.Kind, payload []byte, into any, keys ...string) {
	if err := protocol.DecodeFrame(kind, payload, into); err != nil {
		w.Fail(err.Error(), fmt.Sprintf("a %v as documented", kind))
	}
	var found map[string]any
	if err := protocol.DecodeFrame(kind, payload, &found); err != nil {
		w.Fail(err.Error(), fmt.Sprintf("a %v as documented", kind))
	}
	for _, key := range keys {
		if found[key] == nil {
			w.Fail(fmt.Sprintf("a %v without %s: %s", kind, key, Excerpt(payload)), fmt.Sprintf("a %v as documented", kind))
		}
	}
}

// ExpectWelcome reads WELCOME.
func (w *Worker) ExpectWelcome() {
	welcome := new(protocol.WelcomeFrame)
	w.ExpectJSON(protocol.Welcome, welcome, "protocol", "pid", "language", "version", "capabilities")
	if welcome.Protocol != protocol.Version {
		w.Fail(fmt.Sprintf("a WELCOME with protocol %d", welcome.Protocol), fmt.Sprintf("protocol %d", protocol.Version))
	}
	w.Welcome = welcome
}

// ExpectReady reads READY.
func (w *Worker) ExpectReady() {
	ready := new(protocol.ReadyFrame)
	w.ExpectJSON(protocol.Ready, ready, "functions")
	w.Ready = ready
}

// ExpectResult returns the next RESULT, of any call in flight.
func (w *Worker) ExpectResult() Result { return w.readResult(w.ExpectFrame(protocol.Result)) }

func (w *Worker) readResult(payload []byte) Result {
	reply, err := protocol.ReadResult(payload)
	if err != nil {
		w.FailBy(RuleOne, err.Error(), "a RESULT as documented")
	}
	if !w.calls.finish(reply.ID) {
		w.FailBy(RuleOpen, fmt.Sprintf("a RESULT of %d, which is not in flight", reply.ID), "one RESULT for each INVOKE")
	}
	out := Result{Reply: reply}
	out.Payload = slices.Clone(reply.Payload)
	cutPayload(w, &out)
	switch reply.Status {
	case protocol.Failure, protocol.Reject, protocol.Retry:
		decodeFrame(w, protocol.Result, reply.Payload, &out.Outcome, "summary")
		if strings.ContainsAny(out.Outcome.Summary, "\n\r") {
			w.FailBy(RuleOutcome, fmt.Sprintf("a summary of several lines: %q", Excerpt([]byte(out.Outcome.Summary))), "one line")
		}
	case protocol.NotTried:
		if len(reply.Payload) > 0 {
			w.FailBy(RuleOne, fmt.Sprintf("a RESULT of status 4 with a payload: %s", Excerpt(reply.Payload)), "no payload")
		}
	}
	return out
}

// cutPayload splits what precedes the plain result off a copy of the payload. The payload itself
// loses the properties of a result without a state.
func cutPayload(w *Worker, r *Result) {
	var err error
	check := func(what string) {
		if err != nil {
			w.FailBy(RuleOne, err.Error(), what+" as documented")
		}
	}
	r.Output = r.Payload
	if r.Status == protocol.State {
		r.State, r.Output, err = protocol.CutState(r.Output)
		check("a state")
	}
	if r.Sent {
		r.Messages, r.Output, err = protocol.CutSent(r.Output)
		check("messages for outputs")
	}
	if r.Described {
		r.Properties, r.Output, err = protocol.CutProperties(r.Output)
		check("properties")
	}
	if r.Status == protocol.Done {
		r.Payload = r.Output
	}
}

// ExpectExit0 reads to the end of the socket. The worker must have answered all calls, and exit with status 0.
func (w *Worker) ExpectExit0() {
	w.expectClosed()
	if n := w.InFlight(); n > 0 {
		w.FailBy(RuleOne, fmt.Sprintf("the worker ended, and %d calls are without a RESULT", n), "a RESULT for each")
	}
	if state := w.Process.waitFor(w.ctx); state != exitedWell {
		w.FailBy(RuleEnds, state, exitedWell)
	}
}

// ExpectExit reads to the end of the socket. The worker must end, with any status.
func (w *Worker) ExpectExit() {
	w.expectClosed()
	if state := w.Process.waitFor(w.ctx); state == running {
		w.Fail("the worker closed its socket, but "+state, "the process to end")
	}
}

// expectClosed reads to the end of the socket. Only frames accepted by observeFrame may come before
// it.
func (w *Worker) expectClosed() {
	kind, payload, err := w.receiveFrame()
	switch {
	case errors.Is(err, io.EOF):
	case err != nil:
		w.Fail(fmt.Sprintf("the worker was still there after %v", w.limit), "it to end")
	case kind == protocol.Result:
		if reply, err := protocol.ReadResult(payload); err == nil && !w.calls.has(int64(reply.ID)) {
			w.FailBy(RuleOpen, fmt.Sprintf("a RESULT of %d, which is not in flight", reply.ID), "one RESULT for each INVOKE")
		}
		fallthrough
	default:
		w.Fail(fmt.Sprintf("a %v: %s", kind, describeFrame(kind, payload)), "the worker to end")
	}
}

// ExpectExit0After is ExpectExit0, but allows one frame of this type first.
func (w *Worker) ExpectExit0After(kind protocol.Kind) {
	switch got, payload, err := w.receiveFrame(); {
	case err == nil && got != kind:
		w.Fail(fmt.Sprintf("a %v: %s", got, describeFrame(got, payload)), fmt.Sprintf("a %v, or nothing", kind))
	case errors.Is(err, errSilent):
		w.Fail(fmt.Sprintf("the worker was still there after %v", w.limit), "it to end")
	default:
		w.ExpectExit0() // it reads the end of the socket again
	}
}

// HangUpAndExpectExit closes the daemon's end of the socket; the process must end, with any status.
func (w *Worker) HangUpAndExpectExit() {
	_ = w.Process.conn.Close()
	w.log.addSent("(the socket was closed)")
	if state := w.Process.waitFor(w.ctx); state == running {
		w.Fail(fmt.Sprintf("%s after %v", state, w.limit), "it to end")
	}
}
