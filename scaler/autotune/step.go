package autotune

import (
	"fmt"
	"math"
	"slices"

	"github.com/drover-run/drover/scaler/autotune/pool"
	"github.com/drover-run/drover/scaler/autotune/profile"
)

// trial is a plan that is compared with the best one.
type trial struct {
	plan
	dim    pool.Dim
	up     bool
	why    string
	began  Sample
	factor float64 // of the dimension
}

// search is the state of the search in the three dimensions, for these functions and cores.
type search struct {
	begun, done bool
	// shut reports that more of a dimension gains nothing, trimmed that less of it loses
	// throughput.
	shut, trimmed [3]bool
	// rose and low are lower bounds of what is needed, assuming that throughput is at most
	// proportional to it: rose from steps up that gained, low from steps down that lost.
	rose, low [3]float64
	// most bounds the factor of the next step after one that did harm; 0 is unbounded.
	most [3]float64
	// rejected counts the steps down that cost throughput.
	rejected [3]int
	probed   bool     // on full cores, more of very short calls were tried
	doubted  bool     // a small gain was measured again
	faded    int      // restarts because the best plan did not keep its rate
	won      pool.Dim // the dimension of the last step up that gained
	ref      *window  // the best measurement; steps down are compared with it
}

const (
	// jump is the largest factor of a step up. doubling is the factor of a step without a
	// prediction, and finer the one near the optimum.
	jump     = 8.0
	doubling = 2.0
	finer    = 1.5
	// full is the headroom below which the cores count as full: more calls that compute gain
	// nothing.
	full = 1.04
	// gap is the headroom from which on even functions that compute may gain by a second call per
	// process, which fills the gaps between calls.
	gap = 1.08
	// idle is the headroom from which on another process may help where more threads do not.
	idle = 1.25
	// beyond is the factor by which a step exceeds the prediction, so that it reaches the optimum.
	beyond = 1.1
	// spare is the factor by which a dimension must exceed the need before it is trimmed.
	spare = 1.25
)

// next starts the next trial, or finishes the search.
func (c *Controller) next(s Sample) {
	if s.At-c.based > stale {
		c.base = nil
		c.ask(s, c.best, PhaseClimb, "measuring anew before the next step")
		return
	}
	t, phase := c.up(s), PhaseClimb
	if t == nil {
		t, phase = c.down(s), PhaseTrim
	}
	if t == nil {
		c.finish(s)
		return
	}
	t.began = s
	c.search.begun = true
	c.trial = t
	c.ask(s, t.plan, phase, "trying "+t.String()+": "+t.why)
}

// needs describes which dimensions could help the busy functions.
type needs struct {
	sync, async bool // some functions wait in threads, or on the loop
	loop        bool // some async functions could use the loop's executor
	short       bool // calls are so short that the next one must be queued already
	mixed       bool // functions of different kinds share the cores
	use         float64
	any         bool
}

func (c *Controller) needs(s Sample) (n needs) {
	kinds := map[string]bool{}
	// Functions that compute may leave the cores idle between two calls.
	gaps := c.base.headroom() > gap
	for _, f := range s.Functions {
		l := c.base.flows[f.Name]
		if l == nil || !l.busy(c.base) {
			continue
		}
		k := c.nature.Of(f.Name)
		kinds[k.Kind] = true
		if l.capped(c.base) {
			continue
		}
		n.any = true
		short := l.done > 0 && c.nature.ShortestCall(f.Name) < profile.ShortCall.Seconds()
		n.short = n.short || short
		n.sync = n.sync || !f.Async && (!k.Computes() || k.ReleasesGIL || short || gaps)
		n.async = n.async || f.Async && (!k.NeverAwaits || short || gaps)
		n.loop = n.loop || f.Async && !k.NeverAwaits
		if !k.Computes() {
			n.use += c.nature.CPUPerCall(f.Name) * c.base.per(l.done)
		}
	}
	n.mixed = len(kinds) > 1
	return n
}

// up returns the next step up that could gain; nil if there is none.
func (c *Controller) up(s Sample) *trial {
	n := c.needs(s)
	if !n.any {
		return nil
	}
	room := c.base.headroom()
	gilBound := c.base.per(c.base.cpu) > 0.85*float64(c.best.Processes)
	cores := pool.WholeCores(s.Cores)
	if gilBound && c.best.Processes < cores && room > 1/0.9 {
		if t := c.raise(s, pool.Processes, float64(cores)/float64(c.best.Processes), "each process has one core's worth of the GIL"); t != nil {
			return t
		}
	}
	if room < full && !n.mixed {
		if n.short && !c.search.probed {
			c.search.probed = true
			for _, d := range c.order(n) {
				if t := c.raise(s, d, 2*doubling, "calls are short, and the next should be there already"); t != nil {
					return t
				}
			}
		}
		return nil
	}
	factor, why := doubling, "twice as many"
	switch {
	case n.mixed:
		if n.use > 0 {
			factor = c.base.room() / 2 / n.use
			why = "some wait while others compute"
		}
	case !math.IsInf(room, 1):
		factor = room * beyond
		why = fmt.Sprintf("%.2g of %.2g cores are used", c.base.per(c.base.cpu), c.base.room())
	}
	least := doubling
	if factor < doubling {
		least = finer
	}
	factor = math.Min(math.Max(factor, least), jump)
	for _, d := range c.order(n) {
		if t := c.raise(s, d, factor, why); t != nil {
			return t
		}
	}
	// The best value is at its bound: another process adds the same number again.
	bounded := n.sync && !c.search.shut[pool.Threads] && c.best.Threads == c.bounds.Most.Threads ||
		n.async && !c.search.shut[pool.Coroutines] && c.best.Coroutines == c.bounds.Most.Coroutines
	if room > idle || n.mixed && bounded {
		by := finer
		if bounded || c.search.rose[pool.Processes] > 1 {
			by = doubling
		}
		return c.raise(s, pool.Processes, by, fmt.Sprintf("%.2g of %.2g cores are used", c.base.per(c.base.cpu), c.base.room()))
	}
	return nil
}

