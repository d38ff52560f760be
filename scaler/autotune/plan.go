package autotune

import (
	"fmt"
	"maps"
	"math"
	"time"
)

// dim is one of the three dimensions of Settings.
type dim int

const (
	processes dim = iota
	threads
	coroutines
)

// dims lists the dimensions, the one whose reduction saves most first.
var dims = []dim{processes, coroutines, threads}

func (d dim) String() string { return [...]string{"processes", "threads", "coroutines"}[d] }

func (s Settings) get(d dim) int { return [...]int{s.Processes, s.Threads, s.Coroutines}[d] }

func (s Settings) with(d dim, n int) Settings {
	switch d {
	case processes:
		s.Processes = n
	case threads:
		s.Threads = n
	case coroutines:
		s.Coroutines = n
	}
	return s
}

// clamp returns the settings within the bounds.
func (b Bounds) clamp(s Settings) Settings {
	for _, d := range dims {
		s = s.with(d, min(max(s.get(d), b.Least.get(d)), b.Most.get(d)))
	}
	return s
}

// holds reports whether settings are within the bounds.
func (b Bounds) holds(s Settings) bool { return b.clamp(s) == s }

// fixed reports whether all numbers are set.
func (b Bounds) fixed() bool { return b.Least == b.Most }

// plan is the settings and limits of a Decision.
type plan struct {
	Settings
	limits map[string]int
}

func (p plan) equal(q plan) bool { return p.Settings == q.Settings && maps.Equal(p.limits, q.limits) }

const (
	// ioThreads is what the performance guide of Azure Functions adds to the cores for blocking
	// I/O.
	ioThreads = 4
	// manyCoroutines is the first number of coroutines for async functions; waiting costs little.
	manyCoroutines = 100
	// fewCoroutines is the same for a function that never awaits: one runs, and one is queued.
	fewCoroutines = 2
	// shortCall is the duration below which a process needs a second call, so that it never waits
	// for one.
	shortCall = 5 * time.Millisecond
)

// whole returns how many processes fill that many cores.
func whole(cores float64) int { return max(1, int(math.Ceil(cores-0.05))) }

// table returns the first settings for these functions, by their known kinds (docs/tuning.md).
func (n nature) table(functions []Function, cores float64, b Bounds) Settings {
	s := Settings{Processes: whole(cores), Threads: 1, Coroutines: 1}
	s.Processes = b.clamp(s).Processes
	for _, f := range functions {
		k := n.of(f.Name)
		switch {
		case k.Kind == KindUnknown:
		case f.Async && k.NeverAwaits:
			s.Coroutines = max(s.Coroutines, fewCoroutines)
		case f.Async:
			s.Coroutines = max(s.Coroutines, manyCoroutines)
			s.Threads = max(s.Threads, whole(cores)+ioThreads) // for its executor
		case k.Kind == KindBlocking:
			s.Threads = max(s.Threads, whole(cores)+ioThreads)
		case k.Kind == KindMixed, k.ReleasesGIL:
			s.Threads = max(s.Threads, int(math.Ceil(cores/math.Max(k.CPU, waiting)/float64(s.Processes))))
		}
	}
	return b.clamp(s)
}

// limits returns the limits of functions that compute, or whose kind is unknown, so that they do
// not occupy the slots of functions that wait: the calls in flight of each function in each
// process.
func (n nature) limits(functions []Function, cores float64, s Settings) map[string]int {
	var limits map[string]int
	for _, async := range []bool{false, true} {
		room, waits, known := s.Threads, false, false
		if async {
			room = s.Coroutines
		}
		for _, f := range functions {
			k := n.of(f.Name)
			waits = waits || f.Async == async && !computes(k)
			known = known || f.Async == async && k.Kind != KindUnknown
		}
		if !waits || !known || room < 2 {
			continue
		}
		for _, f := range functions {
			k := n.of(f.Name)
			// A function that may compute is limited, too.
			if doubtful := k.Sure < sure && k.Kind == KindMixed; f.Async != async || k.Kind != KindUnknown && !computes(k) && !doubtful {
				continue
			}
			most := 1
			if k.Kind != KindUnknown {
				most = max(1, int(math.Ceil(cores/float64(s.Processes)-0.05)))
				if n[f.Name].cpu < shortCall.Seconds() {
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

// computes reports that a function gains nothing by more calls at once.
func computes(k Kind) bool { return k.Kind == KindCPU || k.NeverAwaits }

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
