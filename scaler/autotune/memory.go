package autotune

import (
	"fmt"
	"math"
	"time"

	"github.com/drover-run/drover/scaler/autotune/pool"
)

// memory estimates the memory of a worker and of a call in flight, and detects leaks.
type memory struct {
	// perWorker and perCall are in bytes, perCall an upper bound; 0 while unknown.
	perWorker, perCall float64
	// leak is the growth of the pool at unchanged settings, in bytes/s.
	leak float64
	// since and from are the time and the memory from which growth at these settings is counted.
	since time.Duration
	from  float64
	over  int // consecutive samples near the limit
	// before is the plan in force before the steps down, and down and at the last step's time and
	// memory.
	before   plan
	down     time.Duration
	at       float64
	stepped  int
	helpless bool // steps down do not help
}

const (
	// fill is the fraction of the limit that a step up is expected to stay under. From tight on the
	// controller steps down, and below ease it returns to the earlier plan.
	fill  = 0.8
	tight = 0.92
	ease  = 0.6
	// little is the fraction of the earlier memory below which a step down must bring it to help.
	little = 0.93
	// helps is the time that a step down has to take effect.
	helps = 10 * time.Second
	// tellable is the relative difference of the calls from which on their memory is estimated.
	tellable = 0.25
	// leakOver is the time over which growth is averaged for the estimate of a leak.
	leakOver = 10 * time.Second
)

// callsAdmitted returns how many calls of functions like these a plan admits at once.
func callsAdmitted(s Settings, functions []Function) float64 {
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

// startMeasuring begins to measure growth: nothing changes from now on.
func (m *memory) startMeasuring(s Sample) { m.since, m.from = s.At, float64(s.Memory) }

// measureLeak measures the growth while nothing changes.
func (m *memory) measureLeak(s Sample) {
	now := float64(s.Memory)
	if m.from == 0 || now < 0.8*m.from { // a worker was recycled
		m.startMeasuring(s)
		return
	}
	if passed := s.At - m.since; passed >= leakOver {
		rate := math.Max((now-m.from)/passed.Seconds(), 0)
		m.leak += 0.5 * (rate - m.leak)
		m.startMeasuring(s)
	}
}

// learnFromStep estimates the memory of a process or a call from the memory under two plans. Growth
// that the leak explains is subtracted, and an estimate that is not confirmed decays.
func (m *memory) learnFromStep(a, b plan, was, is float64, passed time.Duration, functions []Function) {
	if was == 0 || is == 0 || was == is { // unknown, or not measured again
		return
	}
	grew := is - was - m.leak*passed.Seconds()
	if more := float64(b.Processes - a.Processes); more != 0 {
		m.perWorker = raiseEstimate(m.perWorker, grew/more)
		return
	}
	had := callsAdmitted(a.Settings, functions)
	if more := callsAdmitted(b.Settings, functions) - had; math.Abs(more) > tellable*had {
		m.perCall = raiseEstimate(m.perCall, grew/more)
	}
}

// raiseEstimate rises at once and decays by halves. The result is at least 1, because 0 means
// unknown.
func raiseEstimate(old, seen float64) float64 { return math.Max(1, math.Max(seen, (old+seen)/2)) }

// willFit reports whether a plan is expected to fit, starting from a plan that uses now bytes.
func (m *memory) willFit(from, to Settings, now float64, limit uint64, functions []Function) bool {
	if limit == 0 || now == 0 {
		return true
	}
	return m.expectedUse(from, to, now, functions) <= fill*float64(limit)
}

func (m *memory) expectedUse(from, to Settings, now float64, functions []Function) float64 {
	perWorker := m.perWorker
	if perWorker == 0 {
		perWorker = now / float64(max(from.Processes, 1))
	}
	was, is := callsAdmitted(from, functions), callsAdmitted(to, functions)
	if to.Processes != from.Processes {
		// The memory of a new worker includes that of its calls.
		return now + float64(to.Processes-from.Processes)*math.Max(perWorker, now/float64(max(from.Processes, 1)))
	}
	if m.perCall == 0 && is > was { // all memory may be that of the calls
		return now * is / math.Max(was, 1)
	}
	return now + (is-was)*m.perCall
}

// isNearLimit reports that the memory was near the limit in two samples or more.
func (m *memory) isNearLimit(s Sample) bool {
	if s.MemoryLimit == 0 || float64(s.Memory) < tight*float64(s.MemoryLimit) {
		m.over = 0
		return false
	}
	m.over++
	return m.over >= 2
}

// forgetSteps drops the plan from before the steps down, because the load has changed.
func (m *memory) forgetSteps() { m.stepped, m.helpless = 0, false }

// stepDown returns the next step down: fewer calls if they use much memory, else one worker less.
func (m *memory) stepDown(p plan, b Bounds, now float64, functions []Function) (plan, string, bool) {
	var sync, async bool
	for _, f := range functions {
		sync, async = sync || !f.Async, async || f.Async
	}
	next := p
	shrink := func(d pool.Dim) { next.Settings = next.With(d, max(next.Get(d)*2/3, 1)) }
	theirs := m.perCall * callsAdmitted(p.Settings, functions)
	if m.perCall == 0 || theirs > 0.2*now {
		if sync {
			shrink(pool.Threads)
		}
		if async {
			shrink(pool.Coroutines)
		}
		next.Settings = b.Clamp(next.Settings)
	}
	if next.Settings == p.Settings {
		next.Settings = b.Clamp(p.With(pool.Processes, p.Processes-1))
	}
	if next.Settings == p.Settings {
		return p, "memory is nearly used up, and nothing is left to reduce", false
	}
	return next, fmt.Sprintf("memory is nearly used up: stepped down to %v", next.Settings), true
}

func inMegabytes(b float64) string { return fmt.Sprintf("%.3g MB", b/1e6) }
