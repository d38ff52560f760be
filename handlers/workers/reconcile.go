package workers

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/process"
)

// Scale sets the number of workers. More are started; of those that are too many
// the idlest end, when they have finished what they have in flight. With none the
// pool still offers room for what one would take, and the first message has one
// started, which counts as wanted then.
func (p *Pool) Scale(n int) {
	p.mu.Lock()
	changed := p.wanted != n
	p.wanted = n
	for _, a := range p.apart() {
		a.pool.Scale(beside(n))
	}
	p.mu.Unlock()
	if changed {
		p.nudge()
	}
}

// wake has a worker started where none is wanted; p.mu is held.
func (p *Pool) wake() {
	if p.wanted == 0 {
		p.wanted = 1
		p.nudge()
	}
}

// reconciler brings the workers that there are to those that are wanted.
type reconciler struct {
	pool  *Pool
	pause *backoff.ExponentialBackOff
	since map[*worker]time.Time // when each was started
	next  time.Time             // not to start one before this
	duds  int                   // that died before they had loaded the code, in a row
	died  []process.Cause       // of what workers died that are to be replaced
	crash time.Time             // of the last one

	startUp time.Duration // of a worker, lately
	again   time.Time     // when one is old enough to be recycled; zero: none waits for it
	old     *worker       // that is being recycled; nil if none is
	oldBy   process.Cause

	template  *worker // nil if there is none
	templates int     // that ended in a row

	stopping sync.WaitGroup // workers that are being stopped
}

func (r *reconciler) step() {
	r.again = time.Time{}
	p := r.pool
	p.mu.Lock()
	workers, misload, wanted := p.workers, p.misload, p.wanted
	p.mu.Unlock()
	if p.waiting.Load() > 0 {
		wanted = max(wanted, 1) // somebody waits for one: it is not stopped while it starts
	}
	var left []*worker
	for _, w := range workers {
		if r.keep(w) {
			left = append(left, w)
		}
	}
	able, ordinary := r.tend(wanted)
	if ordinary != nil {
		left = append(left, ordinary)
	}
	wanted = r.recycle(left, wanted)
	active := 0
	for _, w := range left {
		if !w.retiring.Load() {
			active++
		}
	}
	active -= r.retire(left, active-wanted)
	now := time.Now()
	for ; able && misload == nil && active < wanted && !now.Before(r.next); active++ {
		w, err := p.startWorker()
		if err != nil {
			p.log.Error("cannot start a worker; will try again", "error", err)
			r.next = now.Add(r.pause.NextBackOff())
			break
		}
		if len(r.died) > 0 {
			p.count(r.died[0])
			r.died = r.died[1:]
		}
		r.since[w] = now
		left = append(left, w)
	}
	p.mu.Lock()
	p.workers = left
	p.change()
	p.mu.Unlock()
	p.resize()
}

// keep looks at one worker and reports whether it stays.
func (r *reconciler) keep(w *worker) bool {
	lived, lives := r.look(w)
	if lives {
		return true
	}
	if w.retiring.Load() {
		return false
	}
	r.died = append(r.died, w.cause)
	if r.pool.halted() || r.dud(w) {
		return false
	}
	r.mourn("a worker is gone; it will be replaced", w, lived)
	return false
}

// look notes whether a process has loaded the code, and reports whether it lives,
// and for how long it has.
func (r *reconciler) look(w *worker) (lived time.Duration, lives bool) {
	p := r.pool
	lived = time.Since(r.since[w])
	select {
	case <-w.loaded:
		p.noteLoaded(w)
		r.noteStartUp(w)
	default:
		if lived > p.cfg.StartTimeout {
			w.kill(process.CauseStart, fmt.Errorf("the code did not load within %v", p.cfg.StartTimeout))
		}
	}
	select {
	case <-w.gone:
	default:
		return lived, true
	}
	w.done.Wait()
	delete(r.since, w)
	return lived, false
}

// mourn sets when the next process is started after one has died: at once where it has
// answered calls, since then one of those in flight has killed it, and isolation finds
// that one; and after one that dies now and then. It is later and later where processes
// that can do nothing die one after the other.
func (r *reconciler) mourn(what string, w *worker, lived time.Duration) {
	now, delay := time.Now(), time.Duration(0)
	switch {
	case w.answers > 0:
		r.next = now
	case now.Sub(r.crash) > healthy:
		r.pause.Reset()
		r.crash, r.next = now, now
	default:
		delay = r.pause.NextBackOff()
		r.crash, r.next = now, now.Add(delay)
	}
	r.pool.log.Warn(what, "worker", w.process.PID, "error", w.reason, "lived", lived.Round(time.Millisecond), "in", delay.Round(time.Millisecond))
}

// maxDuds is how many workers may die in a row while they load the code for the
// first time, before that is taken for the code's fault.
const maxDuds = 3

// dud reports whether the code has been found not to load, as its workers die of
// it without a word.
func (r *reconciler) dud(w *worker) bool {
	p := r.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.kinds) > 0 {
		return false
	}
	if r.duds++; r.duds < maxDuds {
		return false
	}
	m := &handlers.LoadError{Summary: w.reason.Error(), Detail: w.process.LastLines()}
	m.Summary = fmt.Sprintf("%d workers in a row ended while they loaded the code; the last one: %s", r.duds, m.Summary)
	p.halt(m)
	close(p.loaded)
	return true
}

// replace has a worker take no more, whose place another takes or has taken.
func (r *reconciler) replace(w *worker, why process.Cause) {
	level := slog.LevelDebug
	if why == process.CauseAnonymous {
		level = slog.LevelInfo
	}
	w.log.Log(context.Background(), level, "a worker is recycled", "by", why)
	w.retire()
	r.pool.count(why)
}

// retire has n workers take no more, the idlest first (but before it the one that
// is being recycled, and those that are not ready), and those that have nothing in
// flight end. It returns how many it chose.
func (r *reconciler) retire(workers []*worker, n int) (chosen int) {
	byLoad := slices.Clone(workers)
	slices.Reverse(byLoad) // of those alike the newest go: the oldest is the next to be ready
	usable := func(w *worker) int {
		switch {
		case w == r.old:
			return 0
		case w.usable():
			return 2
		}
		return 1
	}
	slices.SortStableFunc(byLoad, func(a, b *worker) int {
		return cmp.Or(cmp.Compare(usable(a), usable(b)), cmp.Compare(a.inFlight.Load(), b.inFlight.Load()))
	})
	for _, w := range byLoad {
		if chosen < n && !w.retiring.Load() {
			w.retire()
			r.pool.log.Debug("a worker retires", "worker", w.process.PID, "in_flight", w.inFlight.Load())
			chosen++
		}
		if w.retiring.Load() && !w.leaving && w.inFlight.Load() == 0 {
			w.leaving = true
			r.stopping.Go(func() { w.stop(stopGrace) })
		}
	}
	return chosen
}

// noteStartUp remembers how long a worker took to load the code.
func (r *reconciler) noteStartUp(w *worker) {
	if w.noted || w.ready == nil {
		return
	}
	w.noted = true
	p := r.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	p.startUp = time.Since(r.since[w])
	r.startUp, w.wear.readied, w.wear.quiet = p.startUp, time.Now(), time.Now()
}
