package workers

import (
	"maps"
	"slices"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/process"
)

// This file goes back to earlier settings when calls failed under later ones.

// Renew has workers take no more from now on, and replaces them: what calls have left
// behind in them under other settings, such as a connection that belongs to a thread,
// may be in the way of the next ones. What is in flight in them ends there. With all
// false it does so only to workers that loaded the code with another number of threads
// than they are to have now.
func (p *Pool) Renew(all bool) {
	p.mu.Lock()
	workers, threads := p.workers, int64(p.settings.Threads)
	p.mu.Unlock()
	renewed := false
	for _, w := range workers {
		if w.usable() && (all || w.born.Load() != threads) && w.retire() {
			p.count(process.CauseUndone)
			renewed = true
		}
	}
	if renewed {
		p.resize()
		p.nudge()
	}
}

// Isolated are the functions that were moved since they block the event loop, in order.
func (p *Pool) Isolated() []string {
	return slices.Sorted(slices.Values(slices.Concat(p.Threaded(), slices.Collect(maps.Keys(p.apart())))))
}

// KeepTogether has a function never moved for blocking the event loop, and moves it back
// if it was: then it returns where its room is now, and Renew(true) is to follow. Else it
// returns nil.
func (p *Pool) KeepTogether(function string) (to *handlers.Slots) {
	index := slices.IndexFunc(p.cfg.Functions, func(f Function) bool { return f.Name == function })
	if index < 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.moving[function] = true // as if it was on its way: keepApart does it once
	if slices.Contains(p.threaded, uint16(index)) {
		p.threaded = slices.DeleteFunc(slices.Clone(p.threaded), func(i uint16) bool { return i == uint16(index) })
		p.kinds[function] = true
		to = p.async
	}
	if a, is := p.apart()[function]; is {
		next := maps.Clone(p.apart())
		delete(next, function)
		p.aparted.Store(&next)
		own := a.pool.ownMeasures()
		for i := range own {
			p.past[index].plus(own[i]) // it has this function alone
		}
		a.pool.Scale(0)
		to = p.async
	}
	return to
}
