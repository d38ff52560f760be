package workers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

// Handler is one function of a pool.
type Handler struct {
	pool     *Pool
	name     string
	index    uint16
	stateful bool // it is given the state of sessions
}

// Handler returns the handler of a function of the pool, by its Name. It is to
// be called after Ready: only then is known whether the function is async. The
// error says that there is none.
func (p *Pool) Handler(name string) (*Handler, error) {
	i := slices.IndexFunc(p.cfg.Functions, func(f Function) bool { return f.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("the pool has no function %q", name)
	}
	return &Handler{pool: p, name: name, index: uint16(i), stateful: p.cfg.Functions[i].SessionState}, nil
}

// Index is the function's place in Config.Functions.
func (h *Handler) Index() int { return int(h.index) }

// Async reports whether the function is async.
func (h *Handler) Async() bool { return h.pool.Async(h.name) }

// Async reports whether a function of the pool runs on the event loop.
func (p *Pool) Async(function string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.kinds[function]
}

// Slots implements handlers.Slotted.
func (h *Handler) Slots() *handlers.Slots { return h.slotsOf() }

// Close does nothing: the processes end with the pool's Run.
func (h *Handler) Close(context.Context) error { return nil }

// Handle implements handlers.Handler. A message whose worker dies under it
// together with others is tried again alone, to find out whose fault it was.
func (h *Handler) Handle(ctx context.Context, m *triggers.Message) ([]byte, error) {
	if own := h.moved(); own != nil {
		return own.Handle(ctx, m)
	}
	if err := h.fits(m); err != nil {
		return nil, err
	}
	if known := h.pool.records.of(h, m); known.apart() {
		return h.alone(ctx, m, known.killer)
	}
	return h.insistOn(ctx, m, nil, &lostError{again: true})
}

// alone runs a message in a worker of its own, and remembers whether it killed that.
func (h *Handler) alone(ctx context.Context, m *triggers.Message, killer bool) ([]byte, error) {
	in := h.pool.suspects
	if killer {
		in = h.pool.killers
	}
	output, err := in.run(ctx, h, m)
	if !errors.Is(err, handlers.ErrNotTried) {
		h.pool.records.settle(h, m, err == nil)
	}
	return output, err
}

// Start implements handlers.Starter. What is out of the ordinary, such as a
// timeout or a worker that dies, is seen to by a goroutine after all.
func (h *Handler) Start(ctx context.Context, m *triggers.Message, to handlers.ResultSink) {
	if own := h.moved(); own != nil {
		own.Start(ctx, m, to)
		return
	}
	if h.fits(m) == nil && !h.hasState(m) && !h.pool.records.of(h, m).apart() {
		if w, _, _ := h.pool.leastBusy(); w != nil {
			c := newCall(ctx, h, m)
			c.to = to
			if w.submit(c) {
				h.pool.watched()
				return
			}
			c.put()
		}
	}
	go func() { to.SetResult(h.Handle(ctx, m)) }()
}

// hasState reports whether a message comes with its session's state: that takes
// requests to the source, and so a goroutine.
func (h *Handler) hasState(m *triggers.Message) bool { return h.stateful && m.Session != nil }

func (h *Handler) fits(m *triggers.Message) error {
	if size := protocol.Size(m); size > h.pool.cfg.MaxFrame {
		return handlers.Reject(fmt.Errorf("%w: it takes %d bytes on its way to a worker, where %d is the most", triggers.ErrTooLarge, size, h.pool.cfg.MaxFrame))
	}
	return nil
}

// insistOn tries a message until it has an answer of its own, given what became
// of it so far.
func (h *Handler) insistOn(ctx context.Context, m *triggers.Message, output []byte, err error) ([]byte, error) {
	for {
		var lost *lostError
		switch {
		case !errors.As(err, &lost):
			return output, err
		case lost.again:
			// by no fault of its own
			if own := h.moved(); own != nil {
				return own.Handle(ctx, m)
			}
		case lost.alone && !lost.outside:
			return nil, lost.how
		default:
			if h.pool.cfg.Died != nil {
				h.pool.cfg.Died(ctx, lost.how)
			}
			h.pool.records.note(h, m, func(r *record) { r.alone = true })
			return h.alone(ctx, m, false)
		}
		w, pickErr := h.pool.pick(ctx)
		if pickErr != nil {
			return nil, pickErr
		}
		output, err = h.try(ctx, w, m)
	}
}

// lostError is a worker that went away with a call in flight.
type lostError struct {
	how   error
	alone bool // nothing else was in flight in it
	again bool // it went by no fault of what was in flight
	// outside is a SIGKILL that drover did not send, an operator's or the kernel's when
	// memory is short, or a worker that was stopped or hangs: perhaps by no fault of its own.
	outside bool
}

func (e *lostError) Error() string { return e.how.Error() }

// leastBusy returns the worker with the least in flight. If there is none it is
// nil, and the error says why there will be none; without one, changed is closed
// when it is time to look again.
func (p *Pool) leastBusy() (best *worker, changed <-chan struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var least int64
	for _, w := range p.workers {
		if !w.usable() {
			continue
		}
		if n := w.inFlight.Load(); best == nil || n < least {
			best, least = w, n
		}
	}
	switch {
	case best != nil:
		return best, nil, nil
	case p.misload != nil:
		return nil, nil, p.misload
	case p.ended:
		return nil, nil, fmt.Errorf("the pool has ended: %w", handlers.ErrNotTried)
	}
	p.wake()
	return nil, p.changed, nil
}

// pick waits for a worker.
func (p *Pool) pick(ctx context.Context) (*worker, error) {
	p.waiting.Add(1)
	defer p.waiting.Add(-1)
	for {
		w, changed, err := p.leastBusy()
		if w != nil || err != nil {
			return w, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("no worker became free: %w", handlers.ErrNotTried)
		}
	}
}

// try runs the function on one worker.
func (h *Handler) try(ctx context.Context, w *worker, m *triggers.Message) ([]byte, error) {
	c := newCall(ctx, h, m)
	c.reply = make(chan reply, 2)
	if h.hasState(m) {
		state, err := m.Session.State(ctx)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", err, handlers.ErrNotTried)
		}
		c.Stateful, c.State = true, state
	}
	if !w.submit(c) {
		return nil, &lostError{how: errors.New("the worker is gone"), again: true}
	}
	h.pool.watched()
	return h.await(w, c, <-c.reply)
}

