package autotune

import (
	"fmt"
	"math"
	"time"
)

// memory knows what a worker and a call in flight take, and what leaks.
type memory struct {
	// perWorker and perCall are bytes, perCall at most; 0 until something is known.
	perWorker, perCall float64
	// leak is by how much the pool grew at unchanged settings, in bytes/s.
	leak float64
	// since and from are when and from what the growth at these settings is counted.
	since time.Duration
	from  float64
	over  int // samples in a row near the limit
	// before is what was in force before steps were taken down, and down when the last
	// was, at what memory.
	before   plan
	down     time.Duration
	at       float64
	stepped  int
	helpless bool // stepping down does not help
}

const (
	// fill is the part of the limit that a step up may be expected to take, tight the one
	// from which on steps are taken down, and ease the one under which they are taken back.
	fill  = 0.8
	tight = 0.92
	ease  = 0.6
	// little is the part of the memory before a step down that it must get under, to be
	// of help.
	little = 0.93
	// helps is how long a step down is given to help.
	helps = 10 * time.Second
	// tellable is by which part the calls must differ for what they take to be told.
	tellable = 0.25
	// leakOver is how long growth is watched before it is called a leak.
	leakOver = 10 * time.Second
)

// calls is how many calls a plan lets be in flight, of functions like these.
func calls(s Settings, functions []Function) float64 {
	var sync, async bool
	for _, f := range functions {
		sync, async = sync || !f.Async, async || f.Async
	}
	var each int
	if sync {
		each += s.Threads
	}
	if async {
		each += s.Coroutines
	}
	return float64(s.Processes * each)
}

// settled begins the watch for leaks: nothing changes from here on.
func (m *memory) settled(s Sample) { m.since, m.from = s.At, float64(s.Memory) }

// steady watches the growth while nothing changes.
func (m *memory) steady(s Sample) {
	now := float64(s.Memory)
	if m.from == 0 || now < 0.8*m.from { // a worker was recycled
		m.settled(s)
		return
	}
	if passed := s.At - m.since; passed >= leakOver {
		rate := math.Max((now-m.from)/passed.Seconds(), 0)
		m.leak += 0.5 * (rate - m.leak)
		m.settled(s)
	}
}

// learn compares the memory of two plans: what more processes or more calls took.
// Growth that time explains is not taken for theirs, and an estimate that does not
// prove itself fades.
func (m *memory) learn(a, b plan, was, is float64, passed time.Duration, functions []Function) {
	if was == 0 || is == 0 || was == is { // unknown, or not read anew
		return
	}
	grew := is - was - m.leak*passed.Seconds()
	if more := float64(b.Processes - a.Processes); more != 0 {
		m.perWorker = estimate(m.perWorker, grew/more)
		return
	}
	had := calls(a.Settings, functions)
	if more := calls(b.Settings, functions) - had; math.Abs(more) > tellable*had {
		m.perCall = estimate(m.perCall, grew/more)
	}
}

// estimate rises at once and falls by halves. At least a byte: known.
func estimate(old, seen float64) float64 { return math.Max(1, math.Max(seen, (old+seen)/2)) }

// fits says whether a plan is expected to fit, coming from another that takes now.
func (m *memory) fits(from, to Settings, now float64, limit uint64, functions []Function) bool {
	if limit == 0 || now == 0 {
		return true
	}
	return m.expect(from, to, now, functions) <= fill*float64(limit)
}

func (m *memory) expect(from, to Settings, now float64, functions []Function) float64 {
	perWorker := m.perWorker
	if perWorker == 0 {
		perWorker = now / float64(max(from.Processes, 1))
	}
	was, is := calls(from, functions), calls(to, functions)
	if to.Processes != from.Processes {
		// A new worker's calls come with it.
		return now + float64(to.Processes-from.Processes)*math.Max(perWorker, now/float64(max(from.Processes, 1)))
	}
	if m.perCall == 0 && is > was { // all there is may be the calls'
		return now * is / math.Max(was, 1)
	}
	return now + (is-was)*m.perCall
}

// near watches the limit, and says when it was too near for a while.
func (m *memory) near(s Sample) bool {
	if s.MemoryLimit == 0 || float64(s.Memory) < tight*float64(s.MemoryLimit) {
		m.over = 0
		return false
	}
	m.over++
	return m.over >= 2
}

// forget gives up going back to what was before steps down: it is another load now.
func (m *memory) forget() { m.stepped, m.helpless = 0, false }

// less is the step down from a plan: calls where they are what takes it, else a worker.
func (m *memory) less(p plan, b Bounds, now float64, functions []Function) (plan, string, bool) {
	var sync, async bool
	for _, f := range functions {
		sync, async = sync || !f.Async, async || f.Async
	}
	next := p
	shrink := func(d dim) { next.Settings = next.with(d, max(next.get(d)*2/3, 1)) }
	theirs := m.perCall * calls(p.Settings, functions)
	if m.perCall == 0 || theirs > 0.2*now {
		if sync {
			shrink(threads)
		}
		if async {
			shrink(coroutines)
		}
		next.Settings = b.clamp(next.Settings)
	}
	if next.Settings == p.Settings {
		next.Settings = b.clamp(p.with(processes, p.Processes-1))
	}
	if next.Settings == p.Settings {
		return p, "memory is nearly used up, and there is nothing left to step down", false
	}
	return next, fmt.Sprintf("memory is nearly used up: stepped down to %v", next.Settings), true
}

func megabytes(b float64) string { return fmt.Sprintf("%.3g MB", b/1e6) }
