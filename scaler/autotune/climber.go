package autotune

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/drover-run/drover/scaler/autotune/pool"
	"github.com/drover-run/drover/scaler/autotune/profile"
)

// climber finds the settings with the highest throughput. It tries a step, measures it, and keeps
// or reverts it. It knows nothing of failures.
type climber struct {
	rules
	memory memory
	found  found
	mix    mix

	last   Sample
	cores  float64 // that everything here was measured with
	odd    int     // consecutive samples with another number
	now    request
	window *window // of the samples that count

	best  plan
	base  *window // the measurement of the best plan
	based time.Duration
	guess bool // the plan was made before all kinds were known
	// guessed is the description of the kinds that the last guess was made with.
	guessed string
	limited int // consecutive samples in which other limits would be right
	trial   *trial
	search  search
	watch   watch
}

// request is the last decision, and how far it is carried out.
type request struct {
	want        plan
	phase, note string
	decided     time.Duration
	inForce     bool
	settled     time.Duration // samples count from here on
}

const (
	// patience bounds the wait for settings to be in force and workers to be ready. After it, the
	// settings in force are measured.
	patience = 30 * time.Second
	// settleLeast and settleMost bound the time from a change until samples count. By then the
	// calls that began before the change have ended.
	settleLeast = 100 * time.Millisecond
	settleMost  = 2 * time.Minute
	// settleWalls is that time as a multiple of the shortest time of a call.
	settleWalls = 1.2
	// unnamed bounds the wait for the kind of a function; after it, the search continues.
	unnamed = 3 * time.Second
	// stale is the age from which a measurement is repeated before anything is compared with it.
	stale = 15 * time.Second
	// oddRow is the number of consecutive samples that must show another number of cores.
	oddRow = 3
	// limitsRow is the number of consecutive samples after which other limits are set.
	limitsRow = 12
)

// newClimber returns a climber with the results of an earlier one.
func newClimber(learned Learned) *climber {
	c := &climber{rules: rules{profiles: profile.Profiles{}}, window: newWindow(), now: request{phase: PhaseStart}}
	c.memory.perWorker, c.memory.perCall = float64(learned.PerWorker), float64(learned.PerCall)
	for name, k := range learned.Kinds {
		k.Sure = max(0.8*k.Sure, profile.Known) // the code may have changed
		c.profiles.Recall(name, k)
	}
	for _, o := range learned.Found {
		c.found = append(c.found, Found{slices.Clone(o.Functions), o.Cores, o.Settings})
	}
	return c
}

// chooseFirst decides the first settings.
func (c *climber) chooseFirst(s Sample) {
	c.cores = s.Cores
	to, found, why := c.found.bestRemembered(s, c.bounds, &c.memory)
	if !found {
		to = c.profiles.FirstSettings(s.Functions, s.Cores, c.bounds)
	}
	c.adoptPlan(s, c.makePlan(s, to), PhaseStart, why)
	c.guess, c.search.done = !found, found
}

// pinSettings sets settings that are not compared with any others until another plan is adopted.
func (c *climber) pinSettings(s Sample, to Settings, note string) {
	c.trial, c.base = nil, nil
	c.requestPlan(s, plan{c.bounds.Clamp(to), nil}, PhaseUndone, note)
	c.best = c.now.want
}

// adoptPlan makes a plan the best one, without a measurement; it is measured from now on.
func (c *climber) adoptPlan(s Sample, p plan, phase, note string) {
	c.best, c.base, c.trial = p, nil, nil
	c.search, c.watch.foundBase, c.watch.others = search{}, nil, -1
	c.requestPlan(s, p, phase, note)
}

// requestPlan requests that a plan is applied, and begins a new window for its measurement.
func (c *climber) requestPlan(s Sample, p plan, phase, note string) {
	c.now.phase, c.now.note = phase, note
	if !p.isEqual(c.now.want) || !c.now.inForce || s.Ready < p.Processes {
		c.now.decided, c.now.inForce = s.At, false
	}
	c.now.want = p
	c.window = newWindow()
	c.now.settled = s.At
	c.watch.dropRecent()
}

// takeSample takes the next sample, and decides what follows from it.
func (c *climber) takeSample(s Sample, seconds float64) {
	c.mix.markActive(s)
	if c.checkCores(s) || c.checkMemory(s) {
		return
	}
	if c.mix.observeBusy(s, seconds) {
		c.restartForMix(s)
	}
	if c.guess && c.adoptKinds(s) {
		return
	}
	c.updateLimits(s)
	if c.checkFailures(s) {
		return
	}
	counts := c.sampleCounts(s, seconds)
	switch {
	case c.mix.key == "":
		c.handleIdle(s, counts)
		return
	case !counts:
		return
	}
	if c.now.phase == PhaseIdle {
		c.now.phase, c.now.note = PhaseHold, "measuring again after a time with little load"
	}
	if c.checkDisturbance(s, seconds) {
		return
	}
	c.window.addSample(s, seconds)
	if !c.mix.isStable() {
		return
	}
	switch {
	case c.trial != nil:
		c.judgeTrial(s)
	case c.base == nil:
		c.measureBase(s)
	default:
		c.watchHold(s, seconds)
	}
}

