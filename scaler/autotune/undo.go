package autotune

import (
	"fmt"
	"time"

	"github.com/drover-run/drover/scaler/autotune/guard"
)

// This file carries out the requests of the guard.

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
	c.obey(c.last, o)
	return Ruling{Release: release, Changed: o == guard.Undo || o == guard.Proved || o == guard.Allow, Renew: o == guard.Renew}
}

func (c *Controller) obey(s Sample, o guard.Order) {
	switch o {
	case guard.Undo:
		function, failure := c.guard.Suspect()
		c.held, c.trial, c.base = true, nil, nil
		c.ask(s, plan{c.bounds.Clamp(c.guard.Back(c.want.Settings)), nil}, PhaseUndone, fmt.Sprintf("calls of %s failed right after a change (%s): it is undone, and being checked", function, failure))
		c.best = c.want
	case guard.Proved:
		c.held, c.bounds = false, c.guard.Within(c.given)
		c.adopt(s, c.plan(s, c.best.Settings), PhaseStart, "a change stays undone, since calls failed under it")
	case guard.Allow:
		c.held, c.bounds = false, c.guard.Within(c.given)
		c.found = nil // it was found without the change that is allowed again
		c.afresh(s, "the reverted settings may be tried again")
	}
}

func passed(s Sample) map[string]int64 {
	out := make(map[string]int64, len(s.Functions))
	for _, f := range s.Functions {
		out[f.Name] = f.Passed
	}
	return out
}
