package autotune

import (
	"fmt"
	"maps"
	"math"
	"time"

	"github.com/drover-run/drover/scaler/autotune/guard"
	"github.com/drover-run/drover/scaler/autotune/pool"
	"github.com/drover-run/drover/scaler/autotune/profile"
)

// Controller finds the settings of one pool. One goroutine at a time uses it.
type Controller struct {
	given  Bounds
	bounds Bounds // given, narrowed by the reverted changes
	guard  *guard.Guard
	held   bool // an earlier level is in force, and being checked
	nature profile.Profiles
	memory memory
	found  found

	begun bool
	last  Sample
	cores float64 // that everything here was measured with
	odd   int     // consecutive samples with another number
	mix   mix

	want    plan // the last decision
	decided time.Duration
	inForce bool
	settled time.Duration // samples count from here on
	window  *window       // of the samples that count

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

	phase, note string
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
	// oddCores is the relative change of the cores that counts as one, and oddRow the number of
	// consecutive samples that must show it.
	oddCores = 0.05
	oddRow   = 3
	// limitsRow is the number of consecutive samples after which other limits are set.
	limitsRow = 12
)

// New returns a controller. learned is what an earlier one returned by Learned; nil is nothing.
func New(bounds Bounds, learned *Learned) *Controller {
	c := &Controller{given: bounds, nature: profile.Profiles{}, window: newWindow(), phase: PhaseStart}
	var undone []Undone
	if learned != nil {
		c.recall(*learned)
		undone = learned.Undone
	}
	c.guard = guard.New(bounds.Least, undone)
	c.bounds = c.guard.Within(bounds)
	return c
}

// Look takes the next sample and returns the decision. A sample whose At is not later than that of
// the last one does not change the decision.
func (c *Controller) Look(s Sample) Decision {
	if s.Cores <= 0 { // unknown
		s.Cores = 1
	}
	seconds := (s.At - c.last.At).Seconds()
	if !c.begun {
		c.begin(s)
	} else if seconds > 0 {
		c.nature.See(s, s.Settings == c.last.Settings && s.Ready == c.last.Ready)
		c.obey(s, c.guard.Look(s.At, passed(s)))
		if !c.held {
			c.look(s, seconds)
		}
	}
	c.last = s
	return c.Decision()
}

// Decision returns the last decision.
func (c *Controller) Decision() Decision {
	d := Decision{Settings: c.want.Settings, Limits: maps.Clone(c.want.limits), Phase: c.phase, Note: c.note, Undone: c.guard.All()}
	if c.given.IsFixed() {
		d.Settings, d.Limits, d.Phase, d.Note = c.given.Least, nil, PhaseExplicit, "every number is given"
	}
	return d
}

// Kinds returns the known kinds of the functions, by name.
func (c *Controller) Kinds() map[string]Kind { return c.nature.Kinds() }

// begin decides the first settings.
func (c *Controller) begin(s Sample) {
	c.begun, c.cores = true, s.Cores
	to, found, why := c.remembered(s)
	if !found {
		to = c.nature.FirstSettings(s.Functions, s.Cores, c.bounds)
	}
	c.adopt(s, c.plan(s, to), PhaseStart, why)
	c.guess, c.search.done = !found, found
}

// plan returns settings within the bounds, with the limits that they need.
func (c *Controller) plan(s Sample, to Settings) plan {
	to = c.bounds.Clamp(to)
	return plan{to, c.nature.Limits(s.Functions, s.Cores, to)}
}

// adopt makes a plan the best one, without a measurement; it is measured from now on.
func (c *Controller) adopt(s Sample, p plan, phase, note string) {
	c.best, c.base, c.trial = p, nil, nil
	c.search, c.watch.foundBase, c.watch.others = search{}, nil, -1
	c.ask(s, p, phase, note)
}

