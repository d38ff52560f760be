package scaler

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Policy is the configuration of a Scaler. It has no state.
type Policy struct {
	// Min and Max bound the number of units, 0 <= Min <= Max, 1 <= Max.
	Min, Max int

	// Exactly one of the next three is the target. ClearWithin is the time in which to clear
	// the backlog.
	ClearWithin time.Duration
	// MaxAge is the age that a message may reach before it is delivered.
	MaxAge time.Duration
	// PerInstance is the number of waiting messages for one unit.
	PerInstance float64

	// Utilisation is the fraction of the capacity to plan with, more than 0, at most 1.
	Utilisation float64
	// MaxStep bounds how many units are added at once; 0 is no bound.
	MaxStep int
	// ScaleInAfter is for how long a lower number must have been enough; 0 is twice the
	// start-up, between scaleInLeast and scaleInMost.
	ScaleInAfter time.Duration
	// Idle is the time without a message after which the last unit stops, if Min is 0.
	Idle time.Duration
	// Activation is the number of waiting messages that starts the first unit, at least 1.
	Activation int64
	// MinGain is the fraction of an earlier unit's throughput that an added one must bring; 0
	// adds units without a check.
	MinGain float64
	// Fallback is the least number after the backlog has been unreadable for FallbackAfter; 0
	// keeps the current number.
	Fallback      int
	FallbackAfter time.Duration
	// Forecast reports whether arrivals are forecast for the time when a started unit will be
	// ready.
	Forecast bool
	// Interval is the time between two decisions.
	Interval  time.Duration
	Schedules []Schedule
}

const (
	scaleInLeast = 15 * time.Second
	scaleInMost  = 5 * time.Minute
	// A surplus of surer standard errors is removed after the window, one of sure standard
	// errors after scaleInSlowly times the window. With these numbers the direction changes
	// 0.16 times in ten minutes of constant load on average, and 0.75 times at worst of 80
	// rates (docs/scaling.md).
	surer         = 4
	scaleInSlowly = 8
	// tolerance is the relative difference between the wanted and the current number that is
	// ignored if it is within the standard error.
	tolerance = 0.05
	// ageMargin is the fraction of MaxAge to plan with; the rest is a margin for what the
	// forecast misses.
	ageMargin = 0.8
	// ageLeast is the least time to clear a backlog, as a fraction of MaxAge, when its oldest
	// message is late already. It bounds the units that are started for late messages.
	ageLeast = 0.25
)

// Check returns an error that names each invalid setting by its key in the configuration.
func (p *Policy) Check() error {
	var errs []error
	wrong := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	wrong(p.Max < 1, "max is %d; at least 1 is needed", p.Max)
	wrong(p.Min < 0, "min is %d; at least 0 is needed", p.Min)
	wrong(p.Max >= 1 && p.Min > p.Max, "min (%d) is above max (%d)", p.Min, p.Max)
	targets := 0
	for _, set := range []bool{p.ClearWithin != 0, p.MaxAge != 0, p.PerInstance != 0} {
		if set {
			targets++
		}
	}
	wrong(targets != 1, "%d targets are set; exactly one of clear_within, max_age and per_instance is needed, and more than 0", targets)
	wrong(p.ClearWithin < 0 || p.MaxAge < 0 || p.PerInstance < 0, "a target must be more than 0")
	wrong(!(p.Utilisation > 0 && p.Utilisation <= 1), "utilisation is %v; it must be more than 0 and at most 1", p.Utilisation)
	wrong(p.Activation < 1, "activation is %d; at least 1 message is needed", p.Activation)
	wrong(p.MinGain < 0 || p.MinGain >= 1, "min_gain is %v; it must be at least 0 and less than 1", p.MinGain)
	wrong(p.Fallback < 0 || p.Fallback > max(p.Max, 0), "fallback is %d; it must be between 0 and max (%d)", p.Fallback, p.Max)
	wrong(p.Interval <= 0, "interval is %v; it must be more than 0s", p.Interval)
	wrong(p.MaxStep < 0 || p.ScaleInAfter < 0 || p.Idle < 0 || p.FallbackAfter < 0, "max_step, scale_in_after, idle and fallback_after must not be negative")
	for i, s := range p.Schedules {
		if err := s.checkBounds(p.Max); err != nil {
			errs = append(errs, fmt.Errorf("schedules[%d]: %w", i, err))
		}
	}
	return errors.Join(errs...)
}

