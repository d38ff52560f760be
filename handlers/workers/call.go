package workers

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

// call is one invocation in flight. Its replies go to the channel if there is
// one, else to the sink: the worker's answer, once, and before it, perhaps, that
// ctx ended.
type call struct {
	protocol.Invocation
	ctx       context.Context
	handler   *Handler
	submitted time.Time
	given     bool          // that ctx ended was told; guarded by the worker's mu, as are the following
	stood     time.Duration // the worker's lostTime when it was submitted
	own       time.Duration // what of it since is of its own doing
	to        handlers.ResultSink
	reply     chan reply
}

var calls = sync.Pool{New: func() any { return new(call) }}

func newCall(ctx context.Context, h *Handler, m *triggers.Message) *call {
	c := calls.Get().(*call)
	*c = call{ctx: ctx, handler: h}
	c.Function, c.Message = h.index, m
	c.Deadline, _ = ctx.Deadline()
	return c
}

// put gives back a call that nobody holds any more.
func (c *call) put() {
	*c = call{}
	calls.Put(c)
}

// replied hands a reply on; it does not wait.
func (c *call) replied(w *worker, r reply) {
	switch {
	case c.reply != nil:
		c.reply <- r
	case r.lost == nil && !r.giveUp:
		to, ctx := c.to, c.ctx
		c.put()
		to.SetResult(r.outcome(ctx))
	default:
		c.reply = make(chan reply, 1)
		go func() {
			output, err := c.handler.await(w, c, r)
			c.to.SetResult(c.handler.insistOn(c.ctx, c.Message, output, err))
		}()
	}
}

// reply ends a call: the worker's answer, or what became of the worker.
type reply struct {
	status  protocol.Status
	payload []byte // what the function returned
	state   []byte // of the session, where status is State
	about   triggers.Properties
	told    *protocol.Outcome // where the call failed
	lost    error             // the worker is gone, and this is how
	again   bool              // by no fault of the calls that were in flight
	alone   bool              // nothing else was in flight
	culprit bool              // it blocked the event loop then
	known   bool              // it is known which call did
	suspect bool              // the worker's event loop was blocked then, or it did not answer, and nobody knows whose doing that was
	outside bool              // the worker was killed by a SIGKILL that drover did not send
	giveUp  bool              // no answer yet: ctx ended, and the worker was told
}

// replyOf takes a worker's answer, whose payload is gone when the next frame is read.
// The error says that it is none.
func replyOf(answer protocol.Reply) (r reply, err error) {
	r.status = answer.Status
	switch r.status {
	case protocol.Done:
		r.payload = copied(answer.Payload)
	case protocol.State:
		r.state, r.payload, err = protocol.CutState(copied(answer.Payload))
	}
	if err == nil && answer.Described {
		r.about, r.payload, err = protocol.CutProperties(r.payload)
	}
	switch r.status {
	case protocol.Failure, protocol.Reject, protocol.Retry:
		r.told = new(protocol.Outcome)
		err = protocol.Decode(protocol.Result, answer.Payload, r.told)
	}
	return r, err
}

// copied is nil where nothing is.
func copied(payload []byte) []byte { return append([]byte(nil), payload...) }

// outcome turns a worker's answer into what Handle returns.
func (r reply) outcome(ctx context.Context) ([]byte, error) {
	if r.about != nil {
		handlers.Describe(ctx, r.about)
	}
	switch r.status {
	case protocol.Done:
		return r.payload, nil
	case protocol.State:
		return nil, errors.New("it set a session's state, and has no session")
	case protocol.NotTried:
		return nil, handlers.ErrNotTried
	}
	failure := &handlers.Failure{Summary: r.told.Summary, Detail: r.told.Detail}
	switch r.status {
	case protocol.Reject:
		return nil, handlers.Reject(failure)
	case protocol.Retry:
		return nil, handlers.RetryAfter(time.Duration(r.told.After*float64(time.Second)), failure)
	}
	return nil, failure
}
