package scaler

import (
	"math"
	"time"
)

// gain measures the effect of added units. If a dependency of a function (a database, an API)
// is the bottleneck, more units only wait for it together. gain compares the rates before and
// after units were added, with all slots in use both times, and sets a ceiling if the last
// units gained almost nothing.
type gain struct {
	last    time.Duration // time of the last see
	base    level         // before units were added
	run     run           // measurements at about the same number of units
	ceiling int           // 0 is none
	// before is the level when the ceiling was set.
	before level
	proven bool // the ceiling did not lower the rate
	probe  bool // a few more units than the ceiling are tried
	retry  time.Duration
	pause  time.Duration
}

// level is the rate of a number of units.
type level struct {
	units int
	rate  float64
}

// unitRate returns the rate of one unit; 0 if unknown.
func (l level) unitRate() float64 {
	if l.units == 0 {
		return 0
	}
	return l.rate / float64(l.units)
}

// run is a series of measurements at about the same number of units.
type run struct {
	since time.Duration
	units int // at its start
	least int
	done  float64 // messages
	busy  bool    // all slots were in use all the time
	begun bool
}

const (
	// firstRetry and lastRetry bound the pause before more units are tried again.
	firstRetry = 5 * time.Minute
	lastRetry  = time.Hour
	// probeBy is the number of units that are tried then, as a fraction of the ceiling.
	probeBy = 0.25
	// lagging is the least fraction of the units that would suffice for the measured rate;
	// below it some units are superfluous.
	lagging = 0.8
	// room is the factor by which a ceiling exceeds the measured need.
	room = 1.05
	// lowered is the fraction of the rate that must remain under a ceiling.
	lowered = 0.93
	// stepAtLeast is the relative growth of the units from which on their effect is judged. The
	// expected effect must also exceed certain standard errors of the counted messages
	// (Poisson: √n).
	stepAtLeast = 0.2
	certain     = 3
	// about is the relative difference from which on two numbers of units count as different.
	about = 0.1
	// settleLeast is the least time that a number of units is measured. settleTimes is the same
	// as a multiple of the time per message.
	settleLeast = 10 * time.Second
	settleTimes = 2
)

// addSample takes a measurement with ready units. An added unit must bring at least the fraction
// least of what one brought before; 0 switches the check off.
func (g *gain) addSample(at time.Duration, ready int, l Load, least float64) {
	if least <= 0 || ready == 0 {
		return
	}
	defer func() { g.last = at }()
	if g.base.units == 0 && l.Capacity > 0 {
		g.base = level{ready, l.Capacity * float64(ready)}
	}
	if l.Failed > l.Done/2 {
		g.run.begun = false // failures do not depend on the number of units
		return
	}
	// All slots are certainly in use only if a second's work waits.
	busy := l.Busy >= saturated && float64(l.Backlog) >= l.Done
	if r := &g.run; !r.begun || math.Abs(float64(ready-r.units)) > about*float64(r.units) {
		// The messages so far were handled by another number of units.
		*r = run{since: at, units: ready, least: ready, busy: true, begun: true}
		return
	}
	g.run.least = min(g.run.least, ready)
	g.run.done += (l.Done - l.Failed) * (at - g.last).Seconds() // failures are no gain
	g.run.busy = g.run.busy && busy
	settle := settleLeast
	if each := g.base.unitRate(); each > 0 {
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
		float64(here.units-g.base.units)*g.base.unitRate() > certain*noise:
		g.judgeLevel(at, here, least)
	}
}

// unitCapacity returns what one unit would handle if it did not wait for others.
func (g *gain) unitCapacity(measured float64, ready int) float64 {
	if ready > g.base.units {
		return math.Max(measured, g.base.unitRate())
	}
	return measured
}

// judgeLevel compares the current level with the one before units were added.
func (g *gain) judgeLevel(at time.Duration, here level, least float64) {
	each := g.base.unitRate()
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

// underCeiling checks whether a ceiling lowers the rate, and tries at intervals whether it
// still applies.
func (g *gain) underCeiling(at time.Duration, here level, busy bool, least float64) {
	switch {
	case g.probe && here.units > g.before.units:
		brought := (here.rate - g.before.rate) / float64(here.units-g.before.units) / g.before.unitRate()
		if busy && brought < least {
			g.ceiling, g.probe = g.before.units, false
			g.pause = min(2*g.pause, lastRetry)
			g.retry = at + g.pause
			return
		}
		g.base, g.ceiling, g.probe = here, 0, false
	case !g.proven && busy && here.units <= g.ceiling:
		if here.rate < lowered*g.before.rate { // the last units did gain something
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