// await follows a call from its first reply to its end.
func (h *Handler) await(w *worker, c *call, r reply) ([]byte, error) {
	var cancelled error
	if r.giveUp {
		if cancelled = context.Cause(c.ctx); cancelled == nil {
			cancelled = context.DeadlineExceeded
		}
		r = h.insist(w, c)
	}
	if r.lost != nil {
		if r.alone && !r.again && !r.outside {
			h.pool.records.note(h, c.Message, func(r *record) { r.killer = true })
		}
		if cancelled != nil {
			return nil, h.charge(w, c, cancelled, r, r.lost)
		}
		return nil, h.spared(c, r)
	}
	output, err := r.outcome(c.ctx)
	if r.status == protocol.State {
		output, err = h.setState(c, r)
	}
	if err != nil && cancelled != nil && (!errors.Is(err, handlers.ErrNotTried) || w.excused(c, time.Now())) {
		return nil, h.charge(w, c, cancelled, r, err)
	}
	return output, err
}

// lateError is a call that ended after it was cancelled: it failed for that, and the
// detail tells where its code was then.
type lateError struct {
	cause error // of the cancellation
	how   *handlers.Failure
}

func (e *lateError) Error() string   { return e.cause.Error() }
func (e *lateError) Unwrap() []error { return []error{e.cause, e.how} }

// late is the failure of a call that was cancelled, and then ended in some way. What
// its function made of that, a rejection perhaps, counts no longer; what is known of
// where it hung does.
func late(cause, how error) error {
	told := handlers.Failure{Summary: how.Error()}
	var failure *handlers.Failure
	if errors.As(how, &failure) {
		told = *failure
	}
	if told.Detail == "" {
		told.Detail = told.Summary
	}
	return &lateError{cause, &told}
}

// setState keeps the state that a function has set, and returns its output.
func (h *Handler) setState(c *call, r reply) ([]byte, error) {
	if !c.Stateful {
		return nil, errors.New("it set a session's state, and has no session")
	}
	if err := c.Message.Session.SetState(c.ctx, r.state); err != nil {
		return nil, err
	}
	return r.payload, nil
}

// insist waits a while for the worker to obey a cancellation, and then kills it.
// One that has not obeyed at half of that takes no more, so that what else is in
// flight in it can end before, and another is there in time. It returns the call's
// reply.
func (h *Handler) insist(w *worker, c *call) reply {
	grace := h.pool.cfg.KillGrace
	if !c.Deadline.IsZero() {
		grace = max(min(time.Until(c.Deadline)+grace, grace), 0) // it may have been told late
	}
	limit := time.NewTimer(grace)
	defer limit.Stop()
	half := time.NewTimer(grace / 2)
	defer half.Stop()
	last := time.NewTimer(grace - min(stacksLimit, grace/4))
	defer last.Stop()
	for {
		select {
		case r := <-c.reply:
			return r
		case <-half.C:
			if w.retire() {
				w.log.Warn("a call does not end when told to; its worker takes no more", "function", h.name, "message", c.Message.ID)
				h.pool.count(process.CauseTimeout)
				h.pool.nudge()
			}
		case <-last.C:
			w.whereItHangs()
		case now := <-limit.C:
			if w.process.Threads().Stopped {
				w.hung(now.Sub(c.submitted), "it was stopped (SIGSTOP)")
				return <-c.reply
			}
			w.log.Warn("a call does not end when told to; killing its worker", "function", h.name, "message", c.Message.ID)
			// What it has told is there by now.
			why := &handlers.Failure{Summary: fmt.Sprintf("a call of %s did not end within %v of its timeout", h.name, h.pool.cfg.KillGrace)}
			if why.Detail = w.process.DescribeMemory(); why.Detail != "" {
				why.Detail = why.Summary + "; " + why.Detail
			}
			if hangs := w.whereItHangs(); hangs != "" {
				why.Detail = cmp.Or(why.Detail, why.Summary) + "; the stacks of all threads of its worker, before it was killed:\n" + hangs
			}
			w.mu.Lock()
			w.disobeyed = c
			w.mu.Unlock()
			w.kill(process.CauseTimeout, why)
			return <-c.reply
		}
	}
}
