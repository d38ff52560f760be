package worker

import (
	"context"
	"errors"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

// Reply is the worker's answer to a call, or what became of the worker.
type Reply struct {
	Status  protocol.Status
	State   []byte // of the session, where Status is State
	payload []byte // what the function returned
	about   triggers.Properties
	failure *protocol.Outcome // where the call failed

	Lost      *Loss // the worker is gone
	Cancelled bool  // there is no answer yet: the context of the call ended, and the worker was sent a CANCEL
}

// Loss is how a call lost its worker.
type Loss struct {
	How     error
	Again   bool // by no fault of the calls that were in flight
	Alone   bool // nothing else was in flight
	Culprit bool // it blocked the event loop then
	Known   bool // it is known which call did
	Suspect bool // the worker's event loop was blocked then, or it did not answer, and the call at fault is unknown
	// Outside is a SIGKILL that drover did not send, an operator's or the kernel's when
	// memory is short, or a worker that was stopped or hangs: perhaps by no fault of its own.
	Outside bool
}

func (l *Loss) Error() string { return l.How.Error() }

// replyOf takes a worker's answer, whose payload is gone when the next frame is read.
// The error says that it is none.
func replyOf(answer protocol.Reply) (r Reply, err error) {
	r.Status = answer.Status
	switch r.Status {
	case protocol.Done:
		r.payload = copied(answer.Payload)
	case protocol.State:
		r.State, r.payload, err = protocol.CutState(copied(answer.Payload))
	}
	if err == nil && answer.Described {
		r.about, r.payload, err = protocol.CutProperties(r.payload)
	}
	switch r.Status {
	case protocol.Failure, protocol.Reject, protocol.Retry:
		r.failure = new(protocol.Outcome)
		err = protocol.Decode(protocol.Result, answer.Payload, r.failure)
	}
	return r, err
}

// copied is nil where nothing is.
func copied(payload []byte) []byte { return append([]byte(nil), payload...) }

// Output is what the function returned.
func (r Reply) Output() []byte { return r.payload }

// Outcome turns a worker's answer into what a handler returns.
func (r Reply) Outcome(ctx context.Context) ([]byte, error) {
	if r.about != nil {
		handlers.Describe(ctx, r.about)
	}
	switch r.Status {
	case protocol.Done:
		return r.payload, nil
	case protocol.State:
		return nil, errors.New("it set a session's state, and has no session")
	case protocol.NotTried:
		return nil, handlers.ErrNotTried
	}
	failure := &handlers.Failure{Summary: r.failure.Summary, Detail: r.failure.Detail}
	switch r.Status {
	case protocol.Reject:
		return nil, handlers.Reject(failure)
	case protocol.Retry:
		return nil, handlers.RetryAfter(time.Duration(r.failure.After*float64(time.Second)), failure)
	}
	return nil, failure
}
