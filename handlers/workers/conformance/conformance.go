// Package conformance tests a worker's command against the wire protocol in
// docs/worker-protocol.md, and reports each violation. `drover worker test` calls it, and so do
// the tests of each built-in worker. Run is safe for concurrent use. It returns when all checks
// have ended, or its context has, and leaves no processes behind.
package conformance

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/drover-run/drover/handlers/childproc"
)

// Options select the checks, and bound their time and number.
type Options struct {
	// Only matches the names of the checks to run, with the mode: cancel/running[threads]; nil: all.
	Only *regexp.Regexp
	// Limit bounds each check; 0: 30 s.
	Limit time.Duration
	// Parallel bounds the concurrent checks; 0: two for each CPU.
	Parallel int
}

// planChecks returns the checks to run for a target, in the order of their results.
func planChecks(target Target, only *regexp.Regexp) (out []planned) {
	has := func(m mode) bool { return len(target.Modes) == 0 || slices.Contains(target.Modes, m.name) }
	for _, c := range allChecks() {
		modes, named := c.modes, true
		if modes == nil { // the first that the worker supports
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

func allChecks() (out []check) {
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
		{batchChecks, false},
		{logChecks, true},
		{cancelChecks, true},
		{orderChecks, false},
		{settingsChecks, false},
		{profileChecks, false},
		{outputChecks, false},
		{streamChecks, false},
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

// CheckNames returns the names of all checks for a target, in the order of their results.
func CheckNames(target Target) (out []string) {
	for _, p := range planChecks(target, nil) {
		out = append(out, p.name)
	}
	return out
}

// Run runs the checks concurrently, and calls report with each result, in the order of CheckNames,
// on the caller's goroutine. The error is the context's.
func Run(ctx context.Context, target Target, options Options, report func(Result)) error {
	if options.Limit == 0 {
		options.Limit = 30 * time.Second
	}
	if options.Parallel == 0 {
		options.Parallel = 2 * runtime.GOMAXPROCS(0)
	}
	reaper := childproc.New(slog.New(slog.DiscardHandler)) // the checks detect errors themselves
	defer reaper.Close()
	r := &runner{ctx: ctx, reaper: reaper, target: target, limit: options.Limit, todo: planChecks(target, options.Only)}
	next := make(chan []int)
	var running sync.WaitGroup
	for range r.todo {
		r.results = append(r.results, make(chan Result, 1))
	}
	for range options.Parallel {
		running.Go(func() {
			for some := range next {
				r.runGroup(some)
			}
		})
	}
	running.Go(func() {
		defer close(next)
		for _, some := range r.groupChecks() {
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
