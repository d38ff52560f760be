package workers

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/handlers/workers/worker"
)

const (
	// watchEvery is how often the contexts of calls in flight are checked, so a cancellation is
	// detected at most this late. A timer per call would cost more than the call.
	watchEvery = 100 * time.Millisecond
	// watchSoon is the shortest time between two checks: how late a timeout is detected at most.
	watchSoon = 20 * time.Millisecond
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
	next    atomic.Int64  // when they are checked next, by the clock in ns
	sooner  chan struct{} // signals that a call times out before that
}

func newWatch(all func() []*worker.Worker, log *slog.Logger) watch {
	return watch{workers: all, log: log, busy: make(chan struct{}, 1), sooner: make(chan struct{}, 1)}
}

// wakeUp is called after a call was submitted. deadline is the call's; zero: it has none.
func (w *watch) wakeUp(deadline time.Time) {
	if !w.awake.Load() && w.awake.CompareAndSwap(false, true) {
		w.next.Store(time.Now().Add(watchEvery).UnixNano())
		w.busy <- struct{}{}
	}
	if !deadline.IsZero() && deadline.UnixNano() < w.next.Load() {
		select {
		case w.sooner <- struct{}{}:
		default:
		}
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
		if busy, _ := w.checkCalls(time.Now()); busy { // a call was submitted between the check and the store
			w.wakeUp(time.Time{})
		}
	}
}

// watchUntilIdle watches until nothing is in flight. It returns false if ctx ends first.
func (w *watch) watchUntilIdle(ctx context.Context) bool {
	began := time.Now()
	last, spare := began, began // the time of the last check, and the time until which calls are spared
	check := time.NewTimer(w.schedule(began, began.Add(watchEvery)))
	defer check.Stop()
	for {
		select {
		case <-w.sooner:
			if now := time.Now(); w.next.Load() > now.Add(watchSoon).UnixNano() {
				check.Reset(w.schedule(now, now))
			}
			continue
		case <-check.C:
		case <-ctx.Done():
			return false
		}
		now := time.Now() // the time of the tick may be old
		if gap := now.Sub(last); gap > standstill {
			w.addStandstill(gap)
			began, spare = now, now.Add(catchUp)
		}
		last = now
		if now.Before(spare) {
			check.Reset(w.schedule(now, spare))
			continue
		}
		w.next.Store(now.Add(watchEvery).UnixNano()) // for calls that are submitted during the check
		busy, next := w.checkCalls(now)
		worker.Relieve(w.workers(), now)
		for _, one := range w.workers() {
			one.CheckHeartbeat(now, began)
		}
		if !busy {
			return true
		}
		check.Reset(w.schedule(time.Now(), next))
	}
}

// schedule sets the time of the next check, for a call that is due at a time, and returns how long
// to wait for it.
func (w *watch) schedule(now, due time.Time) time.Duration {
	wait := min(max(due.Sub(now), watchSoon), watchEvery)
	w.next.Store(now.Add(wait).UnixNano())
	return wait
}

// checkCalls cancels the calls whose context ended. It reports whether any are in flight, and when
// the next one times out, if that is within watchEvery.
func (w *watch) checkCalls(now time.Time) (busy bool, next time.Time) {
	next = now.Add(watchEvery)
	for _, one := range w.workers() {
		has, earliest := one.CancelExpired(now)
		busy = busy || has
		if !earliest.IsZero() && earliest.Before(next) {
			next = earliest
		}
		one.CheckBlock(now)
	}
	return busy, next
}

// addStandstill handles a standstill of the daemon: it makes no call late, and no worker silent.
func (w *watch) addStandstill(gap time.Duration) {
	w.log.Warn("the daemon was suspended: it was stopped, or the machine slept or had no CPU time; no call uses an attempt for that", "for", gap.Round(100*time.Millisecond))
	for _, one := range w.workers() {
		one.AddLost(gap)
	}
}
