package measure

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

// This file lets auto find settings under the load of a grid, to compare them with the best cell:
// with the loops of a daemon, but without the results of earlier runs.

const (
	// Auto gets one autoShare-th of a run, between minAuto and maxAuto. It gets none if that is
	// more than half of the time.
	autoShare = 3
	minAuto   = 25 * time.Second
	maxAuto   = 45 * time.Second
	// autoSettle is the fraction of that time in which it finds its settings; the rest is
	// measured.
	autoSettle = 0.65
	// maxUndone bounds the text about a change that auto reverted, in characters.
	maxUndone = 1000
)

// autoTime returns how much of a run is for auto; 0 if that would be too short for a fair
// comparison.
func autoTime(length time.Duration) time.Duration {
	part := min(max(length/autoShare, minAuto), maxAuto)
	if part > length/2 {
		return 0
	}
	return part
}

// autoConfig returns the configuration of one function without any numbers.
func autoConfig(cfg *configs.Config, name, dataDir string) *configs.Config {
	out := configOf(cfg, name, tune.Settings{})
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
	out.Drain = configs.Duration(killGrace)
	return out
}

// runAuto runs auto for the time that is left, and adds its choice to the report.
func (t *gridRun) runAuto(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "drover-tune-")
	if err != nil {
		return fmt.Errorf("making a data directory for auto: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	load, own := newSource(t.Messages), autoConfig(t.Apps.Config, t.Function, dir)
	options := t.Apps
	options.Config = own
	f, err := apps.OpenStandalone(ctx, options, t.Function)
	if err != nil {
		return fmt.Errorf("it did not start: %w", err)
	}
	f.Trigger = load
	loops := &autoscale.Loops{
		Running: func() []*apps.Function { return []*apps.Function{f.Function} }, Config: func() *configs.Config { return own },
		Backlogs:  &autoscale.Backlogs{Request: func(ctx context.Context, _ string) (triggers.Backlog, error) { return load.Backlog(ctx) }},
		Decisions: new(autoscale.Decisions), Store: autoscale.OpenStore(dir, slog.New(slog.DiscardHandler)), Log: slog.New(slog.DiscardHandler),
	}
	loops.ScaleWorkers(own, f.AppPools())
	loops.TunePools(own, f.AppPools())
	r := &rig{f: f, source: load}
	r.startLoad(ctx)
	defer func() {
		t.endedCPU += f.Pool.CPU()
		err = errors.Join(err, r.endLoad(killGrace))
	}()
	left := time.Until(t.end) - closeTime
	settle := time.Duration(autoSettle * float64(left))
	c, _, err := r.measureCell(ctx, settle, left-settle-closeTime, t.countParts(left-settle-closeTime))
	if err != nil {
		return err
	}
	now := f.Pool.Settings()
	c.Settings = tune.Settings{Processes: f.Pool.Stats().Ready, Threads: now.Threads, Coroutines: now.Coroutines}
	if t.baseline.Async {
		c.Threads = 0
	} else {
		c.Coroutines = 0
	}
	if c.Problem != "" {
		return errors.New(c.Problem)
	}
	t.Report.Auto, t.Report.AutoFor = &c, t.autoTime.Seconds()
	for _, u := range f.Pool.TuningState().Undone {
		t.addNote("auto: %s", term.OneLine(u.Text(), maxUndone))
	}
	t.Print("auto: %v: %s calls/s, p99 %s, %.2f cores", c.Settings, tune.FormatNumber(c.Throughput), tune.FormatSeconds(c.P99), c.CPU)
	return nil
}

// compareAuto runs auto if there is time for it; otherwise it adds the reason to the report.
func (t *gridRun) compareAuto(ctx context.Context, timed context.Context) {
	switch {
	case ctx.Err() != nil:
		t.Report.NoAuto = "the run was stopped before"
		return
	case t.autoTime == 0:
		t.Report.NoAuto = fmt.Sprintf("there was no time for it; it needs at least --for %v", 2*minAuto)
		return
	}
	t.Print("auto: %.0f s, from nothing", time.Until(t.end).Seconds())
	if err := errors.Join(t.closeRig(t.drainTime(ctx)), t.runAuto(timed)); err != nil {
		t.Report.NoAuto = term.OneLine(err.Error(), 200)
		if ctx.Err() != nil {
			t.Report.NoAuto = "the run was stopped before"
		} else if timed.Err() != nil {
			t.Report.NoAuto = "the time ended before it was measured"
		}
	}
}
