package workers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/handlers/workers/suspects"
	"github.com/drover-run/drover/handlers/workers/worker"
	"github.com/drover-run/drover/triggers"
)

// Handler is one function of a pool.
type Handler struct {
	pool     *Pool
	name     string
	index    uint16
	stateful bool          // it gets the state of sessions
	origin   bool          // it gets the source's own fields of messages
	follow   worker.Follow // followCall, stored to avoid an allocation per call
}

// HandlerOf returns the handler of a function of the pool, by its Name. It is called after
// WaitReady, which finds out whether the function is async. It returns an error if the pool
// has no such function.
func (p *Pool) HandlerOf(name string) (*Handler, error) {
	i := p.code.indexOf(name)
	if i < 0 {
		return nil, fmt.Errorf("the pool has no function %q", name)
	}
	f := p.cfg.Functions[i]
	h := &Handler{pool: p, name: name, index: uint16(i), stateful: f.SessionState, origin: f.Origin}
	h.follow = h.followCall
	return h, nil
}

// FunctionIndex returns the function's index in Config.Functions.
func (h *Handler) FunctionIndex() int { return int(h.index) }

// IsAsync reports whether the function runs on the event loop.
func (h *Handler) IsAsync() bool { return h.pool.code.isAsync(h.name) }

// Slots implements handlers.Slotted.
func (h *Handler) Slots() *handlers.Slots {
	if own := h.quarantineHandler(); own != nil {
		return own.Slots()
	}
	if h.IsAsync() {
		return h.pool.slots.async
	}
	return h.pool.slots.sync
}

// quarantineHandler returns the handler of the function's own workers while it is quarantined, else
// nil.
func (h *Handler) quarantineHandler() *Handler { return h.pool.quarantine.handlerOf(h.name) }

// Close does nothing: the processes end with Run of the pool.
func (h *Handler) Close(context.Context) error { return nil }

// Handle implements handlers.Handler. If a worker dies with several messages in flight, each of
// them is tried again alone, to find the one at fault. If the worker was killed from outside, they
// are first tried again together.
func (h *Handler) Handle(ctx context.Context, m *triggers.Message) ([]byte, error) {
	if own := h.quarantineHandler(); own != nil {
		return own.Handle(ctx, m)
	}
	if err := h.checkSize(m, h.originOf(m)); err != nil {
		return nil, err
	}
	return h.tryMessage(ctx, m, h.tryOf(ctx, m))
}

// tryOf returns what runs the function on a message, on one worker.
func (h *Handler) tryOf(ctx context.Context, m *triggers.Message) func(*worker.Worker) ([]byte, error) {
	return func(w *worker.Worker) ([]byte, error) { return h.runOn(ctx, w, m) }
}

// tryMessage tries a message until it has its own result: alone if it may kill its worker.
func (h *Handler) tryMessage(ctx context.Context, m *triggers.Message, try func(*worker.Worker) ([]byte, error)) ([]byte, error) {
	if key := h.suspectKey(m); h.pool.suspects.RecordOf(key).RunsAlone() {
		return h.pool.suspects.RunAlone(ctx, key, try)
	}
	return h.retryLost(ctx, m, try, nil, &worker.Loss{Again: true})
}

// Start implements handlers.Starter. If the call does not end normally, for example because of a
// timeout or the death of the worker, a goroutine handles it.
func (h *Handler) Start(ctx context.Context, m *triggers.Message, to handlers.ResultSink) {
	if own := h.quarantineHandler(); own != nil {
		own.Start(ctx, m, to)
		return
	}
	origin := h.originOf(m)
	if h.checkSize(m, origin) == nil && !h.hasState(m) && !h.pool.suspects.RecordOf(h.suspectKey(m)).RunsAlone() {
		if w, _, _ := h.pool.roster.leastBusy(); w != nil {
			c := worker.NewCall(ctx, h.index, m, to, h.follow)
			c.Origin = origin
			deadline := c.Deadline // the call may have ended when Submit returns
			if w.Submit(c) {
				h.pool.watch.wakeUp(deadline)
				return
			}
			c.Free()
		}
	}
	go func() { to.SetResult(h.Handle(ctx, m)) }()
}