// Scaler makes decisions by a policy. One goroutine at a time uses it.
type Scaler struct {
	policy     Policy
	functions  map[string]*demand
	likely     window // the numbers that would suffice with some certainty
	surely     window // with high certainty
	begun      bool
	last       time.Duration // time of the last decision
	active     time.Duration // when any function last had work
	waiting    bool          // messages wait, and no unit runs
	since      time.Duration // since when
	unreadable time.Duration // since when the backlog cannot be read; negative if it can
}

// demand is the state of one function.
type demand struct {
	arrivals forecast
	gain     gain
	units    float64 // the last Units before Utilisation
}

// New returns a Scaler for a policy that passed its Check.
func New(p Policy) *Scaler {
	return &Scaler{policy: p, functions: make(map[string]*demand), unreadable: -1}
}

// Decide returns how many units to run from now on. Signals.At must not decrease; an At that is
// not later than the last one counts as the same time.
func (s *Scaler) Decide(in Signals) Decision {
	p := &s.policy
	if !s.begun {
		s.begun, s.active, s.last = true, in.At, in.At
	}
	in.At = max(in.At, s.last)
	s.last = in.At
	d := Decision{Current: in.Ready + in.Starting, Bound: BoundFormula, Signals: in, Policy: p}
	a := s.sumTerms(&d)
	d.Raw = roundUp(a.units)
	if blur := min(a.off, tolerance*a.units); roundUp(a.units-blur) <= d.Current && d.Raw > d.Current && d.Current > 0 {
		d.Raw = d.Current // the difference may be noise
	}
	few, surely := roundUp(a.units+sure*a.off), roundUp(a.units+surer*a.off)
	idle := in.Needed == 0 && a.waiting == 0 && in.At-s.active >= p.Idle
	if idle {
		d.Raw, few, surely, s.likely, s.surely = 0, 0, 0, nil, nil // the remaining rate is only the decay of the mean
		d.Note = fmt.Sprintf("nothing to do for %v", p.Idle)
	}
	d.Wanted = d.Raw
	if a.doubling && d.Raw > d.Current {
		d.Bound = BoundDoubling
	}
	s.scaleIn(&d, few, surely)
	if a.capped && (d.Wanted == d.Raw || d.Wanted >= d.Current) {
		d.Bound = BoundGain
	}
	if !a.capped { // units that all wait for the same bottleneck need not stay
		d.atLeast(min(in.Needed, d.Current), BoundBusy)
	}
	if !idle {
		d.atLeast(min(d.Current, 1), BoundIdle)
	}
	s.checkActivation(&d, a)
	s.holdUnread(&d, a)
	if a.unsettled > 0 && d.atLeast(1, BoundUnsettled) {
		d.Note = fmt.Sprintf("%d delivered and not settled: in flight, or waiting for a retry", a.unsettled)
	}
	if p.MaxStep > 0 && d.Wanted > d.Current+p.MaxStep {
		d.Wanted, d.Bound = d.Current+p.MaxStep, BoundStep
	}
	for _, schedule := range p.Schedules {
		if schedule.holdsAt(in.Clock) && d.atLeast(schedule.Min, BoundSchedule) {
			d.Note = schedule.String()
		}
	}
	if in.Pressed {
		d.atLeast(p.Max, BoundPressed)
	}
	d.atLeast(p.Min, BoundMin)
	if d.Wanted > p.Max {
		d.Wanted, d.Bound = p.Max, BoundMax
	}
	return d
}

