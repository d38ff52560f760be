// Package autotune finds out by measurement how many processes, threads and
// coroutines one pool of workers should have, for all its functions together, and
// of what kind each function is.
//
// A Controller is told by Look what was measured since the look before, and answers
// with the settings to have from now on. It has neither a clock nor a way out of the
// process; whoever calls it applies what it decides, and tells with the next Sample
// what is in force. It is used by one goroutine at a time. It starts with what it
// Learned in an earlier life, or with a table by kind, and climbs from there: each
// step is measured against what was before and undone if it gained too little.
//
// Failed reports each failed call. Failures that a change of settings causes have the
// change undone, at once.
//
// What counts is the mean of the logarithms of the rates of those functions that
// have more to do than room for it: no function can starve for another's sake.
//
// The phases, as Decision.Phase has them:
//
//	start     nothing is measured yet: the table, or what was remembered
//	climb     a step up is being tried
//	trim      a step down is being tried: less for the same throughput
//	hold      nothing is to be gained; watching for changes
//	idle      there is room for all there is to do, so nothing can be learned about more
//	disturbed others use the machine differently than before; nothing is decided now
//	memory    stepped down, as memory is short
//	undone    the last change is undone, since calls failed right after it; it is being checked whether it was the cause
//	explicit  every number is given; nothing is ever changed
package autotune

import "time"

// Settings are the numbers that are sought. The zero value is "none yet".
type Settings struct {
	// Processes is how many workers the pool has.
	Processes int `json:"processes"`
	// Threads is how many sync calls a worker runs at once, and the size of its
	// event loop's executor.
	Threads int `json:"threads"`
	// Coroutines is how many async calls a worker has in flight.
	Coroutines int `json:"coroutines"`
}

// Bounds are what settings are kept within, both ends included. Where Least and
// Most are equal the number is given, or the worker cannot change it. All are at
// least 1.
type Bounds struct{ Least, Most Settings }

// Sample is what was measured since the sample before; one comes every 250 to
// 500 ms. While something is being tried (start, climb, trim) each sample counts, and
// 250 ms find the settings in half the time; else they may be rarer. The first may come before there is a worker, with its Settings and
// measures zero, to be told with what to start.
type Sample struct {
	// At counts from some fixed moment, on a clock that does not jump.
	At time.Duration
	// Settings are those in force: what the last Decision wanted, as far as it is done.
	Settings Settings
	// Ready counts the workers that take messages; fewer than Settings.Processes while
	// some start.
	Ready int
	// Cores is how many may be used: those there are, or the cgroup's quota. It may
	// change from sample to sample.
	Cores float64
	// CPU is how many cores the pool's workers used together, Daemon what the daemon
	// itself used, and Others what everything else did, the daemon's other pools among
	// it. 0 where unknown.
	CPU, Daemon, Others float64
	// RunQueue is for how many seconds, in each, the workers' threads were ready to run
	// and waited for a core; NaN where unknown.
	RunQueue float64
	// Memory is what the pool's workers take together, and MemoryLimit what they may,
	// in bytes; 0 where unknown.
	Memory, MemoryLimit uint64
	// Functions has each function of the pool, with or without calls.
	Functions []Function
}

// Function is one function's part of a Sample: what happened since the one before.
type Function struct {
	Name string
	// Async says that it runs on the event loop, so that coroutines are what it takes;
	// an async function that was moved to threads is not.
	Async bool
	// Done counts the calls that passed, and Failed those that failed.
	Done, Failed int64
	// Passed counts the calls that were handed out since InForce was called last, and passed.
	Passed int64
	// Saturated says that there was more to do than room for it, all the while.
	Saturated bool
	// InFlight is how many were, on average, in the whole pool.
	InFlight float64
	// Limit is how many may be in the whole pool, by the user's word or by the locks of
	// the source; 0 is no limit.
	Limit int
	// Timeout is that of a call; 0 is none.
	Timeout time.Duration
	// Measured counts the calls whose CPU and held time were measured: all long ones,
	// one of many short ones.
	Measured int64
	// Wall, CPU and Held are sums over the Measured: from the call's start to its end,
	// of its thread's clock, and for how long it had its thread.
	Wall, CPU, Held time.Duration
	// AllWall is the sum of the walls over Done.
	AllWall time.Duration
	// Looks counts how often a worker was looked at while a call of it ran, and HeldGIL
	// at how many of those the GIL was held for too long.
	Looks, HeldGIL int64
}

// Decision is what there should be from now on, and why.
type Decision struct {
	Settings
	// Limits is how many of a function may be in flight in each process; a function
	// that is absent has no other limit than the settings.
	Limits map[string]int
	// Phase is one of those in the package's table.
	Phase string
	// Note says why, for people.
	Note string
	// Undone are the changes that are undone since calls failed under them.
	Undone []Undone
}

// The phases; the package's doc tells what they mean.
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

// Phases are all of them.
var Phases = []string{
	PhaseStart, PhaseClimb, PhaseTrim, PhaseHold, PhaseIdle, PhaseDisturbed, PhaseMemory, PhaseUndone, PhaseExplicit,
}
