package dispatch

import (
	"context"
	"sync/atomic"
	"time"
)

// This file detects that the daemon stood still: it was stopped (SIGSTOP), the machine was
// suspended, or the process got no CPU time. Calls that timed out meanwhile use no attempt.

const (
	// standstillTick is how often the clock is checked. A check that is later than that by
	// minStandstill or more follows a standstill.
	standstillTick = 500 * time.Millisecond
	minStandstill  = time.Second
	// standstillShare bounds which attempts do not count: those during which the daemon stood
	// still for at least 1/standstillShare of the timeout.
	standstillShare = 10
)

// Standstill adds up how long the daemon stood still. Its methods may be called from many
// goroutines; a nil one counts nothing.
type Standstill struct {
	last atomic.Int64 // the last check, in ns since processStart
	sum  atomic.Int64 // the total before it, in ns
}

// Run checks the clock until ctx ends.
func (s *Standstill) Run(ctx context.Context) {
	s.last.Store(int64(time.Since(processStart)))
	tick := time.NewTicker(standstillTick)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.checkGap(time.Since(processStart))
		case <-ctx.Done():
			return
		}
	}
}

// checkGap adds the time that passed since the last check, if it was a standstill.
func (s *Standstill) checkGap(now time.Duration) {
	if gap := now - time.Duration(s.last.Swap(int64(now))) - standstillTick; gap >= minStandstill {
		s.sum.Add(int64(gap))
	}
}

// totalAt returns how long the daemon has stood still so far, including since the last check.
func (s *Standstill) totalAt(now time.Duration) time.Duration {
	if s == nil {
		return 0
	}
	sum, last := time.Duration(s.sum.Load()), time.Duration(s.last.Load())
	if gap := now - last - standstillTick; last != 0 && gap >= minStandstill { // 0: Run was not called
		sum += gap
	}
	return sum
}