// order returns the dimensions in the order in which they are raised.
func (c *Controller) order(n needs) (order []pool.Dim) {
	if n.sync {
		order = append(order, pool.Threads)
	}
	if n.async {
		order = append(order, pool.Coroutines)
	}
	if n.loop && !n.sync && (c.base.headroom() > idle || c.search.won == pool.Threads) {
		order = append(order, pool.Threads)
	}
	// The dimension that gained last is first.
	if i := slices.Index(order, c.search.won); i > 0 {
		order[0], order[i] = order[i], order[0]
	}
	return order
}

// raise returns a step up in one dimension, as far as bounds and memory allow. It returns nil if
// the dimension is known to gain nothing, or if no step fits.
func (c *Controller) raise(s Sample, d pool.Dim, factor float64, why string) *trial {
	if c.search.shut[d] {
		return nil
	}
	if most := c.search.most[d]; most > 0 {
		factor = math.Min(factor, most)
	}
	if d == pool.Coroutines && c.search.rose[d] == 0 {
		// Coroutines may wait for each other where drover cannot measure it, for example for the
		// loop's threads, and too many of them take long to drain.
		factor = math.Min(factor, doubling)
	}
	have := c.best.Get(d)
	for {
		to := c.bounds.Clamp(c.best.With(d, max(int(math.Ceil(float64(have)*factor-0.01)), have+1)))
		if to == c.best.Settings {
			return nil
		}
		if c.memory.fits(c.best.Settings, to, float64(s.Memory), s.MemoryLimit, s.Functions) {
			return &trial{plan: c.plan(s, to), dim: d, up: true, why: why, factor: float64(to.Get(d)) / float64(have)}
		}
		if to.Get(d) == have+1 {
			return nil
		}
		factor = math.Max(math.Sqrt(factor), 1)
		why += ", as far as memory allows"
	}
}

// down returns the next step down that could cost nothing; nil if there is none.
func (c *Controller) down(s Sample) *trial {
	for _, d := range pool.Dims {
		have := c.best.Get(d)
		if c.search.trimmed[d] || have <= c.bounds.Least.Get(d) {
			continue
		}
		need, why := c.need(s, d)
		need = math.Max(need, 1.05*math.Max(c.search.rose[d], c.search.low[d]))
		if float64(have) < spare*need && !(d == pool.Processes && need <= float64(have-1)) || need > float64(have-1) {
			continue
		}
		to := c.bounds.Clamp(c.best.With(d, int(math.Ceil(need))))
		if to == c.best.Settings {
			continue
		}
		return &trial{plan: c.plan(s, to), dim: d, why: why, factor: float64(to.Get(d)) / float64(have)}
	}
	return nil
}

// need returns the smallest value of a dimension that should suffice, and the reason.
func (c *Controller) need(s Sample, d pool.Dim) (need float64, why string) {
	have := float64(c.best.Get(d))
	if d == pool.Processes {
		if cores := float64(pool.WholeCores(s.Cores)); have > cores {
			return math.Max(cores, math.Ceil(have/2)), "more processes than cores"
		}
		// With very short calls the daemon needs a core, too.
		if daemon := c.base.per(c.base.daemon); daemon > 0.25 && daemon > 0.3*c.base.per(c.base.cpu) && have > 1 && c.search.rejected[d] == 0 {
			return have - 1, "the daemon needs a core, too"
		}
		return have, ""
	}
	// Halving finds the smallest value in few steps.
	need, why = have/2, "as much with less"
	functions := c.mix.recent(s)
	used, useless := false, true
	model := math.Inf(1)
	if c.base.headroom() < idle {
		model = 0
	}
	for _, f := range functions {
		if f.Async != (d == pool.Coroutines) {
			continue
		}
		used = true
		k := c.nature.Of(f.Name)
		useless = useless && k.Computes() && !k.ReleasesGIL
		if !k.Computes() {
			model = math.Max(model, c.fills(f, k))
		}
	}
	switch {
	case !used && d == pool.Threads: // only the loop's executor uses threads
		return math.Max(have/2, float64(c.nature.FirstSettings(functions, s.Cores, c.bounds).Threads)), "the loop's threads"
	case !used:
		return 1, "nothing is async"
	case useless && d == pool.Threads:
		return 1, "what computes gains nothing by threads"
	case useless:
		return profile.FewCoroutines, "what never awaits gains nothing by coroutines"
	}
	// The prediction is a lower bound.
	if !math.IsInf(model, 1) {
		need = math.Max(need, math.Min(model, have))
	}
	return need, why
}

// fills returns how many calls of a function in each process fill the cores: the usable cores,
// divided by the share of its time that a call computes, and by the processes. It returns 0 where
// the share is unknown, or where other processes compute for the calls.
func (c *Controller) fills(f Function, k Kind) float64 {
	own := c.nature.CPUPerCall(f.Name)
	if k.Sure < 0.5 || k.CPU <= 0 || own < 0.6*perCall(c.base) {
		return 0
	}
	return c.base.room() / k.CPU / float64(c.best.Processes)
}
