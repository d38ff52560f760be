package autotune

import "fmt"

// checkMemory steps down when memory is nearly used up, and returns to the earlier plan when it is
// free again. It reports whether it changed the plan.
func (c *climber) checkMemory(s Sample) bool {
	m := &c.memory
	now := float64(s.Memory)
	if m.stepped > 0 && now < ease*float64(s.MemoryLimit) && s.At-m.down > helps && (m.helpless || m.willFit(c.now.want.Settings, m.before.Settings, now, s.MemoryLimit, s.Functions)) {
		// The cause was a leak, or a few messages that need much memory.
		before := m.before
		m.stepped, m.helpless = 0, false
		if before.Settings != c.now.want.Settings {
			c.adoptPlan(s, before, PhaseHold, "memory is free again: back to the best settings")
			c.search.done = true
			return true
		}
		return false
	}
	if !m.isNearLimit(s) || m.stepped > 0 && s.At-m.down < helps {
		return false
	}
	if m.stepped > 0 {
		if now > little*m.at {
			m.helpless = m.helpless || m.stepped >= 2
		}
	}
	if m.helpless {
		c.now.phase = PhaseMemory
		c.now.note = fmt.Sprintf("memory is nearly used up (%s of %s), and fewer calls at once do not help: a leak? max_memory has workers replaced", inMegabytes(now), inMegabytes(float64(s.MemoryLimit)))
		return false
	}
	if c.trial != nil {
		m.learnFromStep(c.best, c.trial.plan, float64(c.trial.began.Memory), now, s.At-c.trial.began.At, s.Functions)
		c.search.shut[c.trial.dim] = true
		best, done := c.best, c.search
		c.adoptPlan(s, best, PhaseMemory, "memory is nearly used up: undone")
		c.search = done
		m.over = 0
		return true
	}
	if m.stepped == 0 {
		m.before = c.best
	}
	next, why, can := m.stepDown(c.best, c.bounds, now, s.Functions)
	if !can {
		c.now.phase, c.now.note = PhaseMemory, why
		return false
	}
	m.stepped++
	m.down, m.at, m.over = s.At, now, 0
	next = c.makePlan(s, next.Settings)
	c.adoptPlan(s, next, PhaseMemory, why)
	c.search.done = true
	return true
}
