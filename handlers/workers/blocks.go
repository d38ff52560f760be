package workers

import (
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/drover-run/drover/handlers/workers/worker"
)

const (
	// A function is quarantined after maxBlocks blocks of leastCounted each within
	// blockWindow.
	leastCounted = 100 * time.Millisecond
	maxBlocks    = 3
	blockWindow  = time.Minute
	// maxPlaces bounds the places of a pool that are logged.
	maxPlaces = 1000
)

// garbage is the place of a block that is of no function: the worker's language looks
// for objects that nobody can reach any more.
const garbage = "the garbage collector"

// nodejs is the language of workers whose functions block in ways of their own.
const nodejs = "Node.js"

// Blocked is how a function has blocked the event loops of its workers.
type Blocked struct {
	Times   int64         `json:"times"`
	Time    time.Duration `json:"time"`    // of all of them together
	Longest time.Duration `json:"longest"` // of the one at
	Place   string        `json:"place"`
	// Computes says that the longest was computation, as opposed to waiting, and GIL
	// that it was C code which kept all threads from running.
	Computes bool `json:"computes,omitempty"`
	GIL      bool `json:"gil,omitempty"`
	// Language is the worker's; empty: Python.
	Language string `json:"language,omitempty"`
}

// Plus adds what is known of the same function elsewhere.
func (b Blocked) Plus(o Blocked) Blocked {
	sum := b
	if o.Longest > b.Longest {
		sum = o
	}
	sum.Times, sum.Time = b.Times+o.Times, b.Time+o.Time
	return sum
}

// Instead says what to do in place of blocking.
func (b Blocked) Instead() string {
	if b.Language == nodejs {
		if b.Computes {
			return "hand the computation to a worker_threads.Worker; on_blocked: isolate runs the function in a process of its own"
		}
		return "await the asynchronous form of the call (fs.promises, child_process.exec); on_blocked: isolate runs the function in a process of its own"
	}
	if b.Place == garbage {
		return "the more objects live the longer it takes: call gc.freeze() when what stays is loaded, raise gc.set_threshold, or have fewer coroutines in flight"
	}
	if b.Computes {
		return "make the function sync (def instead of async def), or hand the computation to loop.run_in_executor with a ProcessPoolExecutor; on_blocked: isolate runs it in a process of its own"
	}
	return "await an async library, or asyncio.sleep; or hand the call to loop.run_in_executor; on_blocked: isolate runs the function in a process of its own"
}

// blockedBy is what one block says of its function.
func blockedBy(r worker.BlockReport) Blocked {
	b := Blocked{Times: 1, Time: r.Time, Longest: r.Time, Place: r.Place, Computes: r.Computes, GIL: r.GIL}
	if r.Language == nodejs {
		b.Language = nodejs
	}
	return b
}

// blocks are those of a pool. The zero value has none.
type blocks struct {
	mu     sync.Mutex
	of     map[string]Blocked     // by function
	logged map[string]struct{}    // by function and place
	recent map[string][]time.Time // the last ones that count for a quarantine, by function
}

// byFunction returns what is known, by function.
func (b *blocks) byFunction() map[string]Blocked {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.of)
}

// count adds a block that is over. It reports whether its function is to be quarantined.
func (b *blocks) count(r worker.BlockReport, now time.Time) (often bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.of == nil {
		b.of, b.recent = make(map[string]Blocked), make(map[string][]time.Time)
	}
	b.of[r.Function] = b.of[r.Function].Plus(blockedBy(r))
	if r.Time < leastCounted || r.Function == "" {
		return false
	}
	recent := append(slices.Clone(b.recent[r.Function]), now)
	if len(recent) > maxBlocks {
		recent = recent[1:]
	}
	b.recent[r.Function] = recent
	return len(recent) == maxBlocks && now.Sub(recent[0]) <= blockWindow
}

// log logs a block if it is the first at its place.
func (b *blocks) log(r worker.BlockReport) {
	if !b.firstAt(r.Function + "\x00" + r.Place) {
		return
	}
	attrs := []any{slog.String("place", r.Place), slog.String("for", r.Time.Round(time.Millisecond).String())}
	if r.Function != "" {
		attrs = append(attrs, slog.String("function", r.Function), slog.String("message", r.Message))
	}
	attrs = append(attrs, slog.Bool("computes", r.Computes), slog.Bool("gil", r.GIL), slog.String("instead", blockedBy(r).Instead()))
	if r.Stack != "" {
		attrs = append(attrs, slog.String("stack", r.Stack))
	}
	what := "an async function blocks the event loop"
	if r.Function == "" {
		what = "the event loop is blocked"
	}
	r.Log.Warn(what+": other calls of its worker wait (logged once for each place)", attrs...)
}

func (b *blocks) firstAt(place string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.logged == nil {
		b.logged = make(map[string]struct{})
	}
	if _, known := b.logged[place]; known || len(b.logged) >= maxPlaces {
		return false
	}
	b.logged[place] = struct{}{}
	return true
}
