package worker

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

const (
	// leastBlock is what is counted and logged: what is shorter is noticed, and
	// dropped when it is over.
	leastBlock = 50 * time.Millisecond
	// longBlock is logged before it is over: it may never be.
	longBlock = time.Second
	// maxText bounds what is kept of a text that a worker sent, in bytes.
	maxText = 20 << 10
)

// Block is one time at which the event loop of a worker did not turn.
type Block struct {
	Function, Message string // "" where that is not known
	Place             string
	Time              time.Duration // so far
	Over              bool
}

// BlockReport is a Block with all that is known of it.
type BlockReport struct {
	Block
	Log      *slog.Logger // the worker's
	Stack    string
	Computes bool // as opposed to waiting
	GIL      bool // C code kept all threads of the worker from running
	Language string
	Reported bool // before it was over
}

// openBlock is a block that is under way in a worker.
type openBlock struct {
	protocol.BlockedFrame
	noticed time.Time
	began   time.Time
	logged  bool
}

// time is how long it has lasted by now.
func (b *openBlock) time(now time.Time) time.Duration {
	if b.Over {
		return b.Time()
	}
	return b.Time() + now.Sub(b.noticed)
}

// madeBy reports whether a call is the one that blocks its event loop; the worker's mu is
// held.
func (b *openBlock) madeBy(c *Call) bool {
	return b != nil && uint32(b.ID) == c.ID && b.ID >= 0 && b.Function == int(c.Function) && (b.Message == "" || b.Message == cut(c.Message.ID)) && c.submitted.Before(b.began)
}

// blame is the failure of the call that blocked the event loop when its worker was killed.
func (b *openBlock) blame(why error, now time.Time) error {
	blame := &handlers.Failure{Summary: why.Error()}
	var failure *handlers.Failure
	if errors.As(why, &failure) {
		*blame = *failure
	}
	blame.Detail = fmt.Sprintf("it blocked the event loop for %v, at %s\n%s\n%s", b.time(now).Round(time.Millisecond), b.Place, b.Stack, blame.Detail)
	return blame
}

// cut bounds a text that a worker sent.
func cut(text string) string { return text[max(len(text)-maxText, 0):] }

// lostTime is how long calls of a worker could not run, since its event loop was blocked
// or it was stopped. It is guarded by the worker's mu.
type lostTime struct {
	block *openBlock    // that is under way; nil if none is
	stood time.Duration // all that is over
}

func (l *lostTime) soFar(now time.Time) time.Duration {
	if l.block == nil {
		return l.stood
	}
	return l.stood + l.block.time(now)
}

// end adds a block that is over, and charges it to the call that made it.
func (l *lostTime) end(b *openBlock, calls []*Call, now time.Time) {
	took := b.time(now)
	l.stood += took
	if b.ID >= 0 && b.ID < int64(len(calls)) {
		if c := calls[b.ID]; c != nil && b.madeBy(c) {
			c.own += took
		}
	}
}
