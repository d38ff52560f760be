package workers

import (
	"errors"
	"fmt"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/process"
)

// This file decides who is charged when calls run out of time together: the one that
// blocked their event loop, hung, or held the GIL, and nobody else.

// share is what part of a call's time others must have taken from it for it not to be
// charged: one in so many.
const share = 10

// blocks reports whether a call is the one that blocks its event loop; w.mu is held.
func (b *block) by(c *call) bool {
	return b != nil && uint32(b.ID) == c.ID && b.ID >= 0 && b.Function == int(c.Function) && (b.Message == "" || b.Message == cut(c.Message.ID)) && c.submitted.Before(b.began)
}

// lostTime is how long calls of the worker could not run so far, since its event loop
// was blocked or it was stopped; w.mu is held.
func (w *worker) lostTime(now time.Time) time.Duration {
	if w.block == nil {
		return w.stood
	}
	return w.stood + w.block.time(now)
}

// over adds a block that is over, and charges it to the call that made it; w.mu is held.
func (w *worker) over(b *block, now time.Time) {
	took := b.time(now)
	w.stood += took
	if b.ID >= 0 && b.ID < int64(len(w.calls)) {
		if c := w.calls[b.ID]; c != nil && b.by(c) {
			c.own += took
		}
	}
}

// excused reports whether the time of a call was up since others had taken it.
func (w *worker) excused(c *call, now time.Time) bool {
	if c.Deadline.IsZero() || now.Before(c.Deadline) {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	others := w.lostTime(now) - c.stood - c.own
	if w.block.by(c) {
		others -= w.block.time(now)
	}
	return others >= c.Deadline.Sub(c.submitted)/share
}

// charge decides what becomes of a call that was cancelled, and did not come to its end
// for that: how is what is known of it.
func (h *Handler) charge(w *worker, c *call, cancelled error, r reply, how error) error {
	late := late(cancelled, how)
	excuses, hung := h.pool.records.of(h, c.Message).excuses, r.lost != nil && w.cause == process.CauseHung
	unknown := r.lost != nil && !r.known // somebody took its time, and may be this call itself
	switch {
	case r.culprit:
		h.pool.records.note(h, c.Message, func(r *record) { r.killer = true })
		return late
	case r.lost != nil && w.cause == process.CauseReaper:
		return fmt.Errorf("%w: %w", r.lost, handlers.ErrRunAgain)
	case hung && excuses < maxExcuses, !hung && excuses < maxAlone && w.excused(c, time.Now()):
		again := h.pool.records.note(h, c.Message, func(r *record) {
			r.excuses++
			r.alone = r.alone || hung || unknown || r.excuses >= maxExcuses
		})
		h.pool.log.Debug("a call ran out of time by no fault of its own; it runs again", "function", h.name, "message", c.Message.ID, "times", again.excuses)
		return fmt.Errorf("others took its time: %w", handlers.ErrRunAgain)
	case r.lost != nil && r.again && r.suspect && !r.alone:
		h.pool.records.note(h, c.Message, func(r *record) { r.alone = true })
		return fmt.Errorf("one of the calls beside it, or itself, kept its worker from answering: %w", handlers.ErrRunAgain)
	case r.lost != nil && r.again && w.insisted(c):
		h.pool.records.note(h, c.Message, func(r *record) { r.killer = true })
	}
	return late
}

// spared decides what becomes of a call whose worker was killed, and whose time was not
// up.
func (h *Handler) spared(c *call, r reply) error {
	if r.culprit || r.suspect {
		h.pool.records.note(h, c.Message, func(r *record) { r.alone = true })
		return fmt.Errorf("it blocked its worker for others, or may have, and runs again alone: %w", handlers.ErrRunAgain)
	}
	return &lostError{how: r.lost, alone: r.alone, again: r.again, outside: r.outside}
}

// blames is what is known of the call that blocked the event loop when its worker was
// killed.
func (b *block) blames(why error, now time.Time) error {
	blames := &handlers.Failure{Summary: why.Error()}
	var failure *handlers.Failure
	if errors.As(why, &failure) {
		*blames = *failure
	}
	blames.Detail = fmt.Sprintf("it blocked the event loop for %v, at %s\n%s\n%s", b.time(now).Round(time.Millisecond), b.Place, b.Stack, blames.Detail)
	return blames
}

// insisted reports whether a call did not obey its cancellation in time.
func (w *worker) insisted(c *call) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.disobeyed == c
}
