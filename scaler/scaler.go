// Package scaler decides how many workers and instances to run, from measurements: Signals in,
// a Decision out.
//
// One policy serves two loops of the daemon. Each second the daemon requests the number of
// worker processes of a pool, and every few seconds the number of instances; this package calls
// both units. A Scaler has no clock and no side effects. A pool carries out its decisions, or a
// Provisioner: there is one subpackage for each. The subpackage sim runs a trace of arrivals
// against the policy, and against models of others.
package scaler

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Signals is the input of one decision. All rates are messages per second.
type Signals struct {
	// At is the time since the scaler began, on a monotonic clock. It must not decrease.
	At time.Duration
	// Clock is the wall clock, in the time zone of the schedules; only they use it.
	Clock time.Time
	// Loads has an entry for each function.
	Loads []Load
	// Ready, Starting and Draining count the units. Ready ones receive messages.
	Ready, Starting, Draining int
	// Needed is the smallest number of units that has room for all messages in flight.
	Needed int
	// StartUp is the measured time from the start of a unit until it receives messages; 0 until
	// one did.
	StartUp time.Duration
	// Pressed reports that the functions have more work than slots, and that measurements show
	// Max to give the best throughput. Then Max units are wanted.
	Pressed bool
	// Failing is the reason why units do not start; empty if they do.
	Failing string
}

// Load is the demand of one function; a Meter derives it from counts.
type Load struct {
	Function string
	// Backlog is the number of messages that are ready at the source and not delivered, so
	// without those in flight. It is Unreadable if it could not be read.
	Backlog int64
	// AtLeast reports that there may be more messages than Backlog, because the source counts
	// only up to a limit.
	AtLeast bool
	// Oldest is the age of the oldest of them; 0 if none, or unknown.
	Oldest time.Duration
	// Unsettled is the number of messages that were delivered and are not settled: in flight,
	// or waiting for a retry for which one unit must run.
	Unsettled int64
	// Arrivals is the rate of arriving messages.
	Arrivals float64
	// Done is the rate of finished messages, and Failed that of those among them on which the
	// function failed.
	Done, Failed float64
	// Busy is the fraction of the function's slots that is in use, 0 to 1.
	Busy float64
	// Slots is the number of slots of one unit.
	Slots float64
	// Capacity is the measured rate of one unit with all its slots in use; 0 until it is known.
	Capacity float64
	// Spread is the relative standard error of Capacity.
	Spread float64
}

// Unreadable is the Backlog of a source whose backlog cannot be read.
const Unreadable = -1

// Decision is the number of units to run, and the reason.
type Decision struct {
	// Wanted is the number; Current the one that it replaces, without draining units.
	Wanted, Current int
	// Bound is the bound that applied; Formula if none did.
	Bound Bound
	// Raw is the result of the formula alone.
	Raw int
	// Terms are the parts of the formula, one for each function.
	Terms []Term
	// Note has details of the bound; may be empty.
	Note    string
	Signals Signals
	Policy  *Policy
}

// Term is one function's part of the formula: the number of units that it keeps busy.
type Term struct {
	Function string
	// Arrivals is the rate that the formula uses: the current level, or the forecast for the
	// time when a unit started now is ready, if that is higher.
	Arrivals float64
	// Backlog is the expected backlog at that time, and Within the time in which to clear it.
	Backlog float64
	Within  time.Duration
	// Capacity is the capacity of one unit, and Utilisation the fraction of it to plan with.
	Capacity, Utilisation float64
	// Asked is the result, and Units the result limited by Ceiling; neither is rounded up.
	Asked, Units float64
	// Ceiling is the number of units above which measurements showed no gain; 0 is none.
	Ceiling int
	// How names the way that Units was found.
	How How
}

// How is the way in which the units of a Term were found.
type How string

// The values of How.
const (
	ByFormula  How = "formula"         // (arrivals + backlog / within) / capacity
	ByDoubling How = "doubling"        // the capacity is not known yet
	ByCount    How = "per_instance"    // backlog / per_instance
	ByHolding  How = "backlog unknown" // the current number
	ByCeiling  How = "nothing to gain" // the formula exceeds the ceiling
	ByIdling   How = "nothing to do"   // no backlog and no arrivals
)

