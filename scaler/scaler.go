// Package scaler turns what is measured into how many workers and instances
// there should be: signals in, wanted counts out.
//
// Its one policy serves two loops. The daemon asks it each second how many worker
// processes a pool should have, and every few seconds how many instances there
// should be; here both are units. A Scaler is fed with Signals and has neither a
// clock nor a way out of the process; what it wants is carried out by a pool, or
// by a Provisioner: one subpackage each. The subpackage sim plays a trace of
// arrivals against the policy, and against those of others.
package scaler

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Signals is what one decision is made from. All rates are messages a second.
type Signals struct {
	// At counts from when the scaler began, on a clock that does not jump.
	At time.Duration
	// Clock is the wall clock, in the time zone of the schedules; only they use it.
	Clock time.Time
	// Loads has one for each function.
	Loads []Load
	// Ready, Starting and Draining count the units. Ready ones take messages.
	Ready, Starting, Draining int
	// Needed is how many units what is in flight takes, if it were packed into as
	// few as possible.
	Needed int
	// StartUp is how long a unit takes from its start until it takes messages, as
	// measured; 0 until one did.
	StartUp time.Duration
	// Pressed says that there is more to do than room for it, and that Max is what
	// pays: then all of them are wanted.
	Pressed bool
	// Failing says that units do not start, and why; empty if they do.
	Failing string
}

// Load is what one function asks for; a Meter makes it of counts.
type Load struct {
	Function string
	// Backlog counts the messages that are ready at the source and not handed
	// out; Unreadable where it could not be read. In-flight is not backlog.
	Backlog int64
	// AtLeast says that there may be more than Backlog: the source does not count
	// to the end.
	AtLeast bool
	// Oldest is the age of the oldest of them; 0 if there is none, or unknown.
	Oldest time.Duration
	// Unsettled counts the messages that were handed out and are not settled: in
	// flight, or waiting for a retry that one unit has to be there for.
	Unsettled int64
	// Arrivals is the rate at which messages come in.
	Arrivals float64
	// Done is the rate at which they are finished, and Failed that of those among them
	// that the function failed on.
	Done, Failed float64
	// Busy is the part of the function's slots that is taken, 0 to 1.
	Busy float64
	// Slots is how many one unit has.
	Slots float64
	// Capacity is the rate that one unit was measured to handle with all its
	// slots taken; 0 until something was measured.
	Capacity float64
	// Spread is the relative standard error of Capacity.
	Spread float64
}

// Unreadable is the backlog of a source that does not tell.
const Unreadable = -1

// Decision is how many units there should be, and why.
type Decision struct {
	// Wanted is the number; Current the one that it replaces, without those that drain.
	Wanted, Current int
	// Bound is what held the number; Formula if nothing did.
	Bound Bound
	// Raw is what the formula alone asks for.
	Raw int
	// Terms are the formula's parts, one for each function.
	Terms []Term
	// Note says more about the bound; may be empty.
	Note    string
	Signals Signals
	Policy  *Policy
}

// Term is one function's part of the formula: how many units it keeps busy.
type Term struct {
	Function string
	// Arrivals is the rate that was reckoned with: the level now, or the forecast
	// for when a unit that is started now will be ready, if that is higher.
	Arrivals float64
	// Backlog is what is expected to wait then, and Within what it is to be gone in.
	Backlog float64
	Within  time.Duration
	// Capacity is that of one unit, and Utilisation the part of it that is planned
	// with.
	Capacity, Utilisation float64
	// Asked is the result, and Units what is left of it under the Ceiling; neither is
	// rounded up.
	Asked, Units float64
	// Ceiling is where more units were measured to bring nothing; 0 if nowhere.
	Ceiling int
	// How names the way that Units was found.
	How How
}

// How is the way in which a Term was found.
type How string

// The ways.
const (
	ByFormula  How = "formula"         // (arrivals + backlog / within) / capacity
	ByDoubling How = "doubling"        // the capacity is not known yet
	ByCount    How = "per_instance"    // backlog / per_instance
	ByHolding  How = "backlog unknown" // what there is
	ByCeiling  How = "nothing to gain" // the formula asks for more than helps
	ByIdling   How = "nothing to do"   // no backlog and no arrivals
)

// Bound is what held a decision; the values are those of the metric's label.
type Bound string

