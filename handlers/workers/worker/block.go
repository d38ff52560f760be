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
	// leastBlock is the shortest block that is counted and logged. Shorter ones are dropped when
	// they end.
	leastBlock = 50 * time.Millisecond
	// longBlock is the duration after which a block is logged before it ends: it may never end.
	longBlock = time.Second
	// maxText bounds the kept part of a text from a worker, in bytes.
	maxText = 20 << 10
)

// Block is a period in which the event loop of a worker was blocked.
type Block struct {
	Function, Message string // "" if unknown
	Place             string
	Time              time.Duration // so far
	Over              bool
}

// BlockReport is a Block with all its details.
type BlockReport struct {
	Block
	Log      *slog.Logger // of the worker
	Stack    string
	Computes bool // not waiting
	GIL      bool // C code kept all threads of the worker from running
	Language string
	Reported bool // before it ended
}

// openBlock is a current block of a worker.
type openBlock struct {
	protocol.BlockedFrame
	reportedAt time.Time
	began      time.Time
	logged     bool
}

// durationAt returns how long the block has lasted.
func (b *openBlock) durationAt(now time.Time) time.Duration {
	if b.Over {
		return b.Duration()
	}
	return b.Duration() + now.Sub(b.reportedAt)
}

// causedBy reports whether a call causes the block; the worker's mu is held.
func (b *openBlock) causedBy(c *Call) bool {
	return b != nil && uint32(b.ID) == c.ID && b.ID >= 0 && b.Function == int(c.Function) && (b.Message == "" || b.Message == cutText(c.Message.ID)) && c.submitted.Before(b.began)
}

// blameError returns the failure of the call that blocked the event loop when its worker was killed.
func (b *openBlock) blameError(why error, now time.Time) error {
	blame := &handlers.Failure{Summary: why.Error()}
	var failure *handlers.Failure
	if errors.As(why, &failure) {
		*blame = *failure
	}
	blame.Detail = fmt.Sprintf("it blocked the event loop for %v, at %s\n%s\n%s", b.durationAt(now).Round(time.Millisecond), b.Place, b.Stack, blame.Detail)
	return blame
}

// cutText cuts a text from a worker to maxText.
func cutText(text string) string { return text[max(len(text)-maxText, 0):] }

// lostTime is how long calls of a worker could not run, because its event loop was blocked
// or it was stopped. The worker's mu guards it.
type lostTime struct {
	block *openBlock    // the current block; nil if there is none
	total time.Duration // the total of past blocks and stops
}

func (l *lostTime) totalUntil(now time.Time) time.Duration {
	if l.block == nil {
		return l.total
	}
	return l.total + l.block.durationAt(now)
}

// endBlock adds a block that has ended, and charges it to the call that caused it.
func (l *lostTime) endBlock(b *openBlock, calls []*Call, now time.Time) {
	took := b.durationAt(now)
	l.total += took
	if b.ID >= 0 && b.ID < int64(len(calls)) {
		if c := calls[b.ID]; c != nil && b.causedBy(c) {
			c.causedLoss += took
		}
	}
}
