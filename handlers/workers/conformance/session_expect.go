package conformance

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/drover-run/drover/handlers/workers/protocol"
)

// This file says what a check wants to come.

// frame returns the next frame, which must be of this kind.
func (s *session) frame(want protocol.Kind) []byte {
	kind, payload, err := s.receive()
	switch {
	case errors.Is(err, io.EOF):
		s.fail("the worker closed its socket: "+s.process.waitFor(s.ctx), fmt.Sprint("a ", want))
	case err != nil:
		s.fail(fmt.Sprintf("%v within %v", err, s.limit), fmt.Sprint("a ", want))
	case kind != want:
		s.fail(fmt.Sprintf("a %v: %s", kind, describe(kind, payload)), fmt.Sprint("a ", want))
	}
	return payload
}

// decode reads JSON, in which these keys must be.
func (s *session) decode(kind protocol.Kind, payload []byte, into any, keys ...string) {
	if err := protocol.Decode(kind, payload, into); err != nil {
		s.fail(err.Error(), fmt.Sprintf("a %v as documented", kind))
	}
	var there map[string]any
	if err := protocol.Decode(kind, payload, &there); err != nil {
		s.fail(err.Error(), fmt.Sprintf("a %v as documented", kind))
	}
	for _, key := range keys {
		if there[key] == nil {
			s.fail(fmt.Sprintf("a %v without %s: %s", kind, key, excerpt(payload)), fmt.Sprintf("a %v as documented", kind))
		}
	}
}

// welcomed takes the WELCOME.
func (s *session) welcomed() {
	payload := s.frame(protocol.Welcome)
	welcome := new(protocol.WelcomeFrame)
	s.decode(protocol.Welcome, payload, welcome, "protocol", "pid", "language", "version", "capabilities")
	if welcome.Protocol != protocol.Version {
		s.fail(fmt.Sprintf("a WELCOME with protocol %d", welcome.Protocol), fmt.Sprintf("protocol %d", protocol.Version))
	}
	s.welcome = welcome
}

// readied takes the READY.
func (s *session) readied() {
	payload := s.frame(protocol.Ready)
	ready := new(protocol.ReadyFrame)
	s.decode(protocol.Ready, payload, ready, "functions")
	s.ready = ready
}

// misloaded takes the FAILED, and the end of the worker.
func (s *session) misloaded() protocol.FailedFrame {
	var failed protocol.FailedFrame
	s.decode(protocol.Failed, s.frame(protocol.Failed), &failed, "summary")
	s.gone()
	return failed
}

// result returns the next RESULT, of whatever call is open.
func (s *session) result() result {
	payload := s.frame(protocol.Result)
	reply, err := protocol.ReadResult(payload)
	if err != nil {
		s.failBy(ruleOne, err.Error(), "a RESULT as documented")
	}
	s.mu.Lock()
	open := s.open[reply.ID]
	delete(s.open, reply.ID)
	s.mu.Unlock()
	if !open {
		s.failBy(ruleOpen, fmt.Sprintf("a RESULT of %d, which is not in flight", reply.ID), "one RESULT for each INVOKE")
	}
	out := result{Reply: reply}
	out.Payload = slices.Clone(reply.Payload)
	if reply.Described && reply.Status == protocol.Done {
		if out.about, out.Payload, err = protocol.CutProperties(out.Payload); err != nil {
			s.failBy(ruleOne, err.Error(), "properties as documented")
		}
	}
	switch reply.Status {
	case protocol.Failure, protocol.Reject, protocol.Retry:
		s.decode(protocol.Result, reply.Payload, &out.outcome, "summary")
		if strings.ContainsAny(out.outcome.Summary, "\n\r") {
			s.failBy(ruleOutcome, fmt.Sprintf("a summary of several lines: %q", excerpt([]byte(out.outcome.Summary))), "one line")
		}
	case protocol.NotTried:
		if len(reply.Payload) > 0 {
			s.failBy(ruleOne, fmt.Sprintf("a RESULT of status 4 with a payload: %s", excerpt(reply.Payload)), "no payload")
		}
	}
	return out
}

