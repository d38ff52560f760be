package worker

import (
	"context"
	"sync"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

// longCall is the duration from which on no message is queued in a worker, however many threads
// it has. A round trip takes less than a hundredth of such a call, while a queued message would
// keep its lease for up to a whole call before it runs.
const longCall = 100 * time.Millisecond

// excuseShare sets how much of a call's time other calls must have taken for the call not to be
// charged: one part in share.
const excuseShare = 10

// Call is an invocation in flight. The worker replies to it once. An earlier reply may report
// that the context of the call has ended.
type Call struct {
	protocol.Invocation
	ctx            context.Context
	submitted      time.Time
	cancelReported bool          // the end of ctx was reported; guarded by the worker's mu, as are the following
	lostAtSubmit   time.Duration // the worker's lost time at its submission
	causedLoss     time.Duration // the part of later lost time that the call itself caused
	waited         time.Duration // how long it waited in the worker behind others; known once it has a result
	to             handlers.ResultSink
	follow         Follow
	replies        chan Reply
	stream         *responseStream // the response, if the worker sends it in parts; guarded by the worker's mu

	// BatchResult receives the result of a call with a batch.
	BatchResult *handlers.BatchResult
}

// Follow handles a call whose first reply is not its result. It runs on its own goroutine, and
// passes the result to the sink.
type Follow func(w *Worker, c *Call, first Reply, to handlers.ResultSink)

var calls = sync.Pool{New: func() any { return new(Call) }}

// NewCall returns a call whose result is passed to a sink, by the goroutine that reads from
// the worker. function is its index.
func NewCall(ctx context.Context, function uint16, m *triggers.Message, to handlers.ResultSink, follow Follow) *Call {
	c := calls.Get().(*Call) // cleared by Free
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

// Context returns the context of the call.
func (c *Call) Context() context.Context { return c.ctx }

// SubmittedAt returns when the call was submitted to a worker.
func (c *Call) SubmittedAt() time.Time { return c.submitted }

// Replies receives the replies to an awaited call, and to others from the second reply on.
func (c *Call) Replies() <-chan Reply { return c.replies }

// Free recycles a call that is no longer used.
func (c *Call) Free() {
	*c = Call{}
	calls.Put(c)
}

// passReply passes a reply on, without waiting.
func (c *Call) passReply(w *Worker, r Reply) {
	switch {
	case c.replies != nil:
		c.replies <- r
	case r.Lost == nil && !r.Cancelled:
		to, ctx := c.to, c.ctx
		c.Free()
		to.SetResult(r.HandlerResult(ctx))
	default:
		c.replies = make(chan Reply, 1)
		go c.follow(w, c, r, c.to)
	}
}

// passLastReply passes on the worker's last reply, after the response if the worker sends that in
// parts.
func (c *Call) passLastReply(w *Worker, r Reply) {
	if c.stream != nil {
		c.stream.endWith(r)
		return
	}
	c.passReply(w, r)
}

// IsExcused reports whether the call timed out because other calls had taken its time: they blocked
// the worker, or the call waited behind them. w is its worker.
func (c *Call) IsExcused(w *Worker, now time.Time) bool {
	if c.Deadline.IsZero() || now.Before(c.Deadline) {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	others := max(w.lost.totalUntil(now)-c.lostAtSubmit-c.causedLoss, c.waited)
	if w.lost.block.causedBy(c) {
		others -= w.lost.block.durationAt(now)
	}
	return others >= c.Deadline.Sub(c.submitted)/excuseShare
}

// IgnoredCancel reports whether its worker was killed because the call ignored its cancellation.
func (c *Call) IgnoredCancel(w *Worker) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.disobeyed == c
}
