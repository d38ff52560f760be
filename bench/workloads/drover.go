package workloads

import (
	"context"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon"
)

// This file has what the workloads ask of drover: explicit settings, and what auto has
// found.

// workloadsAppName is the app that all functions are of.
const workloadsAppName = "workloads"

// configure gives a configuration the functions, in one app, with explicit settings or
// with none. Nothing that an earlier run has learned is there.
func (b *bed) configure(c *configs.Config, functions map[string]configs.Function, s *settings) {
	app := configs.App{Path: b.Dir, OnBlocked: "warn"}
	if s != nil {
		app.Processes, app.Threads, app.Coroutines = s.Processes, s.Threads, s.Coroutines
	}
	b.runs++
	c.DataDir = filepath.Join(b.Dir, "daemon-"+strconv.Itoa(b.runs))
	c.Drain = configs.Duration(5 * time.Second) // thousands of messages may be in flight; they are not measured
	c.Apps = map[string]configs.App{workloadsAppName: app}
	c.Functions = functions
}

// seen is one status of a daemon.
type seen struct {
	Ready      int      `json:"ready"`
	Processes  int      `json:"processes"`
	Threads    int      `json:"threads"`
	Coroutines int      `json:"coroutines"`
	Phase      string   `json:"phase"`
	Note       string   `json:"note"`
	Kinds      []string `json:"kinds"` // by function; "-" is unknown
}

func see(d *daemon.Daemon, w workload) (s seen) {
	now := d.Report(context.Background())
	for _, a := range now.Apps {
		s = seen{Ready: a.Ready, Processes: a.Processes, Threads: a.Threads, Coroutines: a.Coroutines, Phase: a.Phase, Note: a.Note}
	}
	for _, name := range w.Functions {
		var kind *daemon.FunctionKind
		for _, f := range now.Functions {
			if f.Name == name {
				kind = f.Kind
			}
		}
		s.Kinds = append(s.Kinds, kind.Words())
	}
	return s
}

// isAsync reports whether a function of the app is async.
func isAsync(name string) bool {
	return strings.Contains(string(workloadsApp), "async def "+name+"(")
}

// lanes are the numbers that a plot shows below the throughput, for the functions of the report.
func (r *report) lanes() []lane {
	lanes := []lane{{"processes", func(p point) int { return p.Processes }}}
	sync, async := false, false
	for _, name := range r.Functions {
		sync, async = sync || !isAsync(name), async || isAsync(name)
	}
	if sync {
		lanes = append(lanes, lane{"threads", func(p point) int { return p.Threads }})
	}
	if async {
		lanes = append(lanes, lane{"coroutines", func(p point) int { return p.Coroutines }})
	}
	return lanes
}