// atLeast raises the number to least, and reports whether it was lower.
func (d *Decision) atLeast(least int, b Bound) bool {
	if d.Wanted >= least {
		return false
	}
	d.Wanted, d.Bound = least, b
	return true
}

// asked is the demand of all functions.
type asked struct {
	units, off float64 // off is the standard error of units
	waiting    int64
	unsettled  int64
	oldest     time.Duration
	// Of any function: its backlog is unreadable, its units are doubled, or more of them would
	// gain nothing.
	unread, doubling, capped bool
}

// sumTerms adds the functions' terms to a decision, and returns their sums.
func (s *Scaler) sumTerms(d *Decision) (a asked) {
	for _, l := range d.Signals.Loads {
		t, off := s.termOf(d.Signals, l)
		d.Terms = append(d.Terms, t)
		a.units += t.Units
		a.off = math.Hypot(a.off, off)
		a.unread = a.unread || l.Backlog == Unreadable
		a.doubling = a.doubling || t.How == ByDoubling
		a.capped = a.capped || t.How == ByCeiling
		a.waiting += max(l.Backlog, 0)
		a.unsettled += l.Unsettled
		a.oldest = max(a.oldest, l.Oldest)
		if l.Backlog > 0 || l.Busy > 0 || l.Arrivals > 0 || l.Done > 0 {
			s.active = d.Signals.At
		}
	}
	return a
}

// roundUp rounds up, and ignores rounding errors of floating point.
func roundUp(units float64) int { return int(math.Ceil(math.Min(units, math.MaxInt32) - 1e-9)) }

// termOf returns the demand of one function, divided by the utilisation, and its standard error.
func (s *Scaler) termOf(in Signals, l Load) (t Term, off float64) {
	p := &s.policy
	f := s.functions[l.Function]
	if f == nil {
		f = new(demand)
		s.functions[l.Function] = f
	}
	current := in.Ready + in.Starting
	if l.Backlog != Unreadable {
		f.arrivals.addRate(in.At, l.Arrivals)
		f.gain.addSample(in.At, in.Ready, l, p.MinGain)
	}
	t = Term{Function: l.Function, Capacity: l.Capacity, Utilisation: p.Utilisation, Backlog: math.Max(float64(l.Backlog), 0), How: ByFormula, Arrivals: f.arrivals.level}
	inFlight := l.Busy * l.Slots * float64(in.Ready)
	switch {
	case l.Backlog == Unreadable:
		t.How, t.Units = ByHolding, f.units
	case p.PerInstance > 0:
		t.How, t.Units = ByCount, t.Backlog/p.PerInstance
		t.Arrivals = 0
	case l.Capacity <= 0:
		t.How = ByIdling
		if l.Backlog > 0 || inFlight > 0 {
			t.How, t.Units = ByDoubling, s.doubledUnits(in, l, inFlight)
		}
	default:
		t.Capacity = f.gain.unitCapacity(l.Capacity, in.Ready)
		horizon := in.StartUp + p.Interval
		if p.Forecast {
			t.Arrivals = math.Max(t.Arrivals, f.arrivals.rateAfter(horizon))
		}
		// While new units start, messages accumulate that the current units cannot handle.
		soon := t.Capacity * (float64(in.Ready) + float64(in.Starting)/2)
		t.Backlog += math.Max(t.Arrivals-soon, 0) * in.StartUp.Seconds()
		t.Within = s.clearTime(l, in.StartUp)
		t.Units = (t.Arrivals + t.Backlog/t.Within.Seconds()) / t.Capacity
		if l.AtLeast && l.Busy >= saturated {
			// The size of the backlog is unknown, but all units are busy.
			if more := s.doubledUnits(in, l, inFlight) * p.Utilisation; more > t.Units {
				t.Units, t.How = more, ByDoubling
			}
		}
		off = math.Hypot(f.arrivals.levelDeviation()/t.Capacity, t.Units*l.Spread) / p.Utilisation
	}
	f.units = t.Units
	if t.How == ByFormula || l.Capacity > 0 && t.How == ByDoubling {
		t.Units /= p.Utilisation
	}
	t.Asked = t.Units
	if c := f.gain.ceiling; c > 0 {
		t.Ceiling = c
		if t.Units > float64(c) && current > 0 {
			t.Units, t.How, off = float64(c), ByCeiling, 0
		}
	}
	return t, off
}