// answer returns the next RESULT, which must be of this call, and of this status.
func (s *session) answer(id uint32, status protocol.Status) result {
	r := s.result()
	if r.ID != id {
		s.fail(fmt.Sprintf("the RESULT of %d", r.ID), fmt.Sprintf("that of %d", id))
	}
	s.is(r, status)
	return r
}

// is checks a status.
func (s *session) is(r result, status protocol.Status) {
	if r.Status != status {
		s.fail(fmt.Sprintf("a RESULT of status %d: %s", r.Status, excerpt(r.Payload)), fmt.Sprintf("status %d", status))
	}
}

// answers returns the next RESULTs by id.
func (s *session) answers(n int) map[uint32]result {
	out := make(map[uint32]result, n)
	for range n {
		r := s.result()
		out[r.ID] = r
	}
	return out
}

// says calls a function and wants this as its answer.
func (s *session) says(function, body, want string) {
	s.send(invoke(0, function, body))
	if r := s.answer(0, protocol.Done); string(r.Payload) != want {
		s.fail("it returned "+excerpt(r.Payload), excerpt([]byte(want)))
	}
}

// finish drains the worker, which must have answered all, and end well.
func (s *session) finish() {
	s.writing.Wait()
	if s.joint && len(s.open) == 0 {
		return
	}
	s.send(drain())
	s.ended()
}

const (
	ruleEnds    = "finish all calls, answer them, and exit with status 0"
	ruleOutcome = "JSON: `summary`, a line, and `detail`"
)

// ended wants the worker to end with exit status 0, and to have answered all.
func (s *session) ended() {
	s.silent()
	if len(s.open) > 0 {
		s.failBy(ruleOne, fmt.Sprintf("the worker ended, and %d calls are without a RESULT", len(s.open)), "a RESULT for each")
	}
	if state := s.process.waitFor(s.ctx); state != exitedWell {
		s.failBy(ruleEnds, state, exitedWell)
	}
}

// gone wants the worker to end, in whatever way, and to say nothing more but logs.
func (s *session) gone() {
	s.silent()
	if state := s.process.waitFor(s.ctx); state == stillThere {
		s.fail("the worker closed its socket, but "+state, "the process to end")
	}
}

// silent wants the socket to be closed with no frame before but LOG and STATS.
func (s *session) silent() {
	kind, payload, err := s.receive()
	switch {
	case errors.Is(err, io.EOF):
	case err != nil:
		s.fail(fmt.Sprintf("the worker was still there after %v", s.limit), "it to end")
	case kind == protocol.Result:
		if reply, err := protocol.ReadResult(payload); err == nil && !s.isOpen(int64(reply.ID)) {
			s.failBy(ruleOpen, fmt.Sprintf("a RESULT of %d, which is not in flight", reply.ID), "one RESULT for each INVOKE")
		}
		fallthrough
	default:
		s.fail(fmt.Sprintf("a %v: %s", kind, describe(kind, payload)), "the worker to end")
	}
}

// endedAfter wants the worker to end well, and takes a frame of this kind before.
func (s *session) endedAfter(kind protocol.Kind) {
	switch got, payload, err := s.receive(); {
	case err == nil && got != kind:
		s.fail(fmt.Sprintf("a %v: %s", got, describe(got, payload)), fmt.Sprintf("a %v, or nothing", kind))
	case errors.Is(err, errSilent):
		s.fail(fmt.Sprintf("the worker was still there after %v", s.limit), "it to end")
	default:
		s.ended() // which reads the end of the socket again
	}
}

// mustEnd wants the process to end, after our end of the socket was closed.
func (s *session) mustEnd() {
	s.sent.add("(the socket was closed)")
	if state := s.process.waitFor(s.ctx); state == stillThere {
		s.fail(fmt.Sprintf("%s after %v", state, s.limit), "it to end")
	}
}
