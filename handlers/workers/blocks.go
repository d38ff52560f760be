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
	// A function is quarantined after maxBlocks blocks within blockWindow, each of at least
	// leastCounted.
	leastCounted = 100 * time.Millisecond
	maxBlocks    = 3
	blockWindow  = time.Minute
	// maxPlaces bounds the places of a pool that are logged.
	maxPlaces = 1000
)

// garbage is the place of a block that no function caused: the garbage collector of the worker's
// language ran.
const garbage = "the garbage collector"

// nodejs is the language of workers whose functions block for other reasons than in Python.
const nodejs = "Node.js"

// Blocked has statistics of a function that blocked the event loops of its workers.
type Blocked struct {
	Times   int64         `json:"times"`
	Time    time.Duration `json:"time"`    // total of all blocks
	Longest time.Duration `json:"longest"` // the longest block, at Place
	Place   string        `json:"place"`
	// Computes is set if the longest block was computation, not waiting. GIL is set if C code
	// kept all threads from running.
	Computes bool `json:"computes,omitempty"`
	GIL      bool `json:"gil,omitempty"`
	// Language is the worker's language; empty: Python.
	Language string `json:"language,omitempty"`
}

// Plus adds the statistics of the same function in other workers.
func (b Blocked) Plus(o Blocked) Blocked {
	sum := b
	if o.Longest > b.Longest {
		sum = o
	}
	sum.Times, sum.Time = b.Times+o.Times, b.Time+o.Time
	return sum
}

// Advice returns advice on how to avoid blocking.
func (b Blocked) Advice() string {
	if b.Language == nodejs {
		if b.Computes {
			return "hand the computation to a worker_threads.Worker; on_blocked: isolate runs the function in its own process"
		}
		return "await the asynchronous form of the call (fs.promises, child_process.exec); on_blocked: isolate runs the function in its own process"
	}
	if b.Place == garbage {
		return "it takes longer the more objects are alive: call gc.freeze() after loading long-lived objects, raise gc.set_threshold, or have fewer coroutines in flight"
	}
	if b.Computes {
		return "make the function sync (def instead of async def), or hand the computation to loop.run_in_executor with a ProcessPoolExecutor; on_blocked: isolate runs it in its own process"
	}
	return "await an async library, or asyncio.sleep; or hand the call to loop.run_in_executor; on_blocked: isolate runs the function in its own process"
}

// blockedBy returns the statistics of one block.
func blockedBy(r worker.BlockReport) Blocked {
	b := Blocked{Times: 1, Time: r.Time, Longest: r.Time, Place: r.Place, Computes: r.Computes, GIL: r.GIL}
	if r.Language == nodejs {
		b.Language = nodejs
	}
	return b
}

// blocks has the blocks of a pool. The zero value has none.
type blocks struct {
	mu     sync.Mutex
	byName map[string]Blocked     // by function
	logged map[string]struct{}    // by function and place
	recent map[string][]time.Time // the last ones that count towards a quarantine, by function
}

// byFunction returns the statistics by function.
func (b *blocks) byFunction() map[string]Blocked {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.byName)
}

// addBlock adds a block that has ended. It reports whether its function must be quarantined.
func (b *blocks) addBlock(r worker.BlockReport, now time.Time) (often bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.byName == nil {
		b.byName, b.recent = make(map[string]Blocked), make(map[string][]time.Time)
	}
	b.byName[r.Function] = b.byName[r.Function].Plus(blockedBy(r))
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

// logFirst logs a block if it is the first at its place.
func (b *blocks) logFirst(r worker.BlockReport) {
	if !b.firstAt(r.Function + "\x00" + r.Place) {
		return
	}
	attrs := []any{slog.String("place", r.Place), slog.String("for", r.Time.Round(time.Millisecond).String())}
	if r.Function != "" {
		attrs = append(attrs, slog.String("function", r.Function), slog.String("message", r.Message))
	}
	attrs = append(attrs, slog.Bool("computes", r.Computes), slog.Bool("gil", r.GIL), slog.String("instead", blockedBy(r).Advice()))
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
