// Package autotune finds by measurement the numbers of processes, threads and coroutines for one
// pool of workers, for all its functions together, and the kind of each function.
//
// The caller passes a Sample to Look every 250 to 500 ms. Look returns the settings to use from now
// on. A Controller has no clock and no side effects: the caller applies each Decision, and reports
// the settings in force with the next Sample. One goroutine at a time uses a Controller. It starts
// with what an earlier Controller Learned, or with a table by kind, and climbs from there. Each
// step is measured against the settings before it, and reverted if it gained too little.
//
// Failed reports each failed call. If a change of settings causes failures, the change is reverted
// at once. So a Controller has two parts: a climber, which finds the best settings and knows
// nothing of failures, and a guard.Guard, which knows only failures.
//
// The objective is the mean of the logarithms of the rates of those functions that have more work
// than slots. So no function starves for another.
//
// The constants are checked together: in workloads_test.go nine simulated workloads must reach 0.95
// of the best cell of a grid within 30 s, and 0.9 of it within 15 s. docs/performance.md has the
// same figures for real workers.
//
// The values of Decision.Phase:
//
//	start     the first settings are measured: from the table, or from Learned
//	climb     a step up is tried
//	trim      a step down is tried: less for the same throughput
//	hold      nothing can be gained; the controller watches for changes
//	idle      slots are free, so nothing can be measured about more
//	disturbed other programs use the machine differently than before; no decisions now
//	memory    stepped down, because memory is nearly used up
//	undone    the last change is reverted, because calls failed right after it; being checked
//	explicit  all numbers are set; none is ever changed
package autotune

import (
	"maps"

	"github.com/drover-run/drover/scaler/autotune/guard"
	"github.com/drover-run/drover/scaler/autotune/pool"
	"github.com/drover-run/drover/scaler/autotune/profile"
)

type (
	// Settings are the numbers that the Controller finds.
	Settings = pool.Settings
	// Bounds are the bounds of Settings, both inclusive.
	Bounds = pool.Bounds
	// Sample has the measurements since the previous sample.
	Sample = pool.Sample
	// Function is one function's part of a Sample.
	Function = pool.Function
	// Examined are the delays of some calls of a Function.
	Examined = pool.Examined
	// Spread shows how much the calls of a Function differ.
	Spread = pool.Spread
	// Kind is the measured behaviour of a function.
	Kind = profile.Kind
	// Level is the state that calls run under.
	Level = guard.Level
	// Call is a failed call.
	Call = guard.Call
	// Undone is a change that is reverted because calls failed under it.
	Undone = guard.Undone
)

// The kinds of functions.
const (
	KindUnknown  = profile.KindUnknown
	KindCPU      = profile.KindCPU
	KindBlocking = profile.KindBlocking
	KindAsync    = profile.KindAsync
	KindMixed    = profile.KindMixed
)

// Decision has the settings to use from now on, and the reason.
type Decision struct {
	Settings
	// Limits bounds the calls of a function in flight in each process. A function without an entry
	// is limited only by the settings.
	Limits map[string]int
	// Phase is one of the phases in the package doc.
	Phase string
	// Note is the reason, as text.
	Note string
	// Undone are the changes that are reverted because calls failed under them.
	Undone []Undone
}

// The phases; the package doc describes them.
const (
	PhaseStart     = "start"
	PhaseClimb     = "climb"
	PhaseTrim      = "trim"
	PhaseHold      = "hold"
	PhaseIdle      = "idle"
	PhaseDisturbed = "disturbed"
	PhaseMemory    = "memory"
	PhaseUndone    = "undone"
	PhaseExplicit  = "explicit"
)

// Phases lists all phases.
var Phases = []string{
	PhaseStart, PhaseClimb, PhaseTrim, PhaseHold, PhaseIdle, PhaseDisturbed, PhaseMemory, PhaseUndone, PhaseExplicit,
}

// plan is the settings and limits of a Decision.
type plan struct {
	Settings
	limits map[string]int
}

func (p plan) isEqual(q plan) bool { return p.Settings == q.Settings && maps.Equal(p.limits, q.limits) }

// rules are what every plan obeys.
type rules struct {
	bounds   Bounds // narrowed by the reverted changes
	profiles profile.Profiles
}

// makePlan returns settings within the bounds, with the limits that they need.
func (r rules) makePlan(s Sample, to Settings) plan {
	to = r.bounds.Clamp(to)
	return plan{to, r.profiles.Limits(s.Functions, s.Cores, to)}
}