// doubledUnits returns twice the current number, once all units are ready, and no more than could
// have work.
func (s *Scaler) doubledUnits(in Signals, l Load, inFlight float64) float64 {
	units := float64(in.Ready + in.Starting)
	if in.Starting == 0 && l.Backlog > 0 {
		units = math.Max(2*units, 1)
	}
	if l.Slots > 0 && !l.AtLeast {
		units = math.Min(units, math.Ceil((math.Max(float64(l.Backlog), 0)+inFlight)/l.Slots))
	}
	return units
}

// clearTime returns the time in which to clear the backlog.
func (s *Scaler) clearTime(l Load, startUp time.Duration) time.Duration {
	p := &s.policy
	if p.ClearWithin > 0 {
		return p.ClearWithin
	}
	left := time.Duration(ageMargin*float64(p.MaxAge)) - l.Oldest
	// Units that are needed for less than half of their start-up are not worth starting.
	return max(left, time.Duration(ageLeast*float64(p.MaxAge)), startUp/2)
}

// scaleIn compares the recent numbers with the current one. An almost certain surplus is
// removed soon. One that may be noise stays longer: otherwise a load of slightly more than ten
// units would alternate between ten and eleven.
func (s *Scaler) scaleIn(d *Decision, few, surely int) {
	after := s.policy.ScaleInAfter
	if after == 0 {
		after = min(max(2*d.Signals.StartUp, scaleInLeast), scaleInMost)
	}
	now := d.Signals.At
	lately := s.surely.slidingMax(now, surely, after)
	if long := s.likely.slidingMax(now, few, scaleInSlowly*after); long < lately {
		lately = long
	}
	if lately = min(lately, d.Current); d.Wanted < lately {
		d.Wanted, d.Bound = lately, BoundScaleIn
		d.Note = fmt.Sprintf("fewer must be enough for %v", after)
	}
}

// window has the recent numbers; only those that no later one exceeds are kept.
type window []want

type want struct {
	at    time.Duration
	units int
}

// slidingMax adds a number, and returns the highest of those that are at most age old.
func (w *window) slidingMax(now time.Duration, units int, age time.Duration) int {
	for len(*w) > 0 && (*w)[len(*w)-1].units <= units {
		*w = (*w)[:len(*w)-1]
	}
	*w = append(*w, want{now, units})
	for (*w)[0].at < now-age {
		*w = (*w)[1:]
	}
	return (*w)[0].units
}

// checkActivation keeps zero units until enough messages wait, or one of them long enough.
func (s *Scaler) checkActivation(d *Decision, a asked) {
	p, now := &s.policy, d.Signals.At
	if d.Current > 0 || a.waiting == 0 {
		s.waiting = false
		return
	}
	if !s.waiting {
		s.waiting, s.since = true, now
	}
	if a.waiting < p.Activation && max(a.oldest, now-s.since) < p.Idle {
		d.Wanted, d.Bound = 0, BoundActivation
		d.Note = fmt.Sprintf("%d wait, fewer than %d, and not for %v", a.waiting, p.Activation, p.Idle)
		return
	}
	d.atLeast(1, BoundActivation)
}

// holdUnread keeps the current number while a backlog cannot be read, and after FallbackAfter at
// least the fallback.
func (s *Scaler) holdUnread(d *Decision, a asked) {
	p, now := &s.policy, d.Signals.At
	if !a.unread {
		s.unreadable = -1
		return
	}
	if s.unreadable < 0 {
		s.unreadable = now
	}
	if p.Fallback > 0 && now-s.unreadable >= p.FallbackAfter {
		d.atLeast(p.Fallback, BoundFallback)
		return
	}
	d.atLeast(d.Current, BoundHold)
}
