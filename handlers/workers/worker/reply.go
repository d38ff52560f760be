package worker

import (
	"context"
	"errors"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

// Reply is the worker's answer to a call, or describes the loss of the worker.
type Reply struct {
	Status     protocol.Status
	State      []byte // of the session, if Status is State
	payload    []byte // the function's result
	properties triggers.Properties
	failure    *protocol.Outcome // set if the call failed

	Lost      *Loss // set if the worker was lost
	Cancelled bool  // not the result: the context of the call ended, and a CANCEL was sent
}

// Loss describes how a call lost its worker.
type Loss struct {
	Err     error
	Again   bool // the calls in flight did not cause it
	Alone   bool // nothing else was in flight
	Culprit bool // it was blocking the event loop
	Known   bool // the call at fault is known
	Suspect bool // the event loop was blocked or the worker did not respond, and the call at fault is unknown
	// Outside is set for a SIGKILL that drover did not send, by an operator or by the kernel when
	// memory is short, and for a stopped or hung worker: the call may not be at fault.
	Outside bool
}

func (l *Loss) Error() string { return l.Err.Error() }

// replyOf converts a worker's answer, whose payload is valid only until the next frame is read. It
// returns an error for an invalid answer.
func replyOf(answer protocol.Reply) (r Reply, err error) {
	r.Status = answer.Status
	switch r.Status {
	case protocol.Done:
		r.payload = copyPayload(answer.Payload)
	case protocol.State:
		r.State, r.payload, err = protocol.CutState(copyPayload(answer.Payload))
	}
	if err == nil && answer.Described {
		r.properties, r.payload, err = protocol.CutProperties(r.payload)
	}
	switch r.Status {
	case protocol.Failure, protocol.Reject, protocol.Retry:
		r.failure = new(protocol.Outcome)
		err = protocol.DecodeFrame(protocol.Result, answer.Payload, r.failure)
	}
	return r, err
}

// copyPayload returns a copy; nil for an empty payload.
func copyPayload(payload []byte) []byte { return append([]byte(nil), payload...) }

// Output returns the function's result.
func (r Reply) Output() []byte { return r.payload }

// HandlerResult converts a worker's answer to a handler's result.
func (r Reply) HandlerResult(ctx context.Context) ([]byte, error) {
	if r.properties != nil {
		handlers.Describe(ctx, r.properties)
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
