package workers

import (
	"context"
	"slices"
	"time"
)

// This file notices the calls whose time is up.

// watchEvery is how often calls in flight are looked at for whether their context
// ended; a timeout is noticed so much late at most. A timer for each call would
// cost more than the call.
const watchEvery = 20 * time.Millisecond

// watched wakes the watch.
func (p *Pool) watched() {
	if !p.awake.Load() && p.awake.CompareAndSwap(false, true) {
		p.busy <- struct{}{}
	}
}

// watch gives up the calls whose context ended. It rests while nothing is in
// flight.
func (p *Pool) watch(ctx context.Context) {
	for {
		select {
		case <-p.busy:
		case <-ctx.Done():
			return
		}
		tick := time.NewTicker(watchEvery)
		began := time.Now()
		last, spare := began, began // when it looked, and until when calls are spared
		for busy := true; busy; {
			select {
			case <-tick.C:
				now := time.Now() // a tick may be old
				if gap := now.Sub(last); gap > standstill {
					p.stoodStill(gap)
					began, spare = now, now.Add(catchUp)
				}
				last = now
				if now.Before(spare) {
					continue
				}
				busy = p.giveUp(now)
				p.listen(now, began)
			case <-ctx.Done():
				tick.Stop()
				return
			}
		}
		tick.Stop()
		p.awake.Store(false)
		if p.giveUp(time.Now()) { // one came between the look and the store
			p.watched()
		}
	}
}

// listen looks for workers that do not answer.
func (p *Pool) listen(now, since time.Time) {
	for _, w := range p.everyone() {
		w.listen(now, since)
	}
}

// everyone are the workers that may have messages in flight.
func (p *Pool) everyone() []*worker {
	p.mu.Lock()
	all := slices.Clone(p.workers)
	p.mu.Unlock()
	return append(append(all, p.suspects.current()...), p.killers.current()...)
}

func (p *Pool) giveUp(now time.Time) (busy bool) {
	for _, w := range p.everyone() {
		busy = w.giveUp(now) || busy
		w.overdue(now)
	}
	return busy
}