// The bounds, in the order in which they are applied.
const (
	BoundFormula    Bound = "formula"    // nothing: the formula decides
	BoundDoubling   Bound = "doubling"   // twice what there is, as the capacity is unknown
	BoundGain       Bound = "gain"       // more units would bring nothing
	BoundActivation Bound = "activation" // too few messages to start from zero
	BoundScaleIn    Bound = "scale_in"   // more were wanted a moment ago
	BoundIdle       Bound = "idle"       // not idle for long enough to go to zero
	BoundBusy       Bound = "busy"       // what is in flight needs them
	BoundUnsettled  Bound = "unsettled"  // what waits for a retry needs one
	BoundStep       Bound = "max_step"   // no more at once
	BoundHold       Bound = "hold"       // the backlog cannot be read
	BoundFallback   Bound = "fallback"   // nor could it for a while
	BoundSchedule   Bound = "schedule"   // a schedule's min
	BoundPressed    Bound = "pressed"    // there is more to do than room for it: as many as pay
	BoundMin        Bound = "min"
	BoundMax        Bound = "max"
)

// Bounds are all of them.
var Bounds = []Bound{
	BoundFormula, BoundDoubling, BoundGain, BoundActivation, BoundScaleIn, BoundIdle, BoundBusy,
	BoundUnsettled, BoundStep, BoundHold, BoundFallback, BoundSchedule, BoundPressed, BoundMin, BoundMax,
}

// Provisioner sets the number of instances. Its methods are called from one
// goroutine.
type Provisioner interface {
	// Count returns how many instances there are, by what they are doing.
	Count(ctx context.Context) (Count, error)
	// Set asks for n instances, those that are draining not among them, and
	// returns at once. On the way down the idle go first, and each is drained.
	Set(ctx context.Context, n int) error
}

// Count is how many instances there are.
type Count struct {
	Ready, Starting, Draining int
	// StartUp is how long one took to be ready, lately; 0 until one was.
	StartUp time.Duration
	// Failing says why instances do not start; empty if they do.
	Failing string
}

// String is the decision in a line.
func (d Decision) String() string {
	text := fmt.Sprintf("%d wanted, %d now: %s", d.Wanted, d.Current, d.Bound)
	if d.Note != "" {
		text += ", " + d.Note
	}
	for _, t := range d.Terms {
		text += "; " + t.Function + " " + t.String()
	}
	return text
}

// String is the term with its numbers.
func (t Term) String() string {
	switch t.How {
	case ByFormula, ByCeiling:
		text := fmt.Sprintf("(%.4g/s + %.4g / %v) / (%.4g/s × %.4g) = %.4g", t.Arrivals, t.Backlog, t.Within.Round(100*time.Millisecond), t.Capacity, t.Utilisation, t.Asked)
		if t.How == ByCeiling {
			text += fmt.Sprintf(", but more than %d bring nothing", t.Ceiling)
		}
		return text
	case ByCount:
		return fmt.Sprintf("%.4g waiting = %.4g", t.Backlog, t.Units)
	}
	return fmt.Sprintf("%.4g (%s)", t.Units, t.How)
}

// Explain is the decision for people: what came in, the formula, what held it.
func (d Decision) Explain() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	s := d.Signals
	line("wanted %d, now %d (%d ready, %d starting; %d more are draining)", d.Wanted, d.Current, s.Ready, s.Starting, s.Draining)
	for _, l := range s.Loads {
		backlog := "unreadable"
		if l.Backlog != Unreadable {
			backlog = fmt.Sprint(l.Backlog)
		}
		if l.Unsettled > 0 {
			backlog += fmt.Sprintf(" and %d delivered, not settled", l.Unsettled)
		}
		line("  %s: backlog %s, oldest %v, arrivals %.4g/s, done %.4g/s, %.0f%% of the slots busy, one handles %.4g/s",
			l.Function, backlog, l.Oldest.Round(time.Millisecond), l.Arrivals, l.Done, 100*l.Busy, l.Capacity)
	}
	line("formula: ceil(sum of (arrivals + backlog / within) / (capacity × utilisation))")
	for _, t := range d.Terms {
		line("  %s: %s", t.Function, t)
	}
	line("  asks for %d, within %d and %d; start-up %v, in flight needs %d", d.Raw, d.Policy.Min, d.Policy.Max, s.StartUp.Round(time.Millisecond), s.Needed)
	if s.Failing != "" {
		line("units do not start: %s", s.Failing)
	}
	line("held by: %s%s", d.Bound, noted(d.Note))
	return b.String()
}

func noted(note string) string {
	if note == "" {
		return ""
	}
	return " (" + note + ")"
}
