package apps

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/worker"
)

// Status describes the worker processes of an app, in one instance or, added up, in all.
type Status struct {
	Ready    int                   `json:"ready"`
	Starting int                   `json:"starting"`
	Retiring int                   `json:"retiring"`
	Spare    int                   `json:"spare,omitempty"`
	Restarts map[process.Cause]int `json:"restarts"`
	StartUp  time.Duration         `json:"start_up"`
	// Spawned reports that each worker loads the code although it could be forked. Unforked is the
	// reason if forks are configured but not possible.
	Spawned  bool   `json:"spawned,omitempty"`
	Unforked string `json:"unforked,omitempty"`
	// Interpreter describes the interpreter that runs the code, with its version and origin.
	Interpreter string        `json:"interpreter,omitempty"`
	Usage       process.Usage `json:"usage"`
	// Waits are how long callbacks waited for the event loops; nil or empty without one.
	Waits *telemetry.Latencies `json:"waits"`
	// Blocked are the functions that block the event loops; "" is code of no message.
	Blocked map[string]workers.Blocked `json:"blocked,omitempty"`
	// Threaded lists the async functions that run in threads because they block.
	Threaded []string `json:"threaded,omitempty"`
	// Isolated is how many workers each isolated function has for itself.
	Isolated map[string]int `json:"apart,omitempty"`
	// Tuned has the results of the tuner; nil before it has measured.
	Tuned    *TuningState      `json:"tuned,omitempty"`
	Measures []worker.Measures `json:"measures,omitempty"`
}

// usageCache holds the resource usage of a pool's processes, since reading it takes a
// while. The zero value is empty.
type usageCache struct {
	mu   sync.Mutex
	at   time.Time
	last process.Usage
}

// readUsage returns the usage of a pool's processes, at most maxAge old.
func (u *usageCache) readUsage(p *workers.Pool, maxAge time.Duration) process.Usage {
	u.mu.Lock()
	defer u.mu.Unlock()
	if now := time.Now(); u.at.IsZero() || now.Sub(u.at) >= maxAge {
		u.at, u.last = now, p.Usage()
	}
	return u.last
}

// AppStatus describes the pool. The resource usage in it is at most usageAge old.
func (p *Pool) AppStatus(usageAge time.Duration) Status {
	s := p.Stats()
	return Status{
		Ready: s.Ready, Starting: s.Starting, Retiring: s.Retiring, Spare: s.Spare, Restarts: s.Restarts, StartUp: s.StartUp,
		Spawned: s.Forkable && !s.Template, Unforked: s.Unforked, Interpreter: p.interpreter.String(),
		Usage: p.usage.readUsage(p.Pool, usageAge), Waits: p.loopWaits.Snapshot(), Blocked: p.BlockStats(), Isolated: p.QuarantinedWorkers(), Threaded: p.ThreadedFunctions(),
		Tuned: p.TuningState(), Measures: p.Measures(),
	}
}

// minTemplateStartUp is the start-up time from which on a template is advised.
const minTemplateStartUp = 500 * time.Millisecond

// BlockedAdvice returns a sentence for each function that blocks the event loop.
func (s Status) BlockedAdvice() (out []string) {
	for _, name := range slices.Sorted(maps.Keys(s.Blocked)) {
		b := s.Blocked[name]
		if b.Times == 0 {
			continue
		}
		who := "function " + name
		if name == "" {
			who = "code of no message"
		}
		if n, is := s.Isolated[name]; is {
			who = fmt.Sprintf("function %s is isolated in its own worker processes (%d), because it", name, n)
		}
		if slices.Contains(s.Threaded, name) {
			who = fmt.Sprintf("function %s runs in threads, because it", name)
		}
		out = append(out, fmt.Sprintf("%s blocked the event loop %d times, at most for %v, at %s: %s",
			who, b.Times, b.Longest.Round(time.Millisecond), b.Place, b.Advice()))
	}
	return out
}

// SettingsAdvice returns a suggestion for better settings of the app; empty if there is none.
func (s Status) SettingsAdvice() string {
	switch {
	case s.Unforked != "":
		return "it has start: template, but each worker loads the code itself, since " + s.Unforked
	case s.Tuned != nil && s.Tuned.Advice != "":
		return s.Tuned.Advice
	case s.Spawned && s.StartUp >= minTemplateStartUp:
		return fmt.Sprintf("a worker takes %v to load the code; with start: template one takes milliseconds, and they share memory", s.StartUp.Round(100*time.Millisecond))
	}
	return ""
}

// Plus returns the sum of the status of two instances.
func (s Status) Plus(o Status) Status {
	sum := s
	sum.Ready += o.Ready
	sum.Starting += o.Starting
	sum.Retiring += o.Retiring
	sum.Spare += o.Spare
	sum.Restarts = make(map[process.Cause]int)
	for _, part := range []map[process.Cause]int{s.Restarts, o.Restarts} {
		for cause, n := range part {
			sum.Restarts[cause] += n
		}
	}
	sum.StartUp = max(s.StartUp, o.StartUp)
	sum.Spawned = s.Spawned || o.Spawned
	sum.Unforked = cmp.Or(s.Unforked, o.Unforked)
	sum.Interpreter = cmp.Or(s.Interpreter, o.Interpreter)
	sum.Usage.CPU += o.Usage.CPU
	sum.Usage.Known = s.Usage.Known || o.Usage.Known
	sum.Usage.Memory.Resident += o.Usage.Memory.Resident
	sum.Usage.Memory.Anonymous += o.Usage.Memory.Anonymous
	sum.Usage.Memory.Proportional += o.Usage.Memory.Proportional
	sum.Usage.Largest = max(s.Usage.Largest, o.Usage.Largest)
	sum.Waits = s.Waits.Plus(o.Waits)
	sum.Blocked = maps.Clone(s.Blocked)
	sum.Threaded = slices.Compact(slices.Sorted(slices.Values(slices.Concat(s.Threaded, o.Threaded))))
	sum.Isolated = maps.Clone(s.Isolated)
	for name, n := range o.Isolated {
		if sum.Isolated == nil {
			sum.Isolated = make(map[string]int)
		}
		sum.Isolated[name] += n
	}
	for name, b := range o.Blocked {
		if sum.Blocked == nil {
			sum.Blocked = make(map[string]workers.Blocked)
		}
		sum.Blocked[name] = sum.Blocked[name].Plus(b)
	}
	sum.Tuned = cmp.Or(s.Tuned, o.Tuned) // each instance measures separately, but all run the same code on the same machine
	if s.Tuned != nil && o.Tuned != nil && len(s.Tuned.Undone) == 0 && len(o.Tuned.Undone) > 0 {
		both := *s.Tuned
		both.Undone = o.Tuned.Undone
		sum.Tuned = &both
	}
	sum.Measures = worker.SumOf(s.Measures, o.Measures)
	return sum
}

// PastCounts returns the counts that remain when the processes have ended.
func (s Status) PastCounts() Status {
	return Status{Restarts: s.Restarts, Usage: process.Usage{CPU: s.Usage.CPU}, Waits: s.Waits, Blocked: s.Blocked, Measures: s.Measures}
}
