package sim

import (
	"math"
	"time"
)

// fleet is the set of instances.
type fleet struct {
	ready    int
	starting []group // the oldest first
	draining []group
}

// group is a number of instances that began to start, or to drain, together.
type group struct {
	count int
	until time.Duration // the time when they are ready, or the end of their grace
	busy  int64         // when draining: messages in flight
}

func (f *fleet) startingCount() (n int) {
	for _, g := range f.starting {
		n += g.count
	}
	return n
}

func (f *fleet) drainingCount() (n int) {
	for _, g := range f.draining {
		n += g.count
	}
	return n
}

func (f *fleet) count() int { return f.ready + f.startingCount() + f.drainingCount() }

// finishStarts makes instances ready whose start-up has ended, and reports whether there were any.
func (f *fleet) finishStarts(now time.Duration) (any bool) {
	for len(f.starting) > 0 && f.starting[0].until <= now {
		f.ready += f.starting[0].count
		f.starting = f.starting[1:]
		any = true
	}
	return any
}

// setCount changes the number of instances to n. It first removes those that are starting, the
// newest first.
func (f *fleet) setCount(now time.Duration, n int, w *world, idleFirst bool) {
	more := n - f.ready - f.startingCount()
	if more > 0 {
		f.starting = append(f.starting, group{count: more, until: now + w.model.StartUp})
		return
	}
	for ; more < 0 && len(f.starting) > 0; more++ {
		last := &f.starting[len(f.starting)-1]
		if last.count--; last.count == 0 {
			f.starting = f.starting[:len(f.starting)-1]
		}
	}
	if more < 0 {
		f.drainReady(now, -more, w, idleFirst)
	}
}

// drainReady drains n ready instances.
func (f *fleet) drainReady(now time.Duration, n int, w *world, idleFirst bool) {
	inFlight := w.flight.count
	for _, g := range f.draining {
		inFlight -= g.busy
	}
	slots := float64(f.ready) * float64(w.model.Slots)
	load := math.Min(float64(inFlight)/math.Max(slots, 1), 1)
	idle := int(float64(f.ready) * math.Pow(1-load, float64(w.model.Slots)))
	gone := int(math.Round(float64(idle) * float64(n) / float64(max(f.ready, 1))))
	if idleFirst {
		gone = idle
	}
	gone = min(gone, n)
	working := n - gone
	each := 0.0 // messages in flight per busy instance
	if f.ready > idle {
		each = float64(inFlight) / float64(f.ready-idle)
	}
	f.ready -= n
	if busy := min(w.roundRandomly(each*float64(working)), inFlight); busy > 0 {
		f.draining = append(f.draining, group{count: working, until: now + w.model.Grace, busy: busy})
	}
}

// removeDone removes done messages, of inFlight, from the draining instances in proportion, and
// returns the number of messages left in them.
func (f *fleet) removeDone(done, inFlight int64) (left int64) {
	if inFlight == 0 {
		return 0
	}
	part := float64(done) / float64(inFlight)
	for i := range f.draining {
		g := &f.draining[i]
		g.busy -= min(int64(math.Ceil(float64(g.busy)*part)), g.busy)
		left += g.busy
	}
	return left
}

// endDrained removes draining instances without messages in flight, and those whose grace has ended.
// It returns the number of interrupted messages.
func (f *fleet) endDrained(now time.Duration, w *world) (interrupted int64) {
	left := f.draining[:0]
	for _, g := range f.draining {
		g.count = int(min(int64(g.count), g.busy))
		if g.count > 0 && now >= g.until {
			interrupted += g.busy
			w.flight.interrupt(g.busy)
			w.received -= g.busy // they are delivered again
			w.queue.putBack(now-w.model.Grace, g.busy)
			continue
		}
		if g.count > 0 {
			left = append(left, g)
		}
	}
	f.draining = left
	return interrupted
}
