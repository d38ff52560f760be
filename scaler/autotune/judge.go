package autotune

import (
	"fmt"
	"math"

	"github.com/drover-run/drover/scaler/autotune/pool"
	"github.com/drover-run/drover/scaler/autotune/profile"
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

// isEnough reports whether the window is long enough for an ordinary verdict.
func (w *window) isEnough(slowest float64) bool {
	return w.lastsFor(soonest, soonWalls, slowest) && w.samples >= 3
}

// lastsFor reports whether the window has at least that many seconds, and that many times the slowest call.
func (w *window) lastsFor(seconds, walls, slowest float64) bool {
	return w.seconds >= math.Max(seconds, walls*slowest)
}

// verdict is the result of a trial.
type verdict int

const (
	open verdict = iota
	kept
	undone
)

// comparison compares a trial with the best plan.
type comparison struct {
	*trial
	base, now *window // the measurements of the best plan and of the trial
	profiles  profile.Profiles
	slowest   float64 // the shortest time of a call of the slowest function, in seconds
}

// decideTrial returns whether the trial pays, and the reason; open while that is not clear. by is
// the gain as a logarithm, and err its standard error.
func (c comparison) decideTrial(by, err float64) (verdict, string) {
	quick := (c.now.samples >= 2 || math.Abs(by) > huge) && c.now.lastsFor(quickest, quickWalls, c.slowest)
	enough, end := c.now.isEnough(c.slowest), c.now.lastsFor(latest, endWalls, c.slowest) && c.now.samples >= 3
	least := -tolerance
	errors := unlucky
	if c.up {
		least, errors = minGain*math.Min(1, math.Log2(c.factor)), likely
	}
	percent := fmt.Sprintf("%+.0f%%", 100*(math.Exp(by)-1))
	if enough {
		if why := c.findLate(by); why != "" && c.up {
			return undone, why
		}
	}
	enough = enough && (c.up || c.now.seconds >= careful)
	if !c.up && enough && by < likely*err && c.base.cpuHeadroom() < full && c.now.cpuHeadroom() > full {
		return undone, "the cores are no longer fully used" // idle cores show sooner than the loss
	}
	switch {
	case quick && by+surely*err < -much, enough && by+likely*err < least:
		return undone, percent
	case quick && c.up && by-surely*err > much, enough && by-errors*err > least:
		return kept, percent
	case end && (c.up && by > math.Max(least, err) || !c.up && by > least/2):
		return kept, percent
	case end:
		return undone, percent
	}
	return open, ""
}

// findLate returns the reason why calls take too long for a gain of by; empty if they do not.
func (c comparison) findLate(by float64) string {
	for name, now := range c.now.flows {
		before := c.base.flows[name]
		if now.done < 1 || before == nil || before.done < 1 {
			continue
		}
		wall, was, alone := now.wall/now.done, before.wall/before.done, c.profiles.ShortestCall(name)
		switch {
		case now.timeout > 0 && wall > late*now.timeout && was <= late*now.timeout:
			return fmt.Sprintf("%s would take %.3gs of its timeout of %.3gs", name, wall, now.timeout)
		case wall > slower*alone && wall > finer*was && by < pays:
			return fmt.Sprintf("%s would take %.2g times as long as alone", name, wall/alone)
		}
	}
	return ""
}

// learnFrom updates the search by a trial that was kept or reverted. before is the number of its
// dimension so far, and base the measurement of the best plan. It reports whether the base must be
// measured again, for longer, before anything is concluded.
func (s *search) learnFrom(t *trial, keep bool, by, err float64, before int, base *window) (again bool) {
	d, old := t.dim, float64(before)
	switch {
	case keep && t.up:
		// Throughput is at most proportional, so fewer than this would not do as much.
		s.rose[d] = math.Max(s.rose[d], math.Min(old*math.Exp(by-err), float64(t.Get(d))))
		s.won = d
		if by > pays {
			for o := range s.shut {
				s.shut[o], s.trimmed[o] = false, false
			}
		}
	case t.up && by < -pays && t.factor > doubling:
		s.most[d] = math.Sqrt(t.factor)
	case t.up && by > -pays && !s.doubted && base.cpuHeadroom() >= full && base.cpuHeadroom() < idle && base.seconds < sound:
		// Near the optimum gains are small, and the base was measured too briefly for them.
		s.doubted = true
		return true
	case t.up:
		s.shut[d] = true
	case !keep:
		s.halved = s.halved || d == pool.Processes
		s.low[d] = math.Max(s.low[d], math.Min(float64(t.Get(d))*math.Exp(-by-err), old))
		if s.rejected[d]++; s.rejected[d] >= 2 {
			s.trimmed[d] = true
		}
	}
	return false
}
