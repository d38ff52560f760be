package autotune

import (
	"fmt"
	"math"
	"slices"
)

// trial is a plan that is being tried against the best one.
type trial struct {
	plan
	dim    dim
	up     bool
	why    string
	began  Sample
	factor float64 // of the dimension
}

// search is what is known of the three dimensions, for these functions on this
// machine.
type search struct {
	begun, done bool
	// shut says that more brings nothing, trimmed that less costs something.
	shut, trimmed [3]bool
	// rose and low are the least that can do as much, throughput being proportional to
	// it at most: as more did better, and as less did worse.
	rose, low [3]float64
	// most bounds the factor of the next step, where the last one did harm; 0 is unbounded.
	most [3]float64
	// rejected counts the steps down that cost something.
	rejected [3]int
	probed   bool    // more of very short calls were tried on full cores
	doubted  bool    // a small gain was measured again
	faded    int     // how often it began anew as the best did not last
	won      dim     // the dimension of which more brought something last
	ref      *window // the best that was measured; steps down are compared with it
}

const (
	// jump is by what factor a step goes up at most, and doubling by what it goes where
	// nothing says how far.
	jump     = 8.0
	doubling = 2.0
	finer    = 1.5
	// full is the headroom under which there is nothing to gain, by more of what fills
	// the cores already.
	full = 1.04
	// gap is the headroom from which on even what computes may gain by having the next
	// call there.
	gap = 1.08
	// idle is the headroom from which on a process more may help where threads do not.
	idle = 1.25
	// beyond is by what part a step goes further than the model has it.
	beyond = 1.1
	// spare is by what part a dimension must be above what is needed to be trimmed.
	spare = 1.25
)

// next tries something, or is done.
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

// needs is which dimensions more of could help the busy functions.
type needs struct {
	sync, async bool // some wait in threads, or on the loop
	loop        bool // there are async functions that could use the loop's threads
	short       bool // calls are so short that the next must be there already
	mixed       bool // functions of different kinds share the cores
	use         float64
	any         bool
}

func (c *Controller) needs(s Sample) (n needs) {
	kinds := map[string]bool{}
	// What computes leaves cores idle between two calls, if it does.
	gaps := c.base.headroom() > gap
	for _, f := range s.Functions {
		l := c.base.flows[f.Name]
		if l == nil || !l.busy(c.base) {
			continue
		}
		k := c.nature.of(f.Name)
		kinds[k.Kind] = true
		if l.capped(c.base) {
			continue
		}
		n.any = true
		short := l.done > 0 && c.nature[f.Name].least < shortCall.Seconds()
		n.short = n.short || short
		n.sync = n.sync || !f.Async && (!computes(k) || k.ReleasesGIL || short || gaps)
		n.async = n.async || f.Async && (!k.NeverAwaits || short || gaps)
		n.loop = n.loop || f.Async && !k.NeverAwaits
		if !computes(k) {
			n.use += c.nature[f.Name].cpu * c.base.per(l.done)
		}
	}
	n.mixed = len(kinds) > 1
	return n
}

