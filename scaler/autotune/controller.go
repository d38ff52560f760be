package autotune

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/drover-run/drover/scaler/autotune/guard"
	"github.com/drover-run/drover/scaler/autotune/profile"
)

// Controller finds the settings of one pool. One goroutine at a time uses it.
type Controller struct {
	given   Bounds
	climber *climber
	guard   *guard.Guard
	held    bool // an earlier level is in force, and being checked
	begun   bool
}

// New returns a controller. learned is what an earlier one returned by Learned; nil is nothing.
func New(bounds Bounds, learned *Learned) *Controller {
	if learned == nil {
		learned = new(Learned)
	}
	c := &Controller{given: bounds, climber: newClimber(*learned), guard: guard.New(bounds.Least, learned.Undone)}
	c.climber.bounds = c.guard.Within(bounds)
	return c
}

// Look takes the next sample and returns the decision. A sample whose At is not later than that of
// the last one does not change the decision.
func (c *Controller) Look(s Sample) Decision {
	if s.Cores <= 0 { // unknown
		s.Cores = 1
	}
	last := c.climber.last
	seconds := (s.At - last.At).Seconds()
	if !c.begun {
		c.begun = true
		c.climber.chooseFirst(s)
	} else if seconds > 0 {
		steady := s.Settings == last.Settings && s.Ready == last.Ready
		// Others use the machine much, or differently than when the base was measured.
		disturbed := c.climber.now.phase == PhaseDisturbed || profile.IsDisturbed(s)
		c.climber.profiles.See(s, profile.Conditions{Seconds: seconds, Steady: steady, Disturbed: disturbed})
		c.climber.profiles.SeeCores(s, seconds, steady && !s.Loading)
		c.carryOut(s, c.guard.Look(s.At, passedCalls(s)))
		if !c.held {
			c.climber.takeSample(s, seconds)
		}
	}
	c.climber.last = s
	return c.Decision()
}

// Decision returns the last decision.
func (c *Controller) Decision() Decision {
	now := c.climber.now
	d := Decision{Settings: now.want.Settings, Limits: maps.Clone(now.want.limits), Phase: now.phase, Note: now.note, Undone: c.guard.All()}
	if c.given.IsFixed() {
		d.Settings, d.Limits, d.Phase, d.Note = c.given.Least, nil, PhaseExplicit, "every number is set"
	}
	return d
}

// Kinds returns the known kinds of the functions, by name.
func (c *Controller) Kinds() map[string]Kind { return c.climber.profiles.Kinds() }

// Learned returns the state to keep across restarts.
func (c *Controller) Learned() Learned {
	climber := c.climber
	l := Learned{PerWorker: uint64(climber.memory.perWorker), PerCall: uint64(climber.memory.perCall), Kinds: map[string]Kind{}, Undone: c.guard.Lasting()}
	for name, k := range c.Kinds() {
		// Functions that no longer exist are dropped.
		there := len(climber.last.Functions) == 0 || slices.ContainsFunc(climber.last.Functions, func(f Function) bool { return f.Name == name })
		if k.Sure >= profile.Known && there {
			l.Kinds[name] = k
		}
	}
	for _, o := range climber.found {
		o.Functions = slices.Clone(o.Functions)
		l.Found = append(l.Found, o)
	}
	return l
}

// Ruling is the result of Failed.
type Ruling struct {
	// Release reports that a change may be the cause: the message is released without using an
	// attempt.
	Release bool
	// Changed reports that Decision has changed. The caller applies it at once, and calls InForce.
	Changed bool
	// Renew reports that all workers are to be replaced, since the change may have left a broken
	// state in them. The caller then calls InForce, too.
	Renew bool
}

// InForce reports the level of the calls that are dispatched from now on. passed counts, by
// function, the calls that were dispatched since the last InForce and succeeded. It returns the
// number of the new epoch, for Call. The caller first calls it when the settings of the first
// Decision are in force, and then whenever the settings, the number of workers or the isolated
// functions have changed.
func (c *Controller) InForce(at time.Duration, level Level, passed map[string]int64) (epoch int) {
	return c.guard.InForce(at, level, passed)
}

// Failed takes a failed call; the caller calls it as soon as the call has failed.
func (c *Controller) Failed(call Call) Ruling {
	release, o := c.guard.Fail(call)
	c.carryOut(c.climber.last, o)
	return Ruling{Release: release, Changed: o == guard.Undo || o == guard.Proved || o == guard.Allow, Renew: o == guard.Renew}
}

// carryOut carries out a request of the guard.
func (c *Controller) carryOut(s Sample, o guard.Order) {
	switch o {
	case guard.Undo:
		function, failure := c.guard.Suspect()
		c.held = true
		c.climber.pinSettings(s, c.guard.Back(c.climber.now.want.Settings), fmt.Sprintf("calls of %s failed right after a change (%s): it was reverted, and is being checked", function, failure))
	case guard.Proved:
		c.held, c.climber.bounds = false, c.guard.Within(c.given)
		c.climber.adoptPlan(s, c.climber.makePlan(s, c.climber.best.Settings), PhaseStart, "a change stays reverted, because calls failed after it")
	case guard.Allow:
		c.held, c.climber.bounds = false, c.guard.Within(c.given)
		c.climber.found = nil // it was found without the change that is allowed again
		c.climber.restartFromKinds(s, "the reverted settings may be tried again")
	}
}

func passedCalls(s Sample) map[string]int64 {
	out := make(map[string]int64, len(s.Functions))
	for _, f := range s.Functions {
		out[f.Name] = f.Passed
	}
	return out
}
