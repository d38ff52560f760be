package profile

import (
	"math"
	"slices"
	"time"

	"github.com/drover-run/drover/scaler/autotune/pool"
)

const (
	// ioThreads is what the performance guide of Azure Functions adds to the cores for blocking
	// I/O.
	ioThreads = 4
	// manyCoroutines is the first number of coroutines for async functions; waiting costs little.
	manyCoroutines = 100
	// FewCoroutines is the same for a function that never awaits: one runs, and one is queued.
	FewCoroutines = 2
	// ShortCall is the duration below which a process needs a second call, so that it never waits
	// for one.
	ShortCall = 5 * time.Millisecond
)

// FirstSettings returns the first settings for these functions, by their known kinds
// (docs/tuning.md).
func (n Profiles) FirstSettings(functions []pool.Function, cores float64, b pool.Bounds) pool.Settings {
	s := pool.Settings{Processes: pool.WholeCores(cores), Threads: 1, Coroutines: 1}
	s.Processes = b.Clamp(s).Processes
	for _, f := range functions {
		k := n.Of(f.Name)
		switch {
		case k.Kind == KindUnknown:
		case f.Async && k.NeverAwaits:
			s.Coroutines = max(s.Coroutines, FewCoroutines)
		case f.Async:
			s.Coroutines = max(s.Coroutines, manyCoroutines)
		case k.Kind == KindBlocking:
			s.Threads = max(s.Threads, pool.WholeCores(cores)+ioThreads)
		case k.Kind == KindMixed, k.ReleasesGIL:
			s.Threads = max(s.Threads, int(math.Ceil(cores/math.Max(k.CPU, waiting)/float64(s.Processes))))
		}
	}
	return b.Clamp(s)
}

// Limits returns the limits of functions that compute, or whose kind is unknown, so that they do
// not occupy the slots of functions that wait: the calls in flight of each function in each
// process.
func (n Profiles) Limits(functions []pool.Function, cores float64, s pool.Settings) map[string]int {
	var limits map[string]int
	for _, async := range []bool{false, true} {
		room, waits, known := s.Threads, false, false
		if async {
			room = s.Coroutines
		}
		for _, f := range functions {
			k := n.Of(f.Name)
			waits = waits || f.Async == async && !k.Computes()
			known = known || f.Async == async && k.Kind != KindUnknown
		}
		if !waits || !known || room < 2 {
			continue
		}
		for _, f := range functions {
			k := n.Of(f.Name)
			// A function that may compute is limited, too, while it delays others. On its own it needs
			// all slots: with two, short calls reached half the throughput of 64 in flight.
			doubtful := k.Sure < sure && k.Kind == KindMixed && hasActiveNeighbor(functions, f)
			if f.Async != async || k.Kind != KindUnknown && !k.Computes() && !doubtful {
				continue
			}
			most := 1
			if k.Kind != KindUnknown {
				most = max(1, int(math.Ceil(cores/float64(s.Processes)-0.05)))
				if n[f.Name].cpu < ShortCall.Seconds() {
					most++
				}
			}
			if most < room {
				if limits == nil {
					limits = map[string]int{}
				}
				limits[f.Name] = most
			}
		}
	}
	return limits
}

// hasActiveNeighbor reports whether another function is currently using the same slots.
func hasActiveNeighbor(functions []pool.Function, f pool.Function) bool {
	return slices.ContainsFunc(functions, func(other pool.Function) bool {
		return other.Name != f.Name && other.Async == f.Async && (other.Saturated || other.Done > 0 || other.InFlight > 0.01)
	})
}