func (h *Handler) suspectKey(m *triggers.Message) suspects.Message {
	return suspects.Message{Function: h.index, ID: m.ID}
}

// hasState reports whether a message needs its session's state. Reading that requires requests to
// the source, so the call needs a goroutine.
func (h *Handler) hasState(m *triggers.Message) bool { return h.stateful && m.Session != nil }

// originOf returns the source's own fields of a message, if the function gets them.
func (h *Handler) originOf(m *triggers.Message) []byte {
	if !h.origin {
		return nil
	}
	return protocol.EncodeOrigin(m)
}

// checkSize rejects a message that is too large for a frame.
func (h *Handler) checkSize(m *triggers.Message, origin []byte) error {
	size := protocol.InvokeSize(m)
	if origin != nil {
		size += 4 + len(origin)
	}
	if size > h.pool.cfg.MaxFrame {
		return handlers.Reject(fmt.Errorf("%w: its frame has %d bytes, and %d is the most", triggers.ErrTooLarge, size, h.pool.cfg.MaxFrame))
	}
	return nil
}

// retryLost tries a message until it has its own result. output and err are the result of the
// last try.
func (h *Handler) retryLost(ctx context.Context, m *triggers.Message, try func(*worker.Worker) ([]byte, error), output []byte, err error) ([]byte, error) {
	for again := false; ; {
		var lost *worker.Loss
		switch {
		case !errors.As(err, &lost):
			return output, err
		case lost.Again:
			// The call did not cause the loss.
			if own := h.quarantineHandler(); own != nil && !h.TakesBatches() {
				return own.Handle(ctx, m)
			} else if own != nil {
				return nil, fmt.Errorf("its function was moved to other workers: %w", handlers.ErrRunAgain)
			}
		case lost.Alone && !lost.Outside:
			return nil, lost.Err
		default:
			if h.pool.cfg.Died != nil {
				h.pool.cfg.Died(ctx, lost.Err)
			}
			if lost.Outside && !lost.Alone && !again {
				again = true // perhaps none of the calls caused it
				output, err = h.pool.suspects.RunCohort(ctx, h.suspectKey(m), lost, try)
				continue
			}
			h.pool.suspects.MarkSuspect(h.suspectKey(m))
			return h.pool.suspects.RunAlone(ctx, h.suspectKey(m), try)
		}
		w, pickErr := h.pool.roster.pickWorker(ctx)
		if pickErr != nil {
			return nil, pickErr
		}
		output, err = try(w)
	}
}

// runOn runs the function on one worker.
func (h *Handler) runOn(ctx context.Context, w *worker.Worker, m *triggers.Message) ([]byte, error) {
	c := worker.NewAwaitedCall(ctx, h.index, m)
	c.Origin = h.originOf(m)
	if h.hasState(m) {
		state, err := m.Session.State(ctx)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", err, handlers.ErrNotTried)
		}
		c.Stateful, c.State = true, state
	}
	return h.submitCall(w, c)
}

// submitCall passes a call to a worker, and follows it to its end.
func (h *Handler) submitCall(w *worker.Worker, c *worker.Call) ([]byte, error) {
	if !w.Submit(c) {
		return nil, &worker.Loss{Err: errors.New("the worker is gone"), Again: true}
	}
	h.pool.watch.wakeUp(c.Deadline)
	return h.awaitCall(w, c, <-c.Replies())
}

// followCall implements worker.Follow.
func (h *Handler) followCall(w *worker.Worker, c *worker.Call, first worker.Reply, to handlers.ResultSink) {
	output, err := h.awaitCall(w, c, first)
	ctx, m := c.Context(), c.Message
	to.SetResult(h.retryLost(ctx, m, h.tryOf(ctx, m), output, err))
}

