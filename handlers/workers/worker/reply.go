package worker

import (
	"context"
	"errors"
	"fmt"
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
	sent       *sentMessages     // for named outputs; nil: none
	failure    *protocol.Outcome // set if the call failed
	err        error             // set if its response could not be passed on: the result
	verdicts   *verdicts         // set if Status is Batch

	Lost      *Loss // set if the worker was lost
	Cancelled bool  // not the result: the context of the call ended, and a CANCEL was sent
}

// sentMessages are messages for named outputs, and the names of these.
type sentMessages struct {
	messages []protocol.Sent
	outputs  []string
}

// Loss describes how a call lost its worker.
type Loss struct {
	Err     error
	Worker  *Worker // that was lost
	Again   bool    // the calls in flight did not cause it
	Alone   bool    // nothing else was in flight
	Culprit bool    // it was blocking the event loop
	Known   bool    // the call at fault is known
	Suspect bool    // the event loop was blocked or the worker did not respond, and the call at fault is unknown
	// Outside is set for a SIGKILL that drover did not send, for a worker that reached its memory
	// limit, which earlier calls may have used up, and for a stopped or hung worker: the calls in flight
	// may not be at fault.
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
	case protocol.Batch:
		r.verdicts, err = verdictsOf(copyPayload(answer.Payload))
	}
	if err == nil && answer.Sent {
		r.sent = new(sentMessages)
		r.sent.messages, r.payload, err = protocol.CutSent(r.payload)
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

// nameOutputs sets the names of a function's outputs. It returns an error if a message is for an
// output that the function does not have.
func (r *Reply) nameOutputs(names []string) error {
	if r.sent == nil {
		return nil
	}
	for _, s := range r.sent.messages {
		if int(s.Output) >= len(names) {
			return fmt.Errorf("%w: a RESULT with a message for output %d; there are %d", protocol.ErrProtocol, s.Output, len(names))
		}
	}
	r.sent.outputs = names
	return nil
}

// copyPayload returns a copy; nil for an empty payload.
func copyPayload(payload []byte) []byte { return append([]byte(nil), payload...) }

// Output returns the function's result.
func (r Reply) Output() []byte { return r.payload }

// HandlerResult converts a worker's answer to a handler's result. ctx is the context of the call,
// which receives the result's properties and the messages for named outputs.
func (r Reply) HandlerResult(ctx context.Context) ([]byte, error) {
	if r.err != nil {
		return nil, r.err
	}
	if r.properties != nil {
		handlers.Describe(ctx, r.properties)
	}
	if r.sent != nil {
		for _, s := range r.sent.messages {
			if err := handlers.Send(ctx, r.sent.outputs[s.Output], s.Body, s.Properties); err != nil {
				return nil, err
			}
		}
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

// verdicts are the parts of a Reply to a call with a batch: a reply for each message, and the result
// of the call itself; nil if it has none.
type verdicts struct {
	each  []Reply
	whole *Reply
}

// verdictsOf converts the verdicts of a worker's answer; payload is a copy.
func verdictsOf(payload []byte) (*verdicts, error) {
	each, whole, err := protocol.CutBatch(payload)
	if err != nil {
		return nil, err
	}
	v := &verdicts{each: make([]Reply, len(each))}
	for i, one := range each {
		if v.each[i], err = replyOf(one); err != nil {
			return nil, err
		}
	}
	if whole != nil {
		own, err := replyOf(*whole)
		if err != nil {
			return nil, err
		}
		v.whole = &own
	}
	return v, nil
}

// checkBatch checks that an answer has a verdict on each of the size messages of its call, if it has any, and
// that they send to outputs of the function, of which names are the names.
func (r *Reply) checkBatch(size int, names []string) error {
	if r.Status != protocol.Batch {
		return nil
	}
	v := r.verdicts
	if got := len(v.each); got != size || size == 0 {
		return fmt.Errorf("%w: a RESULT with %d verdicts, for a batch of %d messages", protocol.ErrProtocol, got, size)
	}
	for i := range v.each {
		if err := v.each[i].nameOutputs(names); err != nil {
			return err
		}
	}
	if v.whole != nil {
		return v.whole.nameOutputs(names)
	}
	return nil
}

// ReadBatch converts a worker's answer to the result of a batch.
func (r Reply) ReadBatch() (out handlers.BatchResult, err error) {
	if r.Status != protocol.Batch {
		out.Whole = r.readResult()
		return out, out.Whole.Err
	}
	out.Each = make([]handlers.Result, len(r.verdicts.each))
	for i, one := range r.verdicts.each {
		out.Each[i] = one.readResult()
	}
	if whole := r.verdicts.whole; whole != nil {
		out.Whole = whole.readResult()
	}
	return out, nil
}

func (r Reply) readResult() handlers.Result {
	to := resultContext{Context: context.Background()}
	to.result.Output, to.result.Err = r.HandlerResult(&to)
	return to.result
}

// resultContext is a context that keeps the properties and the messages of a result.
type resultContext struct {
	context.Context
	result handlers.Result
}

// Describe implements handlers.Described.
func (c *resultContext) Describe(properties triggers.Properties) { c.result.Properties = properties }

// Send implements handlers.Sending.
func (c *resultContext) Send(output string, body []byte, properties triggers.Properties) error {
	c.result.Sent = append(c.result.Sent, handlers.Sent{Output: output, Body: body, Properties: properties})
	return nil
}
