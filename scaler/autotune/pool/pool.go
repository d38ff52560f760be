// Package pool has what the packages below autotune share: the settings of a pool of workers, their
// bounds, and the samples of its measurements.
package pool

import (
	"fmt"
	"math"
	"time"
)

// Settings are the numbers that the Controller finds. The zero value means none yet.
type Settings struct {
	// Processes is the number of workers of the pool.
	Processes int `json:"processes"`
	// Threads is the number of sync calls that a worker runs at once.
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
	// Settings are in force: from the last Decision, where they have been applied.
	Settings Settings
	// Ready counts the workers that receive messages; not those that still start.
	Ready int
	// Loading reports that workers load the code, which takes CPU time.
	Loading bool
	// Replacing reports that workers with an earlier share of the cores are still being replaced. How
	// many cores the libraries of a worker use depends on the number of processes.
	Replacing bool
	// Cores is the number of usable cores: all, or the cgroup's quota. It may change between
	// samples.
	Cores float64
	// CPU, Daemon and Others are in cores: used by the pool's workers together, by the daemon
	// itself, and by everything else, including the daemon's other pools. 0 if unknown.
	CPU, Daemon, Others float64
	// RunQueue is how long the workers' threads waited for a core, in seconds per second; NaN if
	// unknown.
	RunQueue float64
	// Stolen and Throttled are fractions of the time in which the pool was ready to run: those in
	// which the hypervisor ran others on its cores, and those in which its CPU quota was used up. 0
	// if unknown.
	Stolen, Throttled float64
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
	// Examined has the delays of some of the calls, and Spread how much the Measured calls differ.
	Examined Examined
	Spread   Spread
}

// Examined are sums over calls whose delays were measured; for async calls, over their steps. The
// zero value is none.
type Examined struct {
	// Wall is the time from start to end, CPU the part of it in which the call computed, and
	// Delayed the part in which it was ready to run and waited for a core.
	Wall, CPU, Delayed time.Duration
	// Locked is an estimate of the part in which it waited for the GIL, and LockedMost a bound.
	Locked, LockedMost time.Duration
}

// Spread are sums over calls that show how much the calls differ.
type Spread struct {
	// Log and LogSquares are of the natural logarithm of the CPU time in seconds, and of its square.
	Log, LogSquares float64
	// Shares is of the wall time times the square of the part of it in which the call computed, in
	// seconds.
	Shares float64
}

// Dim is one of the three dimensions of Settings.
type Dim int

// The dimensions.
const (
	Processes Dim = iota
	Threads
	Coroutines
)

// Dims lists the dimensions, the one whose reduction saves most first.
var Dims = []Dim{Processes, Coroutines, Threads}

func (d Dim) String() string { return [...]string{"processes", "threads", "coroutines"}[d] }

// Get returns the number of a dimension.
func (s Settings) Get(d Dim) int { return [...]int{s.Processes, s.Threads, s.Coroutines}[d] }

// With returns the settings with another number of a dimension.
func (s Settings) With(d Dim, n int) Settings {
	switch d {
	case Processes:
		s.Processes = n
	case Threads:
		s.Threads = n
	case Coroutines:
		s.Coroutines = n
	}
	return s
}

// Clamp returns the settings within the bounds.
func (b Bounds) Clamp(s Settings) Settings {
	for _, d := range Dims {
		s = s.With(d, min(max(s.Get(d), b.Least.Get(d)), b.Most.Get(d)))
	}
	return s
}

// Contains reports whether settings are within the bounds.
func (b Bounds) Contains(s Settings) bool { return b.Clamp(s) == s }

// IsFixed reports whether all numbers are set.
func (b Bounds) IsFixed() bool { return b.Least == b.Most }

// WholeCores returns how many processes fill that many cores.
func WholeCores(cores float64) int { return max(1, int(math.Ceil(cores-0.05))) }

// String returns the settings as text.
func (s Settings) String() string {
	return fmt.Sprintf("%s × %s × %s", count(s.Processes, "process", "processes"), count(s.Threads, "thread", "threads"), count(s.Coroutines, "coroutine", "coroutines"))
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
