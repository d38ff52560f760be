// Package conformance drives the command of a worker through the wire protocol, as
// docs/worker-protocol.md has it, and says what it does wrong. `drover worker test`
// calls it, and the tests of each worker. Run may be called from many goroutines; it
// ends when all checks are done or its context ends, and leaves no process behind.
package conformance

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/drover-run/drover/handlers/childproc"
)

// Target is the worker that is tested.
type Target struct {
	Command []string // the program and its arguments
	Dir     string   // where it runs; empty: here
	Env     []string // its environment, as NAME=VALUE
	App     string   // the directory of the test app
	Module  string   // of the functions; MODULE_raises is the one that does not load
	Modes   []string // in which it runs functions: one, threads, async; none: all
}

// Options are how it is tested.
type Options struct {
	// Only picks checks by their name, with the mode: cancel/running[threads]; nil: all.
	Only *regexp.Regexp
	// Limit bounds each check; 0: 30 s.
	Limit time.Duration
	// Parallel is how many checks run at once; 0: two for each CPU.
	Parallel int
}

// Verdict is how a check ended.
type Verdict string

// The verdicts.
const (
	Passed  Verdict = "passed"
	Failed  Verdict = "failed"
	Skipped Verdict = "skipped" // the worker does not claim to be able to
)

// Result is what became of a check.
type Result struct {
	Name    string  `json:"name"`
	Verdict Verdict `json:"verdict"`
	Seconds float64 `json:"seconds"`
	// Why says what was wrong, or why the check was skipped.
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
	joint bool   // it may share a process with others, since it leaves nothing behind
	modes []mode // nil: the first that the worker has
	needs string // a capability of the worker, without which it is skipped
	rule  string // what it tests: a sentence of docs/worker-protocol.md
	run   func(*session)
}

// mode is a way in which a worker runs functions.
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
	shared = []mode{pooled, async} // where calls run side by side
)

// planned is a check in one of its modes.
type planned struct {
	check
	mode mode
	name string
}

// plan lists what is to be run for a target.
func plan(target Target, only *regexp.Regexp) (out []planned) {
	has := func(m mode) bool { return len(target.Modes) == 0 || slices.Contains(target.Modes, m.name) }
	for _, c := range checks() {
		modes, named := c.modes, true
		if modes == nil { // in the first that the worker has
			at := slices.IndexFunc(all, has)
			modes, named = all[max(at, 0):][:1], false
		}
		for _, m := range modes {
			p := planned{check: c, mode: m, name: c.name}
			if named {
				p.name = fmt.Sprintf("%s[%s]", c.name, m.name)
			}
			if has(m) && (only == nil || only.MatchString(p.name)) {
				out = append(out, p)
			}
		}
	}
	return out
}

func checks() (out []check) {
	for _, group := range []struct {
		checks []check
		joint  bool
	}{
		{helloChecks, false},
		{loadChecks, false},
		{invokeChecks, true},
		{resultChecks, true},
		{propertyChecks, true},
		{stateChecks, true},
		{logChecks, true},
		{cancelChecks, true},
		{orderChecks, false},
		{settingsChecks, false},
		{templateChecks, false},
		{drainChecks, false},
		{closeChecks, false},
		{wrongChecks, false},
	} {
		for _, c := range group.checks {
			c.joint = group.joint
			out = append(out, c)
		}
	}
	return out
}

// Names are those of all checks, in their order.
func Names(target Target) (out []string) {
	for _, p := range plan(target, nil) {
		out = append(out, p.name)
	}
	return out
}

// Run runs the checks and hands each result on, in the order of the checks, from one
// goroutine. The error is the context's.
func Run(ctx context.Context, target Target, options Options, report func(Result)) error {
	if options.Limit == 0 {
		options.Limit = 30 * time.Second
	}
	if options.Parallel == 0 {
		options.Parallel = 2 * runtime.GOMAXPROCS(0)
	}
	reaper := childproc.New(slog.New(slog.DiscardHandler)) // what it has to say, a check finds out
	defer reaper.Close()
	r := &runner{ctx: ctx, reaper: reaper, target: target, limit: options.Limit, todo: plan(target, options.Only)}
	next := make(chan []int)
	var running sync.WaitGroup
	for range r.todo {
		r.results = append(r.results, make(chan Result, 1))
	}
	for range options.Parallel {
		running.Go(func() {
			for some := range next {
				r.run(some)
			}
		})
	}
	running.Go(func() {
		defer close(next)
		for _, some := range r.processes() {
			next <- some
		}
	})
	for _, result := range r.results {
		if got := <-result; ctx.Err() == nil {
			report(got)
		}
	}
	running.Wait()
	return ctx.Err()
}

// verdict ends a check; session's methods panic with it, as testing's FailNow would.
type verdict struct {
	verdict           Verdict
	why, wanted, rule string
}

// String is the result in full, for people.
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
