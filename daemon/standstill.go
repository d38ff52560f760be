package daemon

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/handlers"
)

// This file notices that the daemon stood still: it was stopped (SIGSTOP), or the machine
// slept or had no time for it. Calls whose time was up meanwhile are not charged.

const (
	// standstillTick is how often is looked, and standstillLeast how much later than that
	// a look is after a standstill.
	standstillTick  = 500 * time.Millisecond
	standstillLeast = time.Second
	// standstillShare is what part of a timeout must be lost for the attempt not to be
	// charged: one in so many.
	standstillShare = 10
)

// standstill adds up how long the daemon stood still. Its methods may be called from many
// goroutines; nil is one that never does.
type standstill struct {
	last atomic.Int64 // the last look, in ns since birth
	sum  atomic.Int64 // of all before it, in ns
}

// run looks until ctx ends.
func (s *standstill) run(ctx context.Context) {
	s.last.Store(int64(time.Since(birth)))
	tick := time.NewTicker(standstillTick)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.look(time.Since(birth))
		case <-ctx.Done():
			return
		}
	}
}

// look takes the time that has passed since the last look.
func (s *standstill) look(now time.Duration) {
	if gap := now - time.Duration(s.last.Swap(int64(now))) - standstillTick; gap >= standstillLeast {
		s.sum.Add(int64(gap))
	}
}

// total is how long the daemon has stood still so far, also when nobody has looked since.
func (s *standstill) total(now time.Duration) time.Duration {
	if s == nil {
		return 0
	}
	sum, last := time.Duration(s.sum.Load()), time.Duration(s.last.Load())
	if gap := now - last - standstillTick; last != 0 && gap >= standstillLeast { // 0: nobody looks yet
		sum += gap
	}
	return sum
}

// runsAgain reports whether an attempt is to begin anew, without being charged.
func (t *turn) runsAgain() bool {
	f := t.f
	switch {
	case t.err == nil, f.working.Err() != nil, t.lost.Load(), handlers.Rejected(t.err):
		return false
	case errors.Is(t.err, handlers.ErrRunAgain):
		return true
	case t.Err() == nil:
		return false
	}
	return f.standstill.total(time.Since(birth))-t.stood >= f.timeout/standstillShare
}
