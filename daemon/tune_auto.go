package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/cli/tune"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/autoscale"
	"github.com/drover-run/drover/triggers"
)

// This file has auto find settings under the load of a grid, to be compared with its best: a
// daemon of one function, that remembers nothing of before.

const (
	// autoPart is the part of a run that is for auto, between autoLeast and autoMost; a run in
	// which that is more than half of the time has none.
	autoPart  = 3
	autoLeast = 25 * time.Second
	autoMost  = 45 * time.Second
	// autoSettle is the part of that in which it finds its settings; the rest is measured.
	autoSettle = 0.65
)

// autoTime is how much of a run is for auto; 0 is too little to be fair.
func autoTime(length time.Duration) time.Duration {
	part := min(max(length/autoPart, autoLeast), autoMost)
	if part > length/2 {
		return 0
	}
	return part
}

// autoConfig is the configuration of one function for which nobody gave a number.
func autoConfig(cfg *configs.Config, name, dataDir string) *configs.Config {
	out := tuneConfig(cfg, name, tune.Settings{})
	code, _ := out.Functions[name].Handler.Code()
	app := out.Apps[code.App]
	app.Processes, app.Scaled = runtime.GOMAXPROCS(0), true
	app.AutoCoroutines = true
	if code.Language != configs.Node {
		app.Threads, app.AutoThreads = 1, true
	}
	out.Apps[code.App] = app
	out.DataDir = dataDir
	out.Admin, out.Probes = configs.Admin{Listen: "off"}, configs.Probes{}
	out.Scale.Instances = configs.Instances{Min: 1, Max: 1}
	out.Drain = configs.Duration(tuneKillGrace)
	return out
}

// auto runs auto for the time that is left, and puts what it chose into the report.
func (t *gridRun) auto(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "drover-tune-")
	if err != nil {
		return fmt.Errorf("making a data directory for auto: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	source, own := tune.NewSource(t.messages), autoConfig(t.cfg, t.name, dir)
	f, err := apps.OpenAlone(ctx, t.std.appOptions(own), t.name)
	if err != nil {
		return fmt.Errorf("it did not start: %w", err)
	}
	f.Trigger = source
	loops := &autoscale.Loops{
		Running: func() []*apps.Function { return []*apps.Function{f.Function} }, Config: func() *configs.Config { return own },
		Backlogs:  &autoscale.Backlogs{Ask: func(ctx context.Context, _ string) (triggers.Backlog, error) { return source.Backlog(ctx) }},
		Decisions: new(autoscale.Decisions), Store: autoscale.OpenStore(dir, slog.New(slog.DiscardHandler)), Log: slog.New(slog.DiscardHandler),
	}
	loops.ScaleWorkers(own, f.AppPools())
	loops.TunePools(own, f.AppPools())
	r := &tuneRig{f: f, source: source}
	r.startLoad(ctx)
	defer func() {
		t.used += f.Pool.CPU()
		err = errors.Join(err, r.close(tuneKillGrace))
	}()
	left := time.Until(t.end) - tuneClose
	settle := time.Duration(autoSettle * float64(left))
	c, err := r.measure(ctx, settle, left-settle-tuneClose)
	if err != nil {
		return err
	}
	now := f.Pool.Settings()
	c.Settings = tune.Settings{Processes: f.Pool.Stats().Ready, Threads: now.Threads, Coroutines: now.Coroutines}
	switch {
	case !t.look.Async:
		c.Coroutines = 0
	case !t.look.Executor && len(t.asked.Threads) == 0:
		c.Threads = 0
	}
	if c.Problem != "" {
		return errors.New(c.Problem)
	}
	t.report.Auto, t.report.AutoFor = &c, t.forAuto.Seconds()
	for _, u := range f.Pool.Tuned().Undone {
		t.note("auto: %s", term.OneLine(u.Text(), maxUndone))
	}
	t.say("auto: %v: %s calls/s, p99 %s, %.2f cores", c.Settings, tune.Number(c.Throughput), tune.Seconds(c.P99), c.CPU)
	return nil
}

// compare has auto run, if there is time for it, and notes why there is nothing to compare.
func (t *gridRun) compare(ctx context.Context, timed context.Context) {
	switch {
	case ctx.Err() != nil:
		t.report.NoAuto = "the run was stopped before"
		return
	case t.forAuto == 0:
		t.report.NoAuto = fmt.Sprintf("there was no time for it, which takes --for %v at least", 2*autoLeast)
		return
	}
	t.say("auto: %.0f s, from nothing", time.Until(t.end).Seconds())
	if err := errors.Join(t.drop(t.patience(ctx)), t.auto(timed)); err != nil {
		t.report.NoAuto = term.OneLine(err.Error(), 200)
		if ctx.Err() != nil {
			t.report.NoAuto = "the run was stopped before"
		} else if timed.Err() != nil {
			t.report.NoAuto = "the time was up before it was measured"
		}
	}
}
