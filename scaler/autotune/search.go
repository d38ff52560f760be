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
	// rose and low are lower bounds of the need, assuming that throughput is at most
	// proportional to it: rose from steps up that gained, low from steps down that lost.
	rose, low [3]float64
	// most bounds the factor of the next step after one that did harm; 0 is unbounded.
	most [3]float64
	// rejected counts the steps down that cost throughput.
	rejected [3]int
	probed   bool     // on full cores, more of very short calls were tried
	halved   bool     // fewer processes, with more cores each, lost throughput
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

// stepper chooses the next step of a search, by the measurements of the best plan.
type stepper struct {
	rules
	search *search
	sample Sample
	best   plan
	base   *window // the measurement of the best plan
	memory *memory
	recent []Function // that had work lately
}

func newStepper(c *climber, s Sample) stepper {
	return stepper{c.rules, &c.search, s, c.best, c.base, &c.memory, c.mix.activeLately(s)}
}

// needs describes which dimensions could help the busy functions.
type needs struct {
	sync, async bool // some functions wait in threads, or on the loop
	short       bool // calls are so short that the next one must be queued already
	mixed       bool // functions of different kinds share the cores
	use         float64
	any         bool
}

// findNeeds returns the needs of the busy functions.
func (p stepper) findNeeds() (n needs) {
	kinds := map[string]bool{}
	// Functions that compute may leave the cores idle between two calls.
	gaps := p.base.cpuHeadroom() > gap
	for _, f := range p.sample.Functions {
		l := p.base.flows[f.Name]
		if l == nil || !l.isBusy(p.base) {
			continue
		}
		k := p.profiles.Of(f.Name)
		kinds[k.Kind] = true
		if l.isCapped(p.base) {
			continue
		}
		n.any = true
		short := l.done > 0 && p.profiles.ShortestCall(f.Name) < profile.ShortCall.Seconds()
		n.short = n.short || short
		n.sync = n.sync || !f.Async && (!k.Computes() || k.ReleasesGIL || short || gaps)
		n.async = n.async || f.Async && (!k.NeverAwaits || short || gaps)
		if !k.Computes() {
			n.use += p.profiles.CPUPerCall(f.Name) * p.base.perSecond(l.done)
		}
	}
	n.mixed = len(kinds) > 1
	return n
}

