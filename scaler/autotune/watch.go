package autotune

import (
	"fmt"
	"math"
	"time"

	"github.com/drover-run/drover/scaler/autotune/profile"
)

// watch checks during hold whether the settings that were found are still right.
type watch struct {
	recent    []look
	off       float64 // how long the measurements have differed, in seconds
	strange   float64 // how long others have used the machine differently, in seconds
	others    float64 // the cores that they used when the settings were found; below 0 if unknown
	foundBase *window
	// pause is the least time from began to a restart by a change, and every to one without a
	// change.
	pause, every time.Duration
	began        time.Duration
	finished     time.Duration
	before       Settings // the result of the previous search
}

type look struct {
	Sample
	seconds float64
}

const (
	// changed is the change of rates, as a logarithm, that restarts the search; the CPU time of a
	// call must change by twice that. drifted is the same for the change since the settings were
	// found. A change must last for changedFor seconds. Rates are means over recentOver seconds.
	changed    = 0.25
	drifted    = 0.7
	changedFor = 4.0
	recentOver = 4.0
	// elsewhere is the change in the use of cores by others, in cores, and elsewherePart the same
	// as a fraction of all cores; the larger one counts, and no decision is made then. After
	// elsewhereFor seconds, or elsewhereSoon during a search, the new use counts as normal. Below a
	// use of plenty of all cores others do not matter.
	elsewhere     = 0.15
	elsewherePart = 0.08
	elsewhereFor  = 10.0
	elsewhereSoon = 2.0
	plenty        = 0.7
	// firstPause and lastPause bound the time between restarts of the search by changes, and
	// firstEvery and lastEvery the time between restarts without a change.
	firstPause, lastPause = 20 * time.Second, 20 * time.Minute
	firstEvery, lastEvery = 15 * time.Minute, 2 * time.Hour
	// confirm is the time after which the found settings are compared with the best measurement
	// once more, and mostFaded the number of restarts that this may cause.
	confirm   = 10 * time.Second
	mostFaded = 2
	// memoryOf is the time constant of the base's moving mean while nothing changes, in seconds.
	memoryOf = 60.0
)

func (w *watch) forget() { w.recent, w.off = nil, 0 }