// ask requests that a plan is applied, and begins a new window for its measurement.
func (c *Controller) ask(s Sample, p plan, phase, note string) {
	c.phase, c.note = phase, note
	if !p.equal(c.want) || !c.inForce || s.Ready < p.Processes {
		c.decided, c.inForce = s.At, false
	}
	c.want = p
	c.window = newWindow()
	c.settled = s.At
	c.watch.forget()
}

func (c *Controller) look(s Sample, seconds float64) {
	c.mix.active(s)
	if c.machine(s) || c.short(s) {
		return
	}
	if c.mix.see(s, seconds) {
		c.mixed(s)
	}
	if c.guess && c.named(s) {
		return
	}
	c.relimit(s)
	if c.failing(s) {
		return
	}
	counts := c.counts(s, seconds)
	switch {
	case c.mix.key == "":
		c.rest(s, counts)
		return
	case !counts:
		return
	}
	if c.phase == PhaseIdle {
		c.phase, c.note = PhaseHold, "measuring anew, after there was little to do"
	}
	if c.disturbed(s, seconds) {
		return
	}
	c.window.add(s, seconds)
	if !c.mix.stable() {
		return
	}
	switch {
	case c.trial != nil:
		c.judge(s)
	case c.base == nil:
		c.measure(s)
	default:
		c.steady(s, seconds)
	}
}

// counts reports whether the whole sample was taken under the decided settings, with their workers
// ready, and after the earlier calls had ended.
func (c *Controller) counts(s Sample, seconds float64) bool {
	ready := s.Settings == c.want.Settings && s.Ready >= c.want.Processes
	switch {
	case !ready && s.At-c.decided < patience:
		c.inForce = false
		return false
	case !c.inForce:
		c.inForce = true
		settle := time.Duration(settleWalls * c.nature.SlowestCall(s.Functions) * float64(time.Second))
		c.settled = s.At + min(max(settle, settleLeast), settleMost)
		c.window = newWindow()
		c.memory.settled(s)
		return false
	}
	if c.draining(s) && s.At-c.decided < patience {
		c.settled = s.At
		return false
	}
	return s.At-time.Duration(seconds*float64(time.Second)) >= c.settled
}

// failing reports that most calls fail, which is independent of the settings; the trial ends.
// ends.
func (c *Controller) failing(s Sample) bool {
	var passed, failed int64
	for _, f := range s.Functions {
		passed, failed = passed+f.Done, failed+f.Failed
	}
	if failed <= passed {
		return false
	}
	c.trial, c.base = nil, nil
	c.ask(s, c.best, PhaseDisturbed, "most calls fail: nothing is decided")
	return true
}