// stepUp returns the next step up that could gain; nil if there is none.
func (p stepper) stepUp() *trial {
	n := p.findNeeds()
	if !n.any {
		return nil
	}
	room := p.base.cpuHeadroom()
	gilBound := p.base.perSecond(p.base.cpu) > 0.85*float64(p.best.Processes)
	cores := pool.WholeCores(p.sample.Cores)
	if gilBound && p.best.Processes < cores && room > 1/0.9 {
		if t := p.raiseDimension(pool.Processes, float64(cores)/float64(p.best.Processes), "each process has one core's worth of the GIL"); t != nil {
			return t
		}
	}
	if room < full && !n.mixed {
		if n.short && !p.search.probed {
			p.search.probed = true
			for _, d := range p.raiseOrder(n) {
				if t := p.raiseDimension(d, 2*doubling, "calls are short, and the next should be there already"); t != nil {
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
			factor = p.base.usableCores() / 2 / n.use
			why = "some wait while others compute"
		}
	case !math.IsInf(room, 1):
		factor = room * beyond
		why = fmt.Sprintf("%.2g of %.2g cores are used", p.base.perSecond(p.base.cpu), p.base.usableCores())
	}
	least := doubling
	if factor < doubling {
		least = finer
	}
	factor = math.Min(math.Max(factor, least), jump)
	for _, d := range p.raiseOrder(n) {
		if t := p.raiseDimension(d, factor, why); t != nil {
			return t
		}
	}
	// The best value is at its bound: another process adds the same number again.
	bounded := n.sync && !p.search.shut[pool.Threads] && p.best.Threads == p.bounds.Most.Threads ||
		n.async && !p.search.shut[pool.Coroutines] && p.best.Coroutines == p.bounds.Most.Coroutines
	if room > idle || n.mixed && bounded {
		by := finer
		if bounded || p.search.rose[pool.Processes] > 1 {
			by = doubling
		}
		return p.raiseDimension(pool.Processes, by, fmt.Sprintf("%.2g of %.2g cores are used", p.base.perSecond(p.base.cpu), p.base.usableCores()))
	}
	return nil
}

// raiseOrder returns the dimensions in the order in which they are raised.
func (p stepper) raiseOrder(n needs) (order []pool.Dim) {
	if n.sync {
		order = append(order, pool.Threads)
	}
	if n.async {
		order = append(order, pool.Coroutines)
	}
	// The dimension that gained last is first.
	if i := slices.Index(order, p.search.won); i > 0 {
		order[0], order[i] = order[i], order[0]
	}
	return order
}

// raiseDimension returns a step up in one dimension, as far as bounds and memory allow. It returns
// nil if the dimension is known to gain nothing, or if no step fits.
func (p stepper) raiseDimension(d pool.Dim, factor float64, why string) *trial {
	if p.search.shut[d] {
		return nil
	}
	if most := p.search.most[d]; most > 0 {
		factor = math.Min(factor, most)
	}
	if d == pool.Coroutines && p.search.rose[d] == 0 {
		// Coroutines may wait for each other where drover cannot measure it, for example for a
		// connection of a client's pool, and too many of them take long to drain.
		factor = math.Min(factor, doubling)
	}
	have := p.best.Get(d)
	for {
		to := p.bounds.Clamp(p.best.With(d, max(int(math.Ceil(float64(have)*factor-0.01)), have+1)))
		if to == p.best.Settings {
			return nil
		}
		if p.memory.willFit(p.best.Settings, to, float64(p.sample.Memory), p.sample.MemoryLimit, p.sample.Functions) {
			return &trial{plan: p.makePlan(p.sample, to), dim: d, up: true, why: why, factor: float64(to.Get(d)) / float64(have)}
		}
		if to.Get(d) == have+1 {
			return nil
		}
		factor = math.Max(math.Sqrt(factor), 1)
		why += ", as far as memory allows"
	}
}

// stepDown returns the next step down that could cost nothing; nil if there is none.
func (p stepper) stepDown() *trial {
	for _, d := range pool.Dims {
		have := p.best.Get(d)
		if p.search.trimmed[d] || have <= p.bounds.Least.Get(d) {
			continue
		}
		need, why := p.leastNeeded(d)
		need = math.Max(need, 1.05*math.Max(p.search.rose[d], p.search.low[d]))
		if float64(have) < spare*need && !(d == pool.Processes && need <= float64(have-1)) || need > float64(have-1) {
			continue
		}
		to := p.bounds.Clamp(p.best.With(d, int(math.Ceil(need))))
		if to == p.best.Settings {
			continue
		}
		return &trial{plan: p.makePlan(p.sample, to), dim: d, why: why, factor: float64(to.Get(d)) / float64(have)}
	}
	return nil
}

// leastNeeded returns the smallest value of a dimension that should suffice, and the reason.
func (p stepper) leastNeeded(d pool.Dim) (need float64, why string) {
	have := float64(p.best.Get(d))
	if d == pool.Processes {
		if cores := float64(pool.WholeCores(p.sample.Cores)); have > cores {
			return math.Max(cores, math.Ceil(have/2)), "more processes than cores"
		}
		// With very short calls the daemon needs a core, too.
		if daemon := p.base.perSecond(p.base.daemon); daemon > 0.25 && daemon > 0.3*p.base.perSecond(p.base.cpu) && have > 1 && p.search.rejected[d] == 0 {
			return have - 1, "the daemon needs a core, too"
		}
		return p.fewerProcesses(have)
	}
	// Halving finds the smallest value in few steps.
	need, why = have/2, "the same throughput with less"
	functions := p.recent
	used, useless := false, true
	model := math.Inf(1)
	if p.base.cpuHeadroom() < idle {
		model = 0
	}
	for _, f := range functions {
		if f.Async != (d == pool.Coroutines) {
			continue
		}
		used = true
		k := p.profiles.Of(f.Name)
		useless = useless && k.Computes() && !k.ReleasesGIL
		if !k.Computes() {
			model = math.Max(model, p.callsToFill(f, k))
		}
	}
	switch {
	case !used && d == pool.Threads:
		return 1, "all functions are async"
	case !used:
		return 1, "nothing is async"
	case useless && d == pool.Threads:
		return 1, "functions that compute gain nothing from threads"
	case useless:
		return profile.FewCoroutines, "functions that never await gain nothing from coroutines"
	}
	// The prediction is a lower bound.
	if !math.IsInf(model, 1) {
		need = math.Max(need, math.Min(model, have))
	}
	return need, why
}

// fewerProcesses returns how many processes suffice for calls that compute with threads of their own, and the
// reason. have is the number of processes, and the result if all of them are needed.
func (p stepper) fewerProcesses(have float64) (need float64, why string) {
	releases := len(p.recent) > 0
	for _, f := range p.recent {
		k := p.profiles.Of(f.Name)
		releases = releases && k.Kind == KindCPU && k.ReleasesGIL
	}
	half := math.Floor(have / 2)
	crowd := p.crowdLimit(p.recent, p.base)
	switch {
	case p.search.halved:
	case crowd < have:
		return crowd, fmt.Sprintf("a call uses %.2g cores", p.profiles.MostCores(p.recent))
	case releases && half >= 1 && math.Floor(p.sample.Cores/half) > math.Floor(p.sample.Cores/have):
		// Whether a library has threads of its own is not known while it has one core.
		return half, "each process gets more cores for threads of libraries"
	}
	return have, ""
}

// crowdLimit returns how many processes fill the cores with one call each, if calls compute with threads of their
// own; else it is infinite.
func (r rules) crowdLimit(functions []Function, w *window) float64 {
	return math.Max(math.Round(w.usableCores()/r.profiles.MostCores(functions)), 1)
}

// callsToFill returns how many calls of a function in each process fill the cores: the usable
// cores, divided by the share of its time that a call computes, and by the processes. It returns 0
// where the share is unknown, or where other processes compute for the calls.
func (p stepper) callsToFill(f Function, k Kind) float64 {
	own := p.profiles.CPUPerCall(f.Name)
	if k.Sure < 0.5 || k.CPU <= 0 || own < 0.6*perCall(p.base) {
		return 0
	}
	return p.base.usableCores() / k.CPU / float64(p.best.Processes)
}
