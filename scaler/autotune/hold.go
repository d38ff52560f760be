package autotune

import (
	"fmt"
	"math"
	"time"

	"github.com/drover-run/drover/scaler/autotune/profile"
)

// finishSearch ends a search.
func (c *climber) finishSearch(s Sample) {
	c.search.done = true
	c.found.keepBest(c.mix.names, s.Cores, c.best.Settings)
	w := &c.watch
	if w.before == c.best.Settings { // the search gained nothing
		w.pause, w.every = min(2*w.pause, lastPause), min(2*w.every, lastEvery)
	}
	w.pause, w.every = max(w.pause, firstPause), max(w.every, firstEvery)
	w.before, w.finished, w.others, w.foundBase = c.best.Settings, s.At, s.Others, c.base
	note := fmt.Sprintf("nothing to gain: %.2g of %.2g cores are used", c.base.perSecond(c.base.cpu), c.base.usableCores())
	if c.now.want.isEqual(c.best) {
		c.now.phase, c.now.note = PhaseHold, note
		c.beginHold(s)
		return
	}
	c.base = nil
	c.requestPlan(s, c.best, PhaseHold, note)
}

// beginHold begins to watch for changes.
func (c *climber) beginHold(s Sample) {
	if c.now.phase != PhaseMemory {
		c.now.phase = PhaseHold
	}
	c.watch.dropRecent()
	if c.watch.foundBase == nil {
		c.watch.foundBase, c.watch.finished = c.base, s.At
		if c.watch.others < 0 {
			c.watch.others = s.Others
		}
		c.watch.pause, c.watch.every = max(c.watch.pause, firstPause), max(c.watch.every, firstEvery)
	}
	if !c.search.done {
		c.nextStep(s)
		return
	}
	c.window = newWindow()
	c.memory.startMeasuring(s)
}

// checkDisturbance reports whether others use the machine differently than when the base was
// measured. Such samples decide nothing. If the difference lasts, the base is measured again.
func (c *climber) checkDisturbance(s Sample, seconds float64) bool {
	if c.base == nil {
		c.watch.strange = 0
		return false
	}
	off := math.Abs(s.Others - c.base.perSecond(c.base.others))
	// While cores are idle now and then, others do not slow down the pool.
	used := math.Max(s.CPU+s.Daemon+s.Others, c.base.perSecond(c.base.cpu+c.base.daemon+c.base.others))
	if off < math.Max(elsewhere, elsewherePart*s.Cores) || used < plenty*s.Cores {
		if c.watch.strange > 0 && c.now.phase == PhaseDisturbed {
			c.now.phase, c.now.note = PhaseHold, "other programs use the machine as before"
		}
		c.watch.strange = 0
		return false
	}
	patience := elsewhereFor
	if !c.search.done {
		patience = elsewhereSoon
	}
	if c.watch.strange += seconds; c.watch.strange < patience {
		c.window = newWindow() // a mixed window compares with nothing
		if c.now.phase != PhaseDisturbed {
			c.now.phase, c.now.note = PhaseDisturbed, fmt.Sprintf("others use %.2g cores, and used %.2g", s.Others, c.base.perSecond(c.base.others))
		}
		return true
	}
	c.watch.strange = 0
	c.base, c.trial, c.watch.foundBase = nil, nil, nil
	c.search.ref = nil
	c.requestPlan(s, c.best, PhaseDisturbed, "measuring again while other programs run")
	return true
}

// watchHold checks during hold whether the measurements still apply.
func (c *climber) watchHold(s Sample, seconds float64) {
	if !c.search.done {
		c.nextStep(s)
		return
	}
	w := &c.watch
	c.memory.measureLeak(s)
	now := w.addRecent(s, seconds, c.profiles.SlowestCall(s.Functions))
	if now.seconds < recentOver {
		return
	}
	by, err := gainFrom(c.base, now)
	cpu := perCall(now) / perCall(c.base)
	if c.profiles.Differ(s.Functions) {
		cpu = 1 // it depends on which messages arrive
	}
	if math.Abs(by) > changed && math.Abs(by) > surely*err || cpu > 0 && math.Abs(math.Log(cpu)) > 2*changed {
		w.off += seconds
	} else {
		w.off = 0
		c.base.fadeBy(math.Exp(-seconds / memoryOf))
		c.base.addSample(s, seconds)
		c.base.memory, c.based = now.memory, s.At
	}
	since := s.At - w.began
	// Whether calls release the GIL, or compute with threads of their own, may become known late.
	need, why := newStepper(c, s).fewerProcesses(float64(c.best.Processes))
	if s.At-w.finished > confirm && c.search.ref != nil {
		if c.restartIfFaded(s, now) {
			return
		}
		c.search.ref = nil // compare only once
	}
	switch {
	case w.off >= changedFor && by < 0 && now.perSecond(now.queue) > c.base.perSecond(c.base.queue)+0.3 && math.Abs(math.Log(cpu)) < changed:
		// Another program uses the cores. A restart would make it worse.
		c.base, w.off = now, 0
		c.now.note = "calls wait for cores that other programs use; settings stay"
	case w.off >= changedFor && (cpu > profile.Otherwise || cpu > 0 && cpu < 1/profile.Otherwise):
		c.restartFromKinds(s, fmt.Sprintf("calls use %.2g times as much CPU: their work has changed", cpu))
	case since >= w.pause && c.best.Processes > c.bounds.Least.Processes && need < float64(c.best.Processes):
		c.restartSearch(s, now, why, search{})
	case w.off >= changedFor && since >= w.pause:
		c.restartSearch(s, now, fmt.Sprintf("throughput changed by %+.0f%%", 100*(math.Exp(by)-1)), search{})
	case c.watch.others-c.base.perSecond(c.base.others) > 2*elsewhere && since >= w.pause:
		c.restartSearch(s, now, "others use less of the machine than when this was found", search{})
	case since >= max(w.pause, 2*time.Minute) && w.totalDrift(c.base) > drifted:
		c.restartSearch(s, now, "conditions have changed gradually", search{})
	case s.At-w.finished >= w.every:
		c.restartSearch(s, now, "measuring again after a long time", search{})
	}
}

// restartIfFaded restarts the search if the best plan has a lower rate than when it was tried:
// queues may build up slowly, so that a trial looks better than its settings are. It reports
// whether it did.
func (c *climber) restartIfFaded(s Sample, now *window) bool {
	if c.search.ref == nil || c.search.faded >= mostFaded {
		return false
	}
	by, err := gainFrom(c.search.ref, now)
	if by > -minGain || by > -likely*err {
		return false
	}
	n, rose := c.search.faded+1, c.search.rose
	c.restartSearch(s, now, fmt.Sprintf("it does %.0f%% less than when it was tried", 100*(1-math.Exp(by))), search{faded: n, rose: rose})
	return true
}

// restartFromKinds restarts from the first settings by kind, because the functions do something
// else now.
func (c *climber) restartFromKinds(s Sample, why string) {
	c.watch.began = s.At
	c.memory.forgetSteps()
	c.guess, c.guessed = true, ""
	c.adoptPlan(s, c.makePlan(s, c.profiles.FirstSettings(c.mix.activeLately(s), s.Cores, c.bounds)), PhaseStart, why)
}

// restartSearch restarts the search from the current settings. now is their measurement.
func (c *climber) restartSearch(s Sample, now *window, why string, with search) {
	c.watch.began = s.At
	with.halved = c.search.halved // trying that again would replace all workers
	c.search = with
	c.base, c.based = now, s.At
	c.now.phase, c.now.note = PhaseClimb, why
	c.watch.dropRecent()
	c.nextStep(s)
}