// draining reports that more calls are in flight than the settings admit, and fewer than in the
// last sample: calls that a larger plan admitted have not ended yet.
func (c *Controller) draining(s Sample) bool {
	sync, async := inFlight(s)
	hadSync, hadAsync := inFlight(c.last)
	room := 1.1 * float64(c.want.Processes)
	return sync > room*float64(c.want.Threads)+1 && sync < 0.99*hadSync ||
		async > room*float64(c.want.Coroutines)+1 && async < 0.99*hadAsync
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

// machine restarts the search when the number of cores has changed, and reports whether it differs.
func (c *Controller) machine(s Sample) bool {
	if math.Abs(s.Cores-c.cores) <= oddCores*c.cores {
		c.odd = 0
		return false
	}
	if c.odd++; c.odd < oddRow {
		return true
	}
	note := fmt.Sprintf("%.3g cores may be used, and not %.3g any more", s.Cores, c.cores)
	to := c.best.Settings
	if to.Processes == pool.WholeCores(c.cores) || to.Processes > pool.WholeCores(s.Cores) {
		to.Processes = pool.WholeCores(s.Cores)
	}
	c.cores, c.odd = s.Cores, 0
	before, found := c.found.look(c.mix.key, s, c.bounds)
	if found {
		to = before
	}
	c.memory.forget()
	c.adopt(s, c.plan(s, to), PhaseStart, note)
	c.search.done = found
	return true
}

// mixed restarts the search when other functions are busy.
func (c *Controller) mixed(s Sample) {
	if c.trial != nil {
		c.resolve(s)
	}
	if c.mix.key == "" {
		return
	}
	if c.mix.fewer {
		c.base = nil
		c.ask(s, c.best, PhaseHold, "fewer functions are busy")
		return
	}
	note := "other functions are busy: " + c.mix.key
	c.memory.forget()
	if to, found := c.found.look(c.mix.key, s, c.bounds); found {
		c.adopt(s, c.plan(s, to), PhaseStart, note+"; these settings were best for them")
		c.search.done = true
		return
	}
	to := c.nature.FirstSettings(c.mix.recent(s), s.Cores, c.bounds)
	if c.mix.more {
		to.Threads, to.Coroutines = max(to.Threads, c.best.Threads), max(to.Coroutines, c.best.Coroutines)
	}
	c.guess, c.guessed = true, ""
	c.adopt(s, c.plan(s, to), PhaseStart, note)
}

// named adopts the settings of the table when the kinds are known, or after unnamed those of the
// kinds that are known. It reports whether it did.
func (c *Controller) named(s Sample) bool {
	functions := c.mix.recent(s)
	known, waits := 0, 0
	for _, f := range functions {
		if c.nature.Of(f.Name).Kind != KindUnknown {
			known++
		} else if f.InFlight > 0 || f.Done > 0 || f.Saturated {
			waits++
		}
	}
	if known == 0 || waits > 0 && s.At-c.decided < unnamed {
		return false
	}
	c.guess = waits > 0
	words := c.nature.Describe(functions)
	if words == c.guessed { // no new kinds since the last guess
		return false
	}
	c.guessed = words
	to := c.nature.FirstSettings(functions, s.Cores, c.bounds)
	if c.mix.more || c.guess || c.search.begun || c.search.done {
		to = c.best.With(pool.Threads, max(to.Threads, c.best.Threads)).With(pool.Coroutines, max(to.Coroutines, c.best.Coroutines))
	}
	if c.guess { // functions that compute may occupy the only thread; a second one lets it run
		to.Threads, to.Coroutines = max(to.Threads, 2), max(to.Coroutines, 2)
	}
	p := c.plan(s, to)
	if p.equal(c.want) || c.guess && p.Settings == c.best.Settings {
		return false
	}
	c.adopt(s, p, PhaseStart, "as the guide has it for "+words)
	return true
}

// relimit updates the limits when the kinds are known better. During a search it does nothing,
// because a search makes plans with limits.
func (c *Controller) relimit(s Sample) {
	to := c.plan(s, c.best.Settings)
	if c.trial != nil || !c.search.done && c.mix.key != "" || to.equal(c.best) {
		c.limited = 0
		return
	}
	if c.limited++; c.limited < limitsRow {
		return
	}
	c.limited, c.best, c.base = 0, to, nil
	c.ask(s, to, c.phase, "more is known of the functions: others are limited")
}

// rest handles a sample without a saturated function: trials end, and old measurements are dropped.
func (c *Controller) rest(s Sample, counts bool) {
	if c.trial != nil {
		c.resolve(s)
	}
	if c.base != nil && s.At-c.based > stale {
		c.base = nil
	}
	if counts {
		c.memory.steady(s)
	}
	if c.memory.over > 0 {
		return
	}
	c.phase, c.note = PhaseIdle, "there is room for all there is to do"
}

// measure takes the plan's own throughput as the base, before any step is tried.
func (c *Controller) measure(s Sample) {
	if !c.enough(s) || c.search.doubted && !c.search.done && c.window.seconds < sound {
		return
	}
	c.base, c.based = c.window, s.At
	if c.search.done {
		if c.faded(s, c.base) {
			return
		}
		c.hold(s)
		return
	}
	c.next(s)
}