// disturbed reports whether others use the machine differently than when the base was measured.
// Such samples decide nothing. If the difference lasts, the base is measured again.
func (c *Controller) disturbed(s Sample, seconds float64) bool {
	if c.base == nil {
		c.watch.strange = 0
		return false
	}
	off := math.Abs(s.Others - c.base.per(c.base.others))
	// While cores are idle now and then, others do not slow down the pool.
	used := math.Max(s.CPU+s.Daemon+s.Others, c.base.per(c.base.cpu+c.base.daemon+c.base.others))
	if off < math.Max(elsewhere, elsewherePart*s.Cores) || used < plenty*s.Cores {
		if c.watch.strange > 0 && c.phase == PhaseDisturbed {
			c.phase, c.note = PhaseHold, "others use the machine as before"
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
		if c.phase != PhaseDisturbed {
			c.phase, c.note = PhaseDisturbed, fmt.Sprintf("others use %.2g cores, and used %.2g", s.Others, c.base.per(c.base.others))
		}
		return true
	}
	c.watch.strange = 0
	c.base, c.trial, c.watch.foundBase = nil, nil, nil
	c.search.ref = nil
	c.ask(s, c.best, PhaseDisturbed, "measuring anew beside others")
	return true
}

// finish ends a search.
func (c *Controller) finish(s Sample) {
	c.search.done = true
	c.found.keep(c.mix.names, s.Cores, c.best.Settings)
	w := &c.watch
	if w.before == c.best.Settings { // the search gained nothing
		w.pause, w.every = min(2*w.pause, lastPause), min(2*w.every, lastEvery)
	}
	w.pause, w.every = max(w.pause, firstPause), max(w.every, firstEvery)
	w.before, w.finished, w.others, w.foundBase = c.best.Settings, s.At, s.Others, c.base
	note := fmt.Sprintf("nothing is to be gained: %.2g of %.2g cores are used", c.base.per(c.base.cpu), c.base.room())
	if c.want.equal(c.best) {
		c.phase, c.note = PhaseHold, note
		c.hold(s)
		return
	}
	c.base = nil
	c.ask(s, c.best, PhaseHold, note)
}

// hold begins to watch for changes.
func (c *Controller) hold(s Sample) {
	if c.phase != PhaseMemory {
		c.phase = PhaseHold
	}
	c.watch.forget()
	if c.watch.foundBase == nil {
		c.watch.foundBase, c.watch.finished = c.base, s.At
		if c.watch.others < 0 {
			c.watch.others = s.Others
		}
		c.watch.pause, c.watch.every = max(c.watch.pause, firstPause), max(c.watch.every, firstEvery)
	}
	if !c.search.done {
		c.next(s)
		return
	}
	c.window = newWindow()
	c.memory.settled(s)
}

// steady checks during hold whether the measurements still apply.
func (c *Controller) steady(s Sample, seconds float64) {
	if !c.search.done {
		c.next(s)
		return
	}
	w := &c.watch
	c.memory.steady(s)
	w.recent = append(w.recent, look{s, seconds})
	now := newWindow()
	for i := len(w.recent) - 1; i >= 0; i-- {
		now.add(w.recent[i].Sample, w.recent[i].seconds)
		if now.seconds >= math.Max(recentOver, 2*c.nature.SlowestCall(s.Functions)) {
			w.recent = w.recent[i:]
			break
		}
	}
	if now.seconds < recentOver {
		return
	}
	by, err := gain(c.base, now)
	cpu := perCall(now) / perCall(c.base)
	if math.Abs(by) > changed && math.Abs(by) > surely*err || cpu > 0 && math.Abs(math.Log(cpu)) > 2*changed {
		w.off += seconds
	} else {
		w.off = 0
		c.base.fade(math.Exp(-seconds / memoryOf))
		c.base.add(s, seconds)
		c.base.memory, c.based = now.memory, s.At
	}
	since := s.At - w.began
	if s.At-w.finished > confirm && c.search.ref != nil {
		if c.faded(s, now) {
			return
		}
		c.search.ref = nil // compare only once
	}
	switch {
	case w.off >= changedFor && by < 0 && now.per(now.queue) > c.base.per(c.base.queue)+0.3 && math.Abs(math.Log(cpu)) < changed:
		// Another program uses the cores. A restart would make it worse.
		c.base, w.off = now, 0
		c.note = "calls wait for cores that others have; settings stay"
	case w.off >= changedFor && (cpu > profile.Otherwise || cpu > 0 && cpu < 1/profile.Otherwise):
		c.afresh(s, fmt.Sprintf("calls use %.2g times as much CPU: they do something else now", cpu))
	case w.off >= changedFor && since >= w.pause:
		c.again(s, now, fmt.Sprintf("throughput changed by %+.0f%%", 100*(math.Exp(by)-1)))
	case c.watch.others-c.base.per(c.base.others) > 2*elsewhere && since >= w.pause:
		c.again(s, now, "others use less of the machine than when this was found")
	case since >= max(w.pause, 2*time.Minute) && c.wandered() > drifted:
		c.again(s, now, "little by little much has changed")
	case s.At-w.finished >= w.every:
		c.again(s, now, "looking again, after a long time")
	}
}

// faded restarts the search if the best plan has a lower rate than when it was tried: queues may
// build up slowly, so that a trial looks better than its settings are. It reports whether it did.
func (c *Controller) faded(s Sample, now *window) bool {
	if c.search.ref == nil || c.search.faded >= mostFaded {
		return false
	}
	by, err := gain(c.search.ref, now)
	if by > -minGain || by > -likely*err {
		return false
	}
	n, rose := c.search.faded+1, c.search.rose
	c.restart(s, now, fmt.Sprintf("it does %.0f%% less than when it was tried", 100*(1-math.Exp(by))), search{faded: n, rose: rose})
	return true
}

// wandered returns the change of the rates since the settings were found, as a logarithm.
func (c *Controller) wandered() float64 {
	by, err := gain(c.watch.foundBase, c.base)
	if math.IsInf(err, 1) {
		return 0
	}
	return math.Abs(by)
}

// perCall returns the CPU time of a call over all functions, in seconds.
func perCall(w *window) float64 {
	if n := w.done(); n > 0 {
		return w.cpu / n
	}
	return 0
}

// afresh restarts from the table, because the functions do something else now.
func (c *Controller) afresh(s Sample, why string) {
	c.watch.began = s.At
	c.memory.forget()
	c.guess, c.guessed = true, ""
	c.adopt(s, c.plan(s, c.nature.FirstSettings(c.mix.recent(s), s.Cores, c.bounds)), PhaseStart, why)
}

// again restarts the search from the current settings.
func (c *Controller) again(s Sample, now *window, why string) {
	c.restart(s, now, why, search{})
}

func (c *Controller) restart(s Sample, now *window, why string, with search) {
	c.watch.began = s.At
	c.search = with
	c.base, c.based = now, s.At
	c.phase, c.note = PhaseClimb, why
	c.watch.forget()
	c.next(s)
}
