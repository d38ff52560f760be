package worker

import (
	"context"
	"sync"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

// share is what part of a call's time others must have taken from it for it not to be
// charged: one in so many.
const share = 10

// Call is one invocation in flight. The worker replies to it once, and before that,
// perhaps, that the context of the call has ended.
type Call struct {
	protocol.Invocation
	ctx       context.Context
	submitted time.Time
	given     bool          // the end of ctx was reported; guarded by the worker's mu, as are the following
	stood     time.Duration // the worker's lost time when it was submitted
	own       time.Duration // what of it since is of its own doing
	to        handlers.ResultSink
	follow    Follow
	replies   chan Reply
}

// Follow takes over a call whose first reply is not its result. It runs on a goroutine
// of its own, and passes the result on to the sink.
type Follow func(w *Worker, c *Call, first Reply, to handlers.ResultSink)

var calls = sync.Pool{New: func() any { return new(Call) }}

// NewCall returns a call whose result goes to a sink, from the goroutine that reads from
// the worker. function is its index.
func NewCall(ctx context.Context, function uint16, m *triggers.Message, to handlers.ResultSink, follow Follow) *Call {
	c := calls.Get().(*Call) // which Free has cleared
	c.ctx, c.to, c.follow = ctx, to, follow
	c.Function, c.Message = function, m
	c.Deadline, _ = ctx.Deadline()
	return c
}

// NewAwaitedCall returns a call whose replies are read from Replies.
func NewAwaitedCall(ctx context.Context, function uint16, m *triggers.Message) *Call {
	c := NewCall(ctx, function, m, nil, nil)
	c.replies = make(chan Reply, 2)
	return c
}

// Context is the context that the call was made with.
func (c *Call) Context() context.Context { return c.ctx }

// Submitted is when a worker was given the call.
func (c *Call) Submitted() time.Time { return c.submitted }

// Replies gets the replies to an awaited call, and to another from its second reply on.
func (c *Call) Replies() <-chan Reply { return c.replies }

// Free is called for a call that nobody holds any more.
func (c *Call) Free() {
	*c = Call{}
	calls.Put(c)
}

// replied hands a reply on; it does not wait.
func (c *Call) replied(w *Worker, r Reply) {
	switch {
	case c.replies != nil:
		c.replies <- r
	case r.Lost == nil && !r.Cancelled:
		to, ctx := c.to, c.ctx
		c.Free()
		to.SetResult(r.Outcome(ctx))
	default:
		c.replies = make(chan Reply, 1)
		go c.follow(w, c, r, c.to)
	}
}

// Excused reports whether the time of the call was up since others had taken it: w is
// its worker.
func (c *Call) Excused(w *Worker, now time.Time) bool {
	if c.Deadline.IsZero() || now.Before(c.Deadline) {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	others := w.lost.soFar(now) - c.stood - c.own
	if w.lost.block.madeBy(c) {
		others -= w.lost.block.time(now)
	}
	return others >= c.Deadline.Sub(c.submitted)/share
}

// Disobeyed reports whether its worker was killed since the call did not obey its
// cancellation in time.
func (c *Call) Disobeyed(w *Worker) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.disobeyed == c
}