// sampleCounts reports whether the whole sample was taken under the decided settings, with their
// workers ready, and after the earlier calls had ended.
func (c *climber) sampleCounts(s Sample, seconds float64) bool {
	ready := s.Settings == c.now.want.Settings && s.Ready >= c.now.want.Processes && !s.Replacing
	switch {
	case !ready && s.At-c.now.decided < patience:
		c.now.inForce = false
		return false
	case !c.now.inForce:
		c.now.inForce = true
		settle := time.Duration(settleWalls * c.profiles.SlowestCall(s.Functions) * float64(time.Second))
		c.now.settled = s.At + min(max(settle, settleLeast), settleMost)
		c.window = newWindow()
		c.memory.startMeasuring(s)
		return false
	}
	if isDraining(s, c.last, c.now.want.Settings) && s.At-c.now.decided < patience {
		c.now.settled = s.At
		return false
	}
	return s.At-time.Duration(seconds*float64(time.Second)) >= c.now.settled
}

// isDraining reports that more calls are in flight than the settings admit, and fewer than in the
// last sample: calls that a larger plan admitted have not ended yet.
func isDraining(s, last Sample, want Settings) bool {
	sync, async := inFlight(s)
	hadSync, hadAsync := inFlight(last)
	room := 1.1 * float64(want.Processes)
	return sync > room*float64(want.Threads)+1 && sync < 0.99*hadSync ||
		async > room*float64(want.Coroutines)+1 && async < 0.99*hadAsync
}

func inFlight(s Sample) (sync, async float64) {
	for _, f := range s.Functions {
		if f.Async {
			async += f.InFlight
		} else {
			sync += f.InFlight
		}
	}
	return sync, async
}

// checkFailures reports that most calls fail, which is independent of the settings; the trial
// ends.
func (c *climber) checkFailures(s Sample) bool {
	var passed, failed int64
	for _, f := range s.Functions {
		passed, failed = passed+f.Done, failed+f.Failed
	}
	if failed <= passed {
		return false
	}
	c.trial, c.base = nil, nil
	c.requestPlan(s, c.best, PhaseDisturbed, "most calls fail: nothing is decided")
	return true
}

// checkCores restarts the search when the number of cores has changed, and reports whether it
// differs.
func (c *climber) checkCores(s Sample) bool {
	if math.Abs(s.Cores-c.cores) <= oddCores*c.cores {
		c.odd = 0
		return false
	}
	if c.odd++; c.odd < oddRow {
		return true
	}
	note := fmt.Sprintf("%.3g cores may be used, no longer %.3g", s.Cores, c.cores)
	to := c.best.Settings
	if to.Processes == pool.WholeCores(c.cores) || to.Processes > pool.WholeCores(s.Cores) {
		to.Processes = pool.WholeCores(s.Cores)
	}
	c.cores, c.odd = s.Cores, 0
	before, found := c.found.bestFor(c.mix.key, s, c.bounds)
	if found {
		to = before
	}
	c.memory.forgetSteps()
	c.adoptPlan(s, c.makePlan(s, to), PhaseStart, note)
	c.search.done = found
	return true
}

// restartForMix restarts the search when other functions are busy.
func (c *climber) restartForMix(s Sample) {
	if c.trial != nil {
		c.resolveTrial(s)
	}
	if c.mix.key == "" {
		return
	}
	if c.mix.fewer {
		c.base = nil
		c.requestPlan(s, c.best, PhaseHold, "fewer functions are busy")
		return
	}
	note := "other functions are busy: " + c.mix.key
	c.memory.forgetSteps()
	if to, found := c.found.bestFor(c.mix.key, s, c.bounds); found {
		c.adoptPlan(s, c.makePlan(s, to), PhaseStart, note+"; these settings were best for them")
		c.search.done = true
		return
	}
	to := c.profiles.FirstSettings(c.mix.activeLately(s), s.Cores, c.bounds)
	if c.mix.more {
		to.Threads, to.Coroutines = max(to.Threads, c.best.Threads), max(to.Coroutines, c.best.Coroutines)
	}
	c.guess, c.guessed = true, ""
	c.adoptPlan(s, c.makePlan(s, to), PhaseStart, note)
}

