package scaler

import (
	"math"
	"time"
)

// Counts is what is counted of one function over all its units.
type Counts struct {
	// Received and Done count from when the scaler began, over all units, those
	// that are gone among them. Done are the messages that are no longer in flight.
	Received, Done int64
	// Failed are those of Done that the function failed on.
	Failed int64
	// Taken is how long handling took, in seconds, all together, and up to now for
	// what is in flight: without that, the short ones, which are done first, would
	// make a function look fast.
	Taken float64
	// InFlight is received and not done; Slots the room for that in the ready
	// units, and Used how much of it is taken, by other functions as well.
	InFlight, Slots, Used int64
	// Backlog is Unreadable where the source does not tell.
	Backlog int64
	AtLeast bool // see Load
	Oldest  time.Duration
	// Unsettled see Load.
	Unsettled int64
}

// Meter makes rates of counts: what comes in, what goes out, and what one unit
// can do, which is its slots divided by how long a message takes. So an idle unit
// does not look slow. How long a message takes depends on how many are in flight
// beside it, so the busier the units, the more a measurement weighs. The zero
// Meter is ready.
type Meter struct {
	looked bool
	at     time.Duration
	last   Counts
	done   float64 // messages, lately
	taken  float64 // the parts of a unit's seconds that they took
}

const (
	// rememberFor is how long a measurement of the capacity counts, in time in
	// which units were busy.
	rememberFor = 30.0
	// rememberDone is how many messages it counts at least.
	rememberDone = 50
	// knownDone is how many are enough to speak of a capacity.
	knownDone = 3
	// saturated is the part of the slots from which on units count as fully busy.
	saturated = 0.95
	// surprise is by how many standard errors a measurement of busy units differs
	// from what is remembered for that to be forgotten.
	surprise = 4
)

// Look takes the counts at a time, with so many units ready, and returns the
// load since the look before; ok is false at the first.
func (m *Meter) Look(function string, at time.Duration, c Counts, ready int) (l Load, ok bool) {
	l = Load{Function: function, Backlog: c.Backlog, AtLeast: c.AtLeast, Oldest: c.Oldest, Unsettled: c.Unsettled}
	if c.Slots > 0 {
		l.Busy = math.Min(float64(c.Used)/float64(c.Slots), 1)
	}
	if ready > 0 {
		l.Slots = float64(c.Slots) / float64(ready)
	}
	seconds := (at - m.at).Seconds()
	if m.looked && seconds > 0 {
		done := c.Done - m.last.Done
		came := c.Received - m.last.Received
		if c.Backlog != Unreadable && m.last.Backlog != Unreadable {
			came += c.Backlog - m.last.Backlog
		}
		l.Arrivals = math.Max(float64(came), 0) / seconds
		l.Done, l.Failed = float64(done)/seconds, math.Max(float64(c.Failed-m.last.Failed), 0)/seconds
		if l.Slots > 0 {
			m.measure(float64(done), (c.Taken-m.last.Taken)/l.Slots, l.Busy, seconds)
		}
		ok = true
	}
	if m.done >= knownDone && m.taken > 0 {
		l.Capacity, l.Spread = m.done/m.taken, 1/math.Sqrt(m.done)
	}
	if !m.looked || seconds > 0 {
		m.looked, m.at, m.last = true, at, c
	}
	return l, ok
}

// measure adds what was done, and what of units' seconds it took.
func (m *Meter) measure(done, taken, busy, seconds float64) {
	if done <= 0 || taken <= 0 {
		return
	}
	if busy >= saturated && done >= knownDone && m.done > 0 {
		was, is := m.done/m.taken, done/taken
		if math.Abs(is-was) > surprise*is*math.Sqrt(1/done+1/m.done) {
			m.done, m.taken = 0, 0
		}
	}
	keep := math.Exp(-busy * seconds / rememberFor)
	if m.done > 0 {
		keep = math.Max(keep, math.Min(rememberDone/m.done, 1))
	}
	weight := math.Max(busy, 0.01)
	m.done = m.done*keep + weight*done
	m.taken = m.taken*keep + weight*taken
}
