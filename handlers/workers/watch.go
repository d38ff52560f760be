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
	awake   atomic.Bool // calls in flight are watched
	base    time.Time
	began   atomic.Int64  // when watching began, in ns since base
	check   *time.Timer   // runs while calls are watched
	next    atomic.Int64  // when they are checked next, by the clock in ns
	sooner  chan struct{} // signals that a call times out before that
}

func newWatch(all func() []*worker.Worker, log *slog.Logger) *watch {
	w := &watch{workers: all, log: log, base: time.Now(), check: time.NewTimer(time.Hour), sooner: make(chan struct{}, 1)}
	w.check.Stop()
	return w
}

// wakeUp is called after a call was submitted. deadline is the call's; zero: it has none.
func (w *watch) wakeUp(deadline time.Time) {
	if !w.awake.Load() {
		now := time.Now()
		w.began.Store(int64(now.Sub(w.base)))
		if w.awake.CompareAndSwap(false, true) {
			w.check.Reset(w.schedule(now, now.Add(watchEvery)))
		}
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
	defer w.check.Stop()
	watching := false
	var began, last, spare time.Time // when watching began, the last check, and the time until which calls are spared
	for {
		select {
		case <-w.sooner:
			if now := time.Now(); w.awake.Load() && w.next.Load() > now.Add(watchSoon).UnixNano() {
				w.check.Reset(w.schedule(now, now))
			}
			continue
		case <-w.check.C:
		case <-ctx.Done():
			return
		}
		now := time.Now() // the time of the tick may be old
		if !watching {
			watching = true
			began = w.base.Add(time.Duration(w.began.Load()))
			last, spare = began, began
		}
		if gap := now.Sub(last); gap > standstill {
			w.addStandstill(gap)
			began, spare = now, now.Add(catchUp)
		}
		last = now
		if now.Before(spare) {
			w.check.Reset(w.schedule(now, spare))
			continue
		}
		w.next.Store(now.Add(watchEvery).UnixNano()) // for calls that are submitted during the check
		busy, next := w.checkCalls(now)
		worker.Relieve(w.workers(), now)
		for _, one := range w.workers() {
			one.CheckHeartbeat(now, began)
		}
		if busy {
			w.check.Reset(w.schedule(time.Now(), next))
			continue
		}
		watching = false
		w.awake.Store(false)
		if busy, _ := w.checkCalls(time.Now()); busy { // a call was submitted between the check and the store
			w.wakeUp(time.Time{})
		}
	}
}

// schedule sets the time of the next check, for a call that is due at a time, and returns how long
// to wait for it. If no call is due soon, the check is at a multiple of watchEvery, like other waits of
// the daemon: the process then wakes once for all of them.
func (w *watch) schedule(now, due time.Time) time.Duration {
	wait := max(due.Sub(now), watchSoon)
	if wait >= watchEvery {
		wait = now.Truncate(watchEvery).Add(watchEvery).Sub(now)
	}
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