// adoptKinds adopts the first settings by kind when the kinds are known, or after unnamed those of
// the kinds that are known. It reports whether it did.
func (c *climber) adoptKinds(s Sample) bool {
	functions := c.mix.activeLately(s)
	known, waits := 0, 0
	for _, f := range functions {
		if c.profiles.Of(f.Name).Kind != KindUnknown {
			known++
		} else if f.InFlight > 0 || f.Done > 0 || f.Saturated {
			waits++
		}
	}
	if known == 0 || waits > 0 && s.At-c.now.decided < unnamed {
		return false
	}
	c.guess = waits > 0
	words := c.profiles.Describe(functions)
	if words == c.guessed { // no new kinds since the last guess
		return false
	}
	c.guessed = words
	to := c.profiles.FirstSettings(functions, s.Cores, c.bounds)
	if c.mix.more || c.guess || c.search.begun || c.search.done {
		to = c.best.With(pool.Threads, max(to.Threads, c.best.Threads)).With(pool.Coroutines, max(to.Coroutines, c.best.Coroutines))
	}
	if c.guess { // functions that compute may occupy the only thread; a second one lets it run
		to.Threads, to.Coroutines = max(to.Threads, 2), max(to.Coroutines, 2)
	}
	p := c.makePlan(s, to)
	if p.isEqual(c.now.want) || c.guess && p.Settings == c.best.Settings {
		return false
	}
	c.adoptPlan(s, p, PhaseStart, "as in the guide for "+words)
	return true
}

// updateLimits updates the limits when the kinds are known better. During a search it does nothing,
// because a search makes plans with limits.
func (c *climber) updateLimits(s Sample) {
	to := c.makePlan(s, c.best.Settings)
	if c.trial != nil || !c.search.done && c.mix.key != "" || to.isEqual(c.best) {
		c.limited = 0
		return
	}
	if c.limited++; c.limited < limitsRow {
		return
	}
	c.limited, c.best, c.base = 0, to, nil
	c.requestPlan(s, to, c.now.phase, "new measurements of the functions: others are limited")
}

// handleIdle handles a sample without a saturated function: trials end, and old measurements are
// dropped.
func (c *climber) handleIdle(s Sample, counts bool) {
	if c.trial != nil {
		c.resolveTrial(s)
	}
	if c.base != nil && s.At-c.based > stale {
		c.base = nil
	}
	if counts {
		c.memory.measureLeak(s)
	}
	if c.memory.over > 0 {
		return
	}
	c.now.phase, c.now.note = PhaseIdle, "the workers have capacity for all messages"
}

// measureBase takes the plan's own throughput as the base, before any step is tried.
func (c *climber) measureBase(s Sample) {
	if !c.window.isEnough(c.profiles.SlowestCall(s.Functions)) || c.search.doubted && !c.search.done && c.window.seconds < sound {
		return
	}
	c.base, c.based = c.window, s.At
	if c.search.done {
		if c.restartIfFaded(s, c.base) {
			return
		}
		c.beginHold(s)
		return
	}
	c.nextStep(s)
}

// nextStep starts the next trial, or finishes the search.
func (c *climber) nextStep(s Sample) {
	if s.At-c.based > stale {
		c.base = nil
		c.requestPlan(s, c.best, PhaseClimb, "measuring again before the next step")
		return
	}
	p := newStepper(c, s)
	t, phase := p.stepUp(), PhaseClimb
	if t == nil {
		t, phase = p.stepDown(), PhaseTrim
	}
	if t == nil {
		c.finishSearch(s)
		return
	}
	t.began = s
	c.search.begun = true
	c.trial = t
	c.requestPlan(s, t.plan, phase, "trying "+t.String()+": "+t.why)
}

// judgeTrial ends the trial, and keeps or reverts it, once its result is clear.
func (c *climber) judgeTrial(s Sample) {
	t := c.trial
	against := c.base
	if !t.up && c.search.ref != nil {
		against = c.search.ref
	}
	by, err := gainFrom(against, c.window)
	v, why := comparison{t, c.base, c.window, c.profiles, c.profiles.SlowestCall(s.Functions)}.decideTrial(by, err)
	if v == open {
		return
	}
	c.settleTrial(s, v == kept, by, err, why)
}

// settleTrial ends a trial: it keeps or reverts its plan, updates the search, and starts the next
// step.
func (c *climber) settleTrial(s Sample, keep bool, by, err float64, why string) {
	t := c.trial
	c.memory.learnFromStep(c.best, t.plan, float64(c.base.memory), float64(c.window.memory), s.At-c.based, s.Functions)
	c.trial = nil
	if c.search.learnFrom(t, keep, by, err, c.best.Get(t.dim), c.base) {
		c.base = nil
		c.requestPlan(s, c.best, PhaseClimb, "measuring longer: the gain was within the noise")
		return
	}
	if keep {
		c.best, c.base, c.based = t.plan, c.window, s.At
		if c.search.ref == nil || t.up || by > err {
			c.search.ref = c.window
		}
		c.now.note = "kept " + t.String() + ": " + why
	}
	c.nextStep(s)
}

// resolveTrial ends a trial that cannot be measured any more, because other functions are busy, or
// none. It keeps the plan if the samples so far favor it.
func (c *climber) resolveTrial(s Sample) {
	t := c.trial
	c.trial = nil
	if c.window.samples >= 2 {
		by, err := gainFrom(c.base, c.window)
		if !math.IsInf(err, 1) && (t.up && by > minGain || !t.up && by > -tolerance) {
			c.best = t.plan
		}
	}
	c.base = nil
	c.requestPlan(s, c.best, c.now.phase, c.now.note)
}
