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
// at once.
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

import "time"

// Settings are the numbers that the Controller finds. The zero value means none yet.
type Settings struct {
	// Processes is the number of workers of the pool.
	Processes int `json:"processes"`
	// Threads is the number of sync calls that a worker runs at once, and the size of its executor.
	Threads int `json:"threads"`
	// Coroutines is the number of async calls that a worker has in flight.
	Coroutines int `json:"coroutines"`
}

// Bounds are the bounds of Settings, both inclusive. Where Least and Most are equal, the user set
// the number, or the worker cannot change it. All are at least 1.
type Bounds struct{ Least, Most Settings }

// Sample has the measurements since the previous sample; the caller takes one every 250 to 500 ms.
// During a search (start, climb, trim) every sample counts, and 250 ms find the settings in half
// the time of 500 ms. Otherwise they may be rarer. The first sample may come before any worker
// runs, with zero Settings and measurements, to request the first settings.
type Sample struct {
	// At is the time since some fixed moment, on a monotonic clock.
	At time.Duration
	// Settings are those in force: those of the last Decision, as far as they are applied.
	Settings Settings
	// Ready counts the workers that receive messages; not those that still start.
	Ready int
	// Cores is the number of usable cores: all, or the cgroup's quota. It may change between
	// samples.
	Cores float64
	// CPU, Daemon and Others are in cores: used by the pool's workers together, by the daemon
	// itself, and by everything else, including the daemon's other pools. 0 if unknown.
	CPU, Daemon, Others float64
	// RunQueue is how long the workers' threads waited for a core, in seconds per second; NaN if
	// unknown.
	RunQueue float64
	// Memory is the memory of the pool's workers, and MemoryLimit its limit, in bytes; 0 if
	// unknown.
	Memory, MemoryLimit uint64
	// Functions has an entry for each function of the pool, with or without calls.
	Functions []Function
}

// Function is one function's part of a Sample: the measurements since the previous one.
type Function struct {
	Name string
	// Async reports that the function runs on the event loop, so it needs coroutines. It is false
	// for an async function that was moved to threads.
	Async bool
	// Done counts the successful calls, and Failed those that failed.
	Done, Failed int64
	// Passed counts the calls that were dispatched since the last InForce, and succeeded.
	Passed int64
	// Saturated reports that the function had more work than slots during the whole interval.
	Saturated bool
	// InFlight is the mean number of calls in flight in the whole pool.
	InFlight float64
	// Limit bounds the calls in flight in the whole pool, by configuration or by the source; 0 is
	// none.
	Limit int
	// Timeout is the timeout of a call; 0 is none.
	Timeout time.Duration
	// Measured counts the calls whose CPU and held time were measured: all long ones, some short
	// ones.
	Measured int64
	// Wall, CPU and Held are sums over the Measured calls: the time from start to end, the CPU time
	// of the call's thread, and the time that the call occupied its thread.
	Wall, CPU, Held time.Duration
	// AllWall is the sum of the wall times over Done.
	AllWall time.Duration
	// Looks counts the samples that a worker's GIL sampler took while a call of the function ran,
	// and HeldGIL those in which the GIL was held for too long.
	Looks, HeldGIL int64
}

// Decision has the settings to use from now on, and the reason.
type Decision struct {
	Settings
	// Limits bounds the calls of a function in flight in each process. A function without an entry
	// is limited only by the settings.
	Limits map[string]int
	// Phase is one of the phases in the package doc.
	Phase string
	// Note is the reason, for people.
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