// awaitCall follows a call from its first reply to its end.
func (h *Handler) awaitCall(w *worker.Worker, c *worker.Call, r worker.Reply) ([]byte, error) {
	registry, m := h.pool.suspects, h.suspectKey(c.Message)
	var cancelled error
	if r.Cancelled {
		if cancelled = context.Cause(c.Context()); cancelled == nil {
			cancelled = context.DeadlineExceeded
		}
		r = h.awaitCancelled(w, c)
	}
	if lost := r.Lost; lost != nil {
		if len(c.Batch) > 1 {
			return nil, h.judgeLostBatch(w, c, cancelled, lost)
		}
		if lost.Alone && !lost.Again && !lost.Outside {
			registry.MarkKiller(m)
		}
		if cancelled != nil {
			return nil, registry.JudgeCancelled(m, w, c, cancelled, lost, lost.Err)
		}
		return nil, registry.JudgeLost(m, lost)
	}
	var output []byte
	var err error
	if c.Batch != nil {
		*c.BatchResult, err = r.ReadBatch()
	} else if output, err = r.HandlerResult(c.Context()); r.Status == protocol.State {
		output, err = setState(c, r)
	}
	if err != nil && cancelled != nil && (!errors.Is(err, handlers.ErrNotTried) || c.IsExcused(w, time.Now())) {
		return nil, registry.JudgeCancelled(m, w, c, cancelled, nil, err)
	}
	return output, err
}

// setState stores the state that a function has set, and returns the output.
func setState(c *worker.Call, r worker.Reply) ([]byte, error) {
	if !c.Stateful {
		return nil, errors.New("it set a session's state, and has no session")
	}
	if err := c.Message.Session.SetState(c.Context(), r.State); err != nil {
		return nil, err
	}
	return r.Output(), nil
}

// awaitCancelled waits until the worker obeys a cancellation, and kills it after KillGrace. After
// half of that time, the worker gets no more calls: its other calls can finish, and a
// replacement can start in time. It returns the call's reply.
func (h *Handler) awaitCancelled(w *worker.Worker, c *worker.Call) worker.Reply {
	grace := h.pool.cfg.KillGrace
	if !c.Deadline.IsZero() {
		grace = max(min(time.Until(c.Deadline)+grace, grace), 0) // the cancellation may have been late
	}
	limit := time.NewTimer(grace)
	defer limit.Stop()
	half := time.NewTimer(grace / 2)
	defer half.Stop()
	last := time.NewTimer(grace - min(worker.StacksLimit, grace/4))
	defer last.Stop()
	for {
		select {
		case r := <-c.Replies():
			return r
		case <-half.C:
			if w.Retire() {
				w.Log.Warn("a call ignores its cancellation; its worker takes no more calls", "function", h.name, "message", c.Message.ID)
				h.pool.roster.countRestart(process.CauseTimeout)
				h.pool.roster.wakeReconciler()
			}
		case <-last.C:
			w.ThreadStacks()
		case now := <-limit.C:
			if w.Process.ThreadState().Stopped {
				w.KillHung(now.Sub(c.SubmittedAt()), worker.Stopped)
				return <-c.Replies()
			}
			w.Log.Warn("a call ignores its cancellation; killing its worker", "function", h.name, "message", c.Message.ID)
			w.KillFor(c, h.overrunFailure(w)) // its stacks were requested before
			return <-c.Replies()
		}
	}
}

// overrunFailure returns the failure of a call that did not end, with its worker's memory use and
// the stacks of its threads.
func (h *Handler) overrunFailure(w *worker.Worker) error {
	why := &handlers.Failure{Summary: fmt.Sprintf("a call of %s did not end within %v of its timeout", h.name, h.pool.cfg.KillGrace)}
	if why.Detail = w.Process.DescribeMemory(); why.Detail != "" {
		why.Detail = why.Summary + "; " + why.Detail
	}
	if stacks := w.ThreadStacks(); stacks != "" {
		why.Detail = cmp.Or(why.Detail, why.Summary) + "; the stacks of all threads of its worker, before it was killed:\n" + stacks
	}
	return why
}
