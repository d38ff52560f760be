package conformance

import (
	"fmt"
	"strings"
)

// Target is the worker that is tested.
type Target struct {
	Command []string // the program and its arguments
	Dir     string   // the working directory; empty: the current one
	Env     []string // its environment, as NAME=VALUE
	App     string   // the directory of the test app
	Module  string   // of the functions; MODULE_raises is the module that fails to load
	Modes   []string // of running functions: one, threads, async; none: all
}

// Verdict is how a check ended.
type Verdict string

// The verdicts.
const (
	Passed  Verdict = "passed"
	Failed  Verdict = "failed"
	Skipped Verdict = "skipped" // the worker does not have the capability
)

// Result is the outcome of a check.
type Result struct {
	Name    string  `json:"name"`
	Verdict Verdict `json:"verdict"`
	Seconds float64 `json:"seconds"`
	// Why is the violation, or the reason why the check was skipped.
	Why    string   `json:"why,omitempty"`
	Wanted string   `json:"wanted,omitempty"`
	Rule   string   `json:"rule,omitempty"` // a sentence of docs/worker-protocol.md
	Sent   []string `json:"sent,omitempty"` // the latest frames to it
	Came   []string `json:"came,omitempty"` // and from it
	Stderr []string `json:"stderr,omitempty"`
}

// check is one test of a worker.
type check struct {
	name  string
	joint bool   // it may share a process with other checks, since it has no side effects
	modes []mode // nil: the first that the worker supports
	needs string // a required capability; without it the check is skipped
	rule  string // the tested rule: a sentence of docs/worker-protocol.md
	run   func(*session)
}

// mode is a way of running functions.
type mode struct {
	name       string
	kind       string // of the functions
	threads    int
	coroutines int
}

var (
	one    = mode{name: "one", kind: "sync", threads: 1, coroutines: 1}
	pooled = mode{name: "threads", kind: "sync", threads: 4, coroutines: 1}
	async  = mode{name: "async", kind: "async", threads: 1, coroutines: 100}

	all    = []mode{one, pooled, async}
	shared = []mode{pooled, async} // in which calls run concurrently
)

// planned is a check in one mode.
type planned struct {
	check
	mode mode
	name string
}

// String returns the full result as text.
func (r Result) String() string {
	out := fmt.Sprintf("%-7s  %s  (%.1f s)", r.Verdict, r.Name, r.Seconds)
	for _, part := range []struct{ name, text string }{
		{"", r.Why}, {"wanted: ", r.Wanted}, {"rule: ", r.Rule},
		{"sent: ", strings.Join(r.Sent, "\n            ")}, {"came: ", strings.Join(r.Came, "\n            ")},
		{"stderr: ", strings.Join(r.Stderr, "\n            ")},
	} {
		if part.text != "" {
			out += "\n    " + part.name + part.text
		}
	}
	return out
}

// ruleClosed is the rule of several checks.
const ruleClosed = "ends at once: the daemon is gone"
