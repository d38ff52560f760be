package autotune

import (
	"fmt"
	"math"
)

const (
	// minGain is the least relative gain of a doubling; a smaller step needs less, in proportion to
	// the logarithm of its factor.
	minGain = 0.03
	// tolerance is the relative loss that a step down may cost, compared with the best measurement.
	tolerance = 0.02
	// surely and likely are the distances from the threshold, in standard errors, that decide a
	// trial: surely for an early decision (0.1 % by chance, for normal noise), likely for an
	// ordinary one (0.6 %).
	surely = 3.0
	likely = 2.5
	// unlucky is the same for keeping a step down, which may lose a little by chance (7 %).
	unlucky = 1.5
	// careful is the least time for which a step down is measured, in seconds. It is not urgent.
	careful = 1.5
	// much is the gain or loss, as a logarithm, that is decided early; for huge one sample is
	// enough.
	much = 0.15
	huge = 0.5
	// quickest, soonest and latest are the times in seconds after which an early, an ordinary and a
	// final verdict are given. quickWalls, soonWalls and endWalls are the same times as multiples
	// of the shortest time of a call.
	quickest, soonest, latest       = 0.45, 0.7, 4.0
	quickWalls, soonWalls, endWalls = 1.0, 1.5, 6.0
	// sound is the time in seconds for which the base is measured again if a gain was too small to
	// decide.
	sound = 3.0
	// slower is the factor by which a call may take longer than alone, unless the step gains at
	// least pays, as a logarithm. late is the part of its timeout that a call may take.
	slower = 4.0
	pays   = 0.1
	late   = 0.5
)

// enough reports whether the window is long enough for an ordinary verdict.
func (c *Controller) enough(s Sample) bool {
	return c.lasts(s, soonest, soonWalls) && c.window.samples >= 3
}

func (c *Controller) lasts(s Sample, seconds, walls float64) bool {
	return c.window.seconds >= math.Max(seconds, walls*c.nature.SlowestCall(s.Functions))
}

// verdict is the result of a trial.
type verdict int

const (
	open verdict = iota
	kept
	undone
)

// judge ends the trial, and keeps or reverts it, once its result is clear.
func (c *Controller) judge(s Sample) {
	t := c.trial
	against := c.base
	if !t.up && c.search.ref != nil {
		against = c.search.ref
	}
	by, err := gain(against, c.window)
	v, why := c.verdict(s, by, err)
	if v == open {
		return
	}
	c.settle(s, v == kept, by, err, why)
}

// verdict returns whether the trial pays, and the reason; open while that is not clear. by is the
// gain as a logarithm, and err its standard error.
func (c *Controller) verdict(s Sample, by, err float64) (verdict, string) {
	t := c.trial
	quick := (c.window.samples >= 2 || math.Abs(by) > huge) && c.lasts(s, quickest, quickWalls)
	enough, end := c.enough(s), c.lasts(s, latest, endWalls) && c.window.samples >= 3
	least := -tolerance
	errors := unlucky
	if t.up {
		least, errors = minGain*math.Min(1, math.Log2(t.factor)), likely
	}
	percent := fmt.Sprintf("%+.0f%%", 100*(math.Exp(by)-1))
	if enough {
		if why := c.late(by); why != "" && t.up {
			return undone, why
		}
	}
	enough = enough && (t.up || c.window.seconds >= careful)
	if !t.up && enough && by < likely*err && c.base.headroom() < full && c.window.headroom() > full {
		return undone, "the cores are not full any more" // idle cores show sooner than the loss
	}
	switch {
	case quick && by+surely*err < -much, enough && by+likely*err < least:
		return undone, percent
	case quick && t.up && by-surely*err > much, enough && by-errors*err > least:
		return kept, percent
	case end && (t.up && by > math.Max(least, err) || !t.up && by > least/2):
		return kept, percent
	case end:
		return undone, percent
	}
	return open, ""
}

// late returns the reason why calls take too long for a gain of by; empty if they do not.
func (c *Controller) late(by float64) string {
	for name, now := range c.window.flows {
		before := c.base.flows[name]
		if now.done < 1 || before == nil || before.done < 1 {
			continue
		}
		wall, was, alone := now.wall/now.done, before.wall/before.done, c.nature.ShortestCall(name)
		switch {
		case now.timeout > 0 && wall > late*now.timeout && was <= late*now.timeout:
			return fmt.Sprintf("%s would take %.3gs of its timeout of %.3gs", name, wall, now.timeout)
		case wall > slower*alone && wall > finer*was && by < pays:
			return fmt.Sprintf("%s would take %.2g times as long as alone", name, wall/alone)
		}
	}
	return ""
}

// settle ends a trial: it keeps or reverts its plan, updates the search, and starts the next step.
func (c *Controller) settle(s Sample, keep bool, by, err float64, why string) {
	t, d := c.trial, c.trial.dim
	c.memory.learn(c.best, t.plan, float64(c.base.memory), float64(c.window.memory), s.At-c.based, s.Functions)
	c.trial = nil
	old := float64(c.best.Get(d))
	switch {
	case keep && t.up:
		// Throughput is at most proportional, so fewer than this would not do as much.
		c.search.rose[d] = math.Max(c.search.rose[d], math.Min(old*math.Exp(by-err), float64(t.Get(d))))
		c.search.won = d
		if by > pays {
			for o := range c.search.shut {
				c.search.shut[o], c.search.trimmed[o] = false, false
			}
		}
	case t.up && by < -pays && t.factor > doubling:
		c.search.most[d] = math.Sqrt(t.factor)
	case t.up && by > -pays && !c.search.doubted && c.base.headroom() >= full && c.base.headroom() < idle && c.base.seconds < sound:
		// Near the optimum gains are small, and the base was measured too briefly for them.
		c.search.doubted = true
		c.base = nil
		c.ask(s, c.best, PhaseClimb, "measuring longer: the gain was within the noise")
		return
	case t.up:
		c.search.shut[d] = true
	case !keep:
		c.search.low[d] = math.Max(c.search.low[d], math.Min(float64(t.Get(d))*math.Exp(-by-err), old))
		if c.search.rejected[d]++; c.search.rejected[d] >= 2 {
			c.search.trimmed[d] = true
		}
	}
	if keep {
		c.best, c.base, c.based = t.plan, c.window, s.At
		if c.search.ref == nil || t.up || by > err {
			c.search.ref = c.window
		}
		c.note = "kept " + t.String() + ": " + why
	}
	c.next(s)
}

// resolve ends a trial that cannot be measured any more, because other functions are busy, or none.
// It keeps the plan if the samples so far favor it.
func (c *Controller) resolve(s Sample) {
	t := c.trial
	c.trial = nil
	if c.window.samples >= 2 {
		by, err := gain(c.base, c.window)
		if !math.IsInf(err, 1) && (t.up && by > minGain || !t.up && by > -tolerance) {
			c.best = t.plan
		}
	}
	c.base = nil
	c.ask(s, c.best, c.phase, c.note)
}