// Bound is the rule that decided the number; the values are also the values of the metric's label.
type Bound string

// The bounds, in the order in which they are applied.
const (
	BoundFormula    Bound = "formula"    // no bound applies
	BoundDoubling   Bound = "doubling"   // twice the current number, as the capacity is unknown
	BoundGain       Bound = "gain"       // more units would gain nothing
	BoundActivation Bound = "activation" // too few messages to start from zero
	BoundScaleIn    Bound = "scale_in"   // a higher number was needed until recently
	BoundIdle       Bound = "idle"       // not idle for long enough to go to zero
	BoundBusy       Bound = "busy"       // messages in flight need them
	BoundUnsettled  Bound = "unsettled"  // a message that waits for a retry needs one
	BoundStep       Bound = "max_step"   // no more may be added at once
	BoundHold       Bound = "hold"       // the backlog cannot be read: no unit is removed
	BoundFallback   Bound = "fallback"   // it has been unreadable for FallbackAfter
	BoundSchedule   Bound = "schedule"   // a schedule's min
	BoundPressed    Bound = "pressed"    // functions have more work than slots: as many as gain throughput
	BoundMin        Bound = "min"
	BoundMax        Bound = "max"
)

// Bounds lists all bounds.
var Bounds = []Bound{
	BoundFormula, BoundDoubling, BoundGain, BoundActivation, BoundScaleIn, BoundIdle, BoundBusy,
	BoundUnsettled, BoundStep, BoundHold, BoundFallback, BoundSchedule, BoundPressed, BoundMin, BoundMax,
}

// Provisioner sets the number of instances. All methods are called from one goroutine.
type Provisioner interface {
	// Count returns the number of instances by state.
	Count(ctx context.Context) (Count, error)
	// Set requests n instances, not counting draining ones, and returns at once. When the
	// number decreases, idle instances stop first, and each is drained.
	Set(ctx context.Context, n int) error
}

// Count is the number of instances by state.
type Count struct {
	Ready, Starting, Draining int
	// StartUp is how long a recent instance took to become ready; 0 until one was.
	StartUp time.Duration
	// Failing is the reason why instances do not start; empty if they do.
	Failing string
}

// String returns the decision as one line.
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

// reasons are the bounds as reasons. Those with a number from the policy are in reason.
var reasons = map[Bound]string{
	BoundFormula: "the load needs as many", BoundDoubling: "the capacity of one is not measured yet, so the number is doubled",
	BoundGain: "more would not increase the throughput", BoundActivation: "too few messages are waiting to start the first one",
	BoundScaleIn: "more were needed until recently", BoundBusy: "messages in flight need them", BoundUnsettled: "a message waiting for a retry needs one",
	BoundStep: "no more may be added at once", BoundHold: "the backlog cannot be read, so none is removed",
	BoundFallback: "the backlog has been unreadable for some time", BoundSchedule: "a schedule requires as many",
	BoundPressed: "functions have more work than slots",
}

// reason explains the number.
func (d Decision) reason() string {
	switch {
	case d.Bound == BoundMax:
		return fmt.Sprintf("the maximum is %d", d.Policy.Max)
	case d.Bound == BoundMin, d.Bound == BoundIdle && d.Policy.Min > 0:
		return fmt.Sprintf("the minimum is %d", d.Policy.Min)
	case d.Bound == BoundIdle:
		return fmt.Sprintf("the last one stops after %v without messages", d.Policy.Idle)
	}
	return reasons[d.Bound]
}

// Sentence describes the decision in one sentence, without the formula.
func (d Decision) Sentence() string {
	change := fmt.Sprintf("stays at %d", d.Current)
	if d.Wanted != d.Current {
		change = fmt.Sprintf("scales from %d to %d", d.Current, d.Wanted)
	}
	return change + ": " + d.reason() + noteText(d.Note)
}

// String returns the term with its numbers.
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

// Explain describes the decision: its input, the formula, and the bound.
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
	line("held by: %s%s", d.Bound, noteText(d.Note))
	return b.String()
}

func noteText(note string) string {
	if note == "" {
		return ""
	}
	return " (" + note + ")"
}