// up is the next step up that could pay; nil if there is none.
func (c *Controller) up(s Sample) *trial {
	n := c.needs(s)
	if !n.any {
		return nil
	}
	room := c.base.headroom()
	gilBound := c.base.per(c.base.cpu) > 0.85*float64(c.best.Processes)
	cores := whole(s.Cores)
	if gilBound && c.best.Processes < cores && room > 1/0.9 {
		if t := c.raise(s, processes, float64(cores)/float64(c.best.Processes), "each process has one core's worth of the GIL"); t != nil {
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
	// More of one dimension helped as far as it goes: another process has some, too.
	bounded := n.sync && !c.search.shut[threads] && c.best.Threads == c.bounds.Most.Threads ||
		n.async && !c.search.shut[coroutines] && c.best.Coroutines == c.bounds.Most.Coroutines
	if room > idle || n.mixed && bounded {
		by := finer
		if bounded || c.search.rose[processes] > 1 {
			by = doubling
		}
		return c.raise(s, processes, by, fmt.Sprintf("%.2g of %.2g cores are used", c.base.per(c.base.cpu), c.base.room()))
	}
	return nil
}

// order is in which order dimensions are raised.
func (c *Controller) order(n needs) (order []dim) {
	if n.sync {
		order = append(order, threads)
	}
	if n.async {
		order = append(order, coroutines)
	}
	if n.loop && !n.sync && (c.base.headroom() > idle || c.search.won == threads) {
		order = append(order, threads)
	}
	// What brought something last is gone on with first.
	if i := slices.Index(order, c.search.won); i > 0 {
		order[0], order[i] = order[i], order[0]
	}
	return order
}

// raise is a step up in one dimension, as far as bounds and memory let it; nil if it
// is known to bring nothing, or there is no room for it.
func (c *Controller) raise(s Sample, d dim, factor float64, why string) *trial {
	if c.search.shut[d] {
		return nil
	}
	if most := c.search.most[d]; most > 0 {
		factor = math.Min(factor, most)
	}
	if d == coroutines && c.search.rose[d] == 0 {
		// They may wait for each other in a place that cannot be seen, the loop's threads
		// for one; what is too many takes long to go away.
		factor = math.Min(factor, doubling)
	}
	have := c.best.get(d)
	for {
		to := c.bounds.clamp(c.best.with(d, max(int(math.Ceil(float64(have)*factor-0.01)), have+1)))
		if to == c.best.Settings {
			return nil
		}
		if c.memory.fits(c.best.Settings, to, float64(s.Memory), s.MemoryLimit, s.Functions) {
			return &trial{plan: c.plan(s, to), dim: d, up: true, why: why, factor: float64(to.get(d)) / float64(have)}
		}
		if to.get(d) == have+1 {
			return nil
		}
		factor = math.Max(math.Sqrt(factor), 1)
		why += ", as far as memory allows"
	}
}

// down is the next step down that could cost nothing; nil if there is none.
func (c *Controller) down(s Sample) *trial {
	for _, d := range dims {
		have := c.best.get(d)
		if c.search.trimmed[d] || have <= c.bounds.Least.get(d) {
			continue
		}
		need, why := c.need(s, d)
		need = math.Max(need, 1.05*math.Max(c.search.rose[d], c.search.low[d]))
		if float64(have) < spare*need && !(d == processes && need <= float64(have-1)) || need > float64(have-1) {
			continue
		}
		to := c.bounds.clamp(c.best.with(d, int(math.Ceil(need))))
		if to == c.best.Settings {
			continue
		}
		return &trial{plan: c.plan(s, to), dim: d, why: why, factor: float64(to.get(d)) / float64(have)}
	}
	return nil
}

// need is how few of a dimension should do as well.
func (c *Controller) need(s Sample, d dim) (need float64, why string) {
	have := float64(c.best.get(d))
	if d == processes {
		if cores := float64(whole(s.Cores)); have > cores {
			return math.Max(cores, math.Ceil(have/2)), "more processes than cores"
		}
		// The daemon needs a core, too, where calls are very short.
		if daemon := c.base.per(c.base.daemon); daemon > 0.25 && daemon > 0.3*c.base.per(c.base.cpu) && have > 1 && c.search.rejected[d] == 0 {
			return have - 1, "the daemon needs a core, too"
		}
		return have, ""
	}
	// Halving finds the end at small cost.
	need, why = have/2, "as much with less"
	functions := c.mix.recent(s)
	used, useless := false, true
	model := math.Inf(1)
	if c.base.headroom() < idle {
		model = 0
	}
	for _, f := range functions {
		if f.Async != (d == coroutines) {
			continue
		}
		used = true
		k := c.nature.of(f.Name)
		useless = useless && computes(k) && !k.ReleasesGIL
		if !computes(k) {
			model = math.Max(model, c.fills(f, k))
		}
	}
	switch {
	case !used && d == threads: // the loop's executor
		return math.Max(have/2, float64(c.nature.table(functions, s.Cores, c.bounds).Threads)), "the loop's threads"
	case !used:
		return 1, "nothing is async"
	case useless && d == threads:
		return 1, "what computes gains nothing by threads"
	case useless:
		return fewCoroutines, "what never awaits gains nothing by coroutines"
	}
	// What the model has for needed is not tried to do without.
	if !math.IsInf(model, 1) {
		need = math.Max(need, math.Min(model, have))
	}
	return need, why
}

// fills is how many calls of a function in each process fill the cores, by the part
// of their time that they compute; 0 where that does not tell, as they have others
// compute for them.
func (c *Controller) fills(f Function, k Kind) float64 {
	own := c.nature[f.Name].cpu
	if k.Sure < 0.5 || k.CPU <= 0 || own < 0.6*perCall(c.base) {
		return 0
	}
	return c.base.room() / k.CPU / float64(c.best.Processes)
}
