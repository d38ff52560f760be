package workers

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/handlers/workers/worker"
)

const (
	// watchEvery is how often the contexts of calls in flight are checked, so a timeout is
	// detected at most this late. A timer per call would cost more than the call.
	watchEvery = 20 * time.Millisecond
	// standstill is the delay of a check after which the daemon counts as suspended: it was
	// stopped, the machine slept, or it got no processor time.
	standstill = time.Second
	// catchUp is how long after a standstill no call is cancelled: responses may still wait to be
	// read.
	catchUp = time.Second
)

// watch detects calls that time out, workers that do not respond, and standstills of the daemon
// itself.
type watch struct {
	workers func() []*worker.Worker // returns the workers that may have calls in flight
	log     *slog.Logger
	busy    chan struct{} // signals calls in flight
	awake   atomic.Bool   // they are already watched
}

// wakeUp is called after a call was submitted.
func (w *watch) wakeUp() {
	if !w.awake.Load() && w.awake.CompareAndSwap(false, true) {
		w.busy <- struct{}{}
	}
}

// watchCalls watches until ctx ends. It pauses while nothing is in flight.
func (w *watch) watchCalls(ctx context.Context) {
	for {
		select {
		case <-w.busy:
		case <-ctx.Done():
			return
		}
		if !w.watchUntilIdle(ctx) {
			return
		}
		w.awake.Store(false)
		if w.checkCalls(time.Now()) { // a call was submitted between the check and the store
			w.wakeUp()
		}
	}
}

// watchUntilIdle watches until nothing is in flight. It returns false if ctx ends first.
func (w *watch) watchUntilIdle(ctx context.Context) bool {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	began := time.Now()
	last, spare := began, began // the time of the last check, and the time until which calls are spared
	for busy := true; busy; {
		select {
		case <-tick.C:
			now := time.Now() // the time of the tick may be old
			if gap := now.Sub(last); gap > standstill {
				w.addStandstill(gap)
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

// addStandstill handles a standstill of the daemon: it makes no call late, and no worker silent.
func (w *watch) addStandstill(gap time.Duration) {
	w.log.Warn("the daemon was suspended: it was stopped, or the machine slept or had no CPU time; no call uses an attempt for that", "for", gap.Round(100*time.Millisecond))
	for _, one := range w.workers() {
		one.AddLost(gap)
	}
}
