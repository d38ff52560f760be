package autotune

import (
	"fmt"
	"time"
)

// This file has the controller obey the guard.

// Ruling is what Failed decides.
type Ruling struct {
	// Release says that the call failed by a change of settings, as far as is known: its
	// message is released, and no attempt is charged.
	Release bool
	// Changed says that Decision is another now, and has to come in force at once; then
	// InForce is to be called.
	Changed bool
	// Renew says that the workers are to be replaced, since the change may have left
	// something behind in them; then InForce is to be called, too.
	Renew bool
}

// InForce says what calls run under that are handed out from now on, and how many calls
// of each function passed that were handed out since it was called last. It returns the
// number of the epoch that begins, for Call. It is called first when the settings of the
// first Decision are in force, and then whenever settings, the number of workers among
// them, or isolated functions have changed.
func (c *Controller) InForce(at time.Duration, level Level, passed map[string]int64) (epoch int) {
	return c.guard.inForce(at, level, passed)
}

// Failed takes a failed call, as soon as it has failed.
func (c *Controller) Failed(call Call) Ruling {
	release, o := c.guard.fail(call)
	c.obey(c.last, o)
	return Ruling{Release: release, Changed: o == undo || o == proved || o == allow, Renew: o == renew}
}

func (c *Controller) obey(s Sample, o order) {
	switch o {
	case undo:
		k := c.guard.check
		to := c.want.Settings
		for _, d := range dims {
			if k.bad.get(d) != k.good.get(d) {
				to = to.with(d, k.good.get(d))
			}
		}
		c.held, c.trial, c.base = true, nil, nil
		c.ask(s, plan{c.bounds.clamp(to), nil}, PhaseUndone, fmt.Sprintf("calls of %s failed right after a change (%s): it is undone, and being checked", k.Function, k.Error))
		c.best = c.want
	case proved:
		c.held, c.bounds = false, c.guard.within(c.given)
		c.adopt(s, c.plan(s, c.best.Settings), PhaseStart, "a change stays undone, since calls failed under it")
	case allow:
		c.held, c.bounds = false, c.guard.within(c.given)
		c.found = nil // it was best without what may be had again
		c.afresh(s, "what was undone may be tried again")
	}
}

func passed(s Sample) map[string]int64 {
	out := make(map[string]int64, len(s.Functions))
	for _, f := range s.Functions {
		out[f.Name] = f.Passed
	}
	return out
}
