package worker

import (
	"math"
	"slices"
	"time"

	"github.com/drover-run/drover/handlers/workers/protocol"
)

// Measures are sums over the calls of one function since the pool began. They never fall.
type Measures struct {
	Function string
	Async    bool
	Calls    int64         // calls that a worker has answered, with any status
	Failed   int64         // calls that failed in any way
	Wall     time.Duration // the duration of these calls
	// Queued is the time in transit to the function and back, most of it in a queue of the
	// worker.
	Queued time.Duration
	// Measured counts the calls with the following measurements: all long ones and some of the
	// short ones; none if the worker does not support it.
	Measured     int64
	MeasuredWall time.Duration
	CPU          time.Duration // processor time of their own threads
	Held         time.Duration // how long they had their threads, running or waiting
	// Looks counts the samples that a worker took while the function ran in a thread, and HeldGIL
	// those in which the GIL was held for long.
	Looks, HeldGIL int64
	// Examined has the delays of some calls, and Spread how much the measured calls differ.
	Examined Examined
	Spread   Spread
}

// Examined are sums over calls whose delays a worker measured; for async calls, over steps of them.
type Examined struct {
	Wall       time.Duration
	CPU        time.Duration
	Delayed    time.Duration // ready to run, and waiting for a core
	Locked     time.Duration // waiting for the GIL, as estimated
	LockedMost time.Duration // the same, at most
}

func (e *Examined) addDelays(d protocol.CallDelays) {
	part := func(at int) time.Duration { return time.Duration(d[at]) * time.Microsecond }
	e.addTimes(Examined{part(1), part(2), part(3), part(4), part(5)})
}

func (e *Examined) addTimes(o Examined) {
	e.Wall += o.Wall
	e.CPU += o.CPU
	e.Delayed += o.Delayed
	e.Locked += o.Locked
	e.LockedMost += o.LockedMost
}

// Spread are sums over measured calls: of the natural logarithm of their processor time in seconds,
// of its square, and of their duration times the square of the part of it in which they computed.
type Spread struct{ Log, LogSquares, Shares float64 }

// leastCPU is the least processor time that counts in Spread.
const leastCPU = time.Microsecond

func (s *Spread) addCall(cpu, took time.Duration) {
	log := math.Log(max(cpu, leastCPU).Seconds())
	s.addSums(Spread{log, log * log, cpu.Seconds() * min(cpu.Seconds()/max(took, leastCPU).Seconds(), 1)})
}

func (s *Spread) addSums(o Spread) {
	s.Log += o.Log
	s.LogSquares += o.LogSquares
	s.Shares += o.Shares
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
		m.Spread.addCall(r.CPU, r.Took)
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
	m.Examined.addTimes(o.Examined)
	m.Spread.addSums(o.Spread)
}

// SumOf adds up measures by function, in the order of a.
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
