package workers

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/handlers/workers/worker"
)

const (
	// watchEvery is how often calls in flight are checked for whether their context
	// ended; a timeout is noticed so much late at most. A timer for each call would
	// cost more than the call.
	watchEvery = 20 * time.Millisecond
	// standstill is how much later than it is due the watch must be for the daemon to
	// have stood still: it was stopped, or the machine slept, or had no time for it.
	standstill = time.Second
	// catchUp is how long after that calls are not given up: their answers may wait to
	// be read.
	catchUp = time.Second
)

// watch notices calls whose time is up, workers that do not answer, and times at which the
// daemon itself stood still.
type watch struct {
	workers func() []*worker.Worker // that may have calls in flight
	log     *slog.Logger
	busy    chan struct{} // there are calls in flight
	awake   atomic.Bool   // whether they are watched already
}

// wakeUp is called after a call was submitted.
func (w *watch) wakeUp() {
	if !w.awake.Load() && w.awake.CompareAndSwap(false, true) {
		w.busy <- struct{}{}
	}
}

// watchCalls watches until ctx ends. It rests while nothing is in flight.
func (w *watch) watchCalls(ctx context.Context) {
	for {
		select {
		case <-w.busy:
		case <-ctx.Done():
			return
		}
		if !w.untilIdle(ctx) {
			return
		}
		w.awake.Store(false)
		if w.checkCalls(time.Now()) { // one came between the check and the store
			w.wakeUp()
		}
	}
}

// untilIdle watches until nothing is in flight. It reports false when ctx ends first.
func (w *watch) untilIdle(ctx context.Context) bool {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	began := time.Now()
	last, spare := began, began // when it checked, and until when calls are spared
	for busy := true; busy; {
		select {
		case <-tick.C:
			now := time.Now() // a tick may be old
			if gap := now.Sub(last); gap > standstill {
				w.stoodStill(gap)
				began, spare = now, now.Add(catchUp)
			}
			last = now
			if now.Before(spare) {
				continue
			}
			busy = w.checkCalls(now)
			for _, one := range w.workers() {
				one.CheckHeartbeat(now, began)
			}
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// checkCalls cancels the calls whose context ended. It reports whether any are in flight.
func (w *watch) checkCalls(now time.Time) (busy bool) {
	for _, one := range w.workers() {
		busy = one.CancelExpired(now) || busy
		one.CheckBlock(now)
	}
	return busy
}

// stoodStill takes a time at which the daemon stood still: no call is late for that,
// and no worker silent.
func (w *watch) stoodStill(gap time.Duration) {
	w.log.Warn("the daemon was suspended: it was stopped, or the machine slept or had no CPU time; no call uses an attempt for that", "for", gap.Round(100*time.Millisecond))
	for _, one := range w.workers() {
		one.AddLost(gap)
	}
}
