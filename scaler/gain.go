package scaler

import (
	"math"
	"time"
)

// gain watches what more units bring: where what is behind a function (a
// database, an API) is the bottleneck, more of them only wait for it together.
// It compares the rate before and after units were added, with all slots taken
// both times, and sets a ceiling where the last ones brought next to nothing.
type gain struct {
	last    time.Duration // when it looked last
	base    level         // before units were added
	run     run           // of looks at about the same number of units
	ceiling int           // 0: none
	// before is what was done, by how many, when the ceiling was set.
	before level
	proven bool // the ceiling did not lower the rate
	probe  bool // a few more than the ceiling are tried
	retry  time.Duration
	pause  time.Duration
}

// level is the rate of so many units.
type level struct {
	units int
	rate  float64
}

// each is the rate of one of them; 0 if unknown.
func (l level) each() float64 {
	if l.units == 0 {
		return 0
	}
	return l.rate / float64(l.units)
}

// run is looks at about the same number of units.
type run struct {
	since time.Duration
	units int // at its beginning
	least int
	done  float64 // messages
	busy  bool    // all slots were taken all the time
	begun bool
}

const (
	// firstRetry and lastRetry are the pauses before more units are tried again.
	firstRetry = 5 * time.Minute
	lastRetry  = time.Hour
	// probeBy is how many more are tried then, as a part of the ceiling.
	probeBy = 0.25
	// lagging is the part of the units that do all the work, below which the others
	// are one too many.
	lagging = 0.8
	// room is what a ceiling leaves above what was measured.
	room = 1.05
	// lowered is the part of the rate that a ceiling must keep.
	lowered = 0.93
	// stepAtLeast is by what part the units must have grown for what that brought to
	// be told from noise, and certain by how many standard errors.
	stepAtLeast = 0.2
	certain     = 3
	// about is by what part a number of units differs from another to be another.
	about = 0.1
	// settleLeast is how long a number of units is looked at, at least, and
	// settleTimes how many times as long as a message takes.
	settleLeast = 10 * time.Second
	settleTimes = 2
)

// see takes a look, with so many units ready; an added one must bring the part
// least of what one brought before.
func (g *gain) see(at time.Duration, ready int, l Load, least float64) {
	if least <= 0 || ready == 0 {
		return
	}
	defer func() { g.last = at }()
	if g.base.units == 0 && l.Capacity > 0 {
		g.base = level{ready, l.Capacity * float64(ready)}
	}
	if l.Failed > l.Done/2 {
		g.run.begun = false // what fails says nothing of the number of units
		return
	}
	// Slots are surely taken all the time only where a second's work waits.
	busy := l.Busy >= saturated && float64(l.Backlog) >= l.Done
	if r := &g.run; !r.begun || math.Abs(float64(ready-r.units)) > about*float64(r.units) {
		// What was done until now was done by another number.
		*r = run{since: at, units: ready, least: ready, busy: true, begun: true}
		return
	}
	g.run.least = min(g.run.least, ready)
	g.run.done += (l.Done - l.Failed) * (at - g.last).Seconds() // what fails is no gain
	g.run.busy = g.run.busy && busy
	settle := settleLeast
	if each := g.base.each(); each > 0 {
		settle = max(settle, time.Duration(settleTimes*l.Slots/each*float64(time.Second)))
	}
	if at-g.run.since < settle {
		return
	}
	seconds := (at - g.run.since).Seconds()
	here := level{g.run.least, g.run.done / seconds}
	noise := math.Sqrt(g.run.done+1) / seconds
	busy = g.run.busy
	g.run = run{since: at, units: ready, least: ready, busy: true, begun: true}
	switch {
	case g.ceiling > 0:
		g.underCeiling(at, here, busy, least)
	case !busy:
		if l.Capacity > 0 {
			g.base = level{ready, l.Capacity * float64(ready)}
		}
	case here.units <= g.base.units:
		g.base = here
	case float64(here.units) >= (1+stepAtLeast)*float64(g.base.units) &&
		float64(here.units-g.base.units)*g.base.each() > certain*noise:
		g.judge(at, here, least)
	}
}

// capacity is what one unit would do if there were no others that it waits for.
func (g *gain) capacity(measured float64, ready int) float64 {
	if ready > g.base.units {
		return math.Max(measured, g.base.each())
	}
	return measured
}

// judge compares what there is with what there was before units were added.
func (g *gain) judge(at time.Duration, here level, least float64) {
	each := g.base.each()
	if each <= 0 {
		g.base = here
		return
	}
	brought := (here.rate - g.base.rate) / float64(here.units-g.base.units) / each
	working := here.rate / each
	if brought >= least && working >= lagging*float64(here.units) {
		g.base = here
		return
	}
	g.ceiling = max(min(int(math.Ceil(working*room)), here.units), 1)
	g.before, g.proven, g.probe = here, false, false
	g.pause = firstRetry
	g.retry = at + g.pause
}

// underCeiling looks whether a ceiling costs anything, and tries now and then
// whether it still holds.
func (g *gain) underCeiling(at time.Duration, here level, busy bool, least float64) {
	switch {
	case g.probe && here.units > g.before.units:
		brought := (here.rate - g.before.rate) / float64(here.units-g.before.units) / g.before.each()
		if busy && brought < least {
			g.ceiling, g.probe = g.before.units, false
			g.pause = min(2*g.pause, lastRetry)
			g.retry = at + g.pause
			return
		}
		g.base, g.ceiling, g.probe = here, 0, false
	case !g.proven && busy && here.units <= g.ceiling:
		if here.rate < lowered*g.before.rate { // the last ones did bring something
			g.base, g.ceiling = g.before, 0
			return
		}
		g.proven, g.before = true, here
	case at >= g.retry && !busy:
		g.base, g.ceiling = level{}, 0
	case at >= g.retry && !g.probe:
		g.probe, g.before = true, here
		g.ceiling += max(1, int(probeBy*float64(g.ceiling)))
	}
}
