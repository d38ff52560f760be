package scaler

import (
	"math"
	"time"
)

// Counts has the counters of one function over all its units.
type Counts struct {
	// Received and Done count since the scaler began, over all units, including those that have
	// ended. Done are the messages that are no longer in flight.
	Received, Done int64
	// Failed counts the messages in Done on which the function failed.
	Failed int64
	// Taken is the total handling time in seconds. It includes the time so far of messages in
	// flight: without that, the short ones, which end first, would make a function look fast.
	Taken float64
	// InFlight is the number of messages received and not done, Slots the number of slots of
	// the ready units, and Used the slots in use, also by other functions.
	InFlight, Slots, Used int64
	// Backlog is Unreadable if the source cannot be read.
	Backlog int64
	AtLeast bool // see Load
	Oldest  time.Duration
	// Unsettled see Load.
	Unsettled int64
}

// Meter derives rates from counts: arrivals, finished messages, and the capacity of one unit,
// which is its slots divided by the time per message. So an idle unit does not look slow. The
// time per message depends on the messages in flight, so measurements of busier units weigh
// more. The zero Meter is ready to use.
type Meter struct {
	looked bool
	at     time.Duration
	last   Counts
	done   float64 // weighted messages
	taken  float64 // the unit-seconds that they took
}

const (
	// rememberFor is the time constant of the capacity's mean, in seconds in which units were
	// busy.
	rememberFor = 30.0
	// rememberDone is the least number of messages in that mean; 50 have a standard error of 14 %
	// (1/√n).
	rememberDone = 50
	// knownDone is the number of messages from which on the capacity is known.
	knownDone = 3
	// saturated is the fraction of the slots in use from which on units count as fully busy.
	saturated = 0.95
	// surprise is the difference, in standard errors, between a measurement of busy units and
	// the mean that resets the mean.
	surprise = 4
)

// Look takes the counts at a time, with ready units, and returns the load since the last call;
// ok is false at the first.
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
			m.addFinished(float64(done), (c.Taken-m.last.Taken)/l.Slots, l.Busy, seconds)
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

// addFinished adds finished messages, and the unit-seconds that they took.
func (m *Meter) addFinished(done, taken, busy, seconds float64) {
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
