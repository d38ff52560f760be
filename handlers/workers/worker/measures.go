package worker

import (
	"slices"
	"time"

	"github.com/drover-run/drover/handlers/workers/protocol"
)

// Measures are sums over the calls of one function, since the pool began. They do not
// fall.
type Measures struct {
	Function string
	Async    bool
	Calls    int64         // that a worker has answered, whatever it said
	Failed   int64         // of them, in whatever way
	Wall     time.Duration // that they took
	// Queued is the time in transit to the function and back: mostly in a queue of the
	// worker's.
	Queued time.Duration
	// Measured are those of the calls of which the worker reported the rest: all of those
	// that take long, and some of the short ones; none of a worker that cannot.
	Measured     int64
	MeasuredWall time.Duration
	CPU          time.Duration // processor time of their own threads
	Held         time.Duration // how long they had their threads, running or waiting
	// Looks is how often a worker looked while the function ran in a thread, and
	// HeldGIL at how many of those the lock that all threads share was held for long.
	Looks, HeldGIL int64
}

func (m *Measures) addAnswer(r protocol.Reply, queued time.Duration) {
	m.Calls++
	if r.Status != protocol.Done && r.Status != protocol.State {
		m.Failed++
	}
	m.Wall += r.Took
	m.Queued += max(queued, 0)
	if r.Measured {
		m.Measured++
		m.MeasuredWall += r.Took
		m.CPU += r.CPU
		m.Held += r.Held
	}
}

func (m *Measures) add(o Measures) {
	m.Calls += o.Calls
	m.Failed += o.Failed
	m.Wall += o.Wall
	m.Queued += o.Queued
	m.Measured += o.Measured
	m.MeasuredWall += o.MeasuredWall
	m.CPU += o.CPU
	m.Held += o.Held
	m.Looks += o.Looks
	m.HeldGIL += o.HeldGIL
}

// SumOf adds up measures by function; the order is that of a.
func SumOf(a, b []Measures) []Measures {
	out := slices.Clone(a)
	for _, m := range b {
		at := slices.IndexFunc(out, func(o Measures) bool { return o.Function == m.Function })
		if at < 0 {
			out = append(out, m)
			continue
		}
		out[at].add(m)
	}
	return out
}
