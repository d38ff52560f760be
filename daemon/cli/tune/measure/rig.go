package measure

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/tune"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
)

// rig is a function under load: its real pool, handler and dispatcher, and a source instead of
// its queue. It has neither outputs nor traces.
type rig struct {
	f      *apps.Standalone
	source *source

	settings    tune.Settings
	failed      bool               // calls failed, and may have left state in the workers
	threads     int                // the configured number, for settings without one
	stopRun     context.CancelFunc // stops receiving
	stopWorking context.CancelFunc
	ended       chan struct{} // closed when all calls in flight have ended
}

const (
	// killGrace is how long a call may take to return when a run ends. The configured time is for
	// work that counts.
	killGrace = time.Second
	// pollInterval is the time between two checks of a condition of a rig.
	pollInterval = 10 * time.Millisecond
)

// configOf returns the configuration of one function with the settings, and without its traces. Of
// its outputs only those with a name are left, to which nothing is sent.
func configOf(cfg *configs.Config, name string, s tune.Settings) *configs.Config {
	out := *cfg
	out.Traces = configs.Traces{}
	f := cfg.Functions[name]
	f.Output = f.Output.OnlyNamed()
	out.Functions = map[string]configs.Function{name: f}
	out.Apps = maps.Clone(cfg.Apps)
	code, _ := f.Handler.Code()
	app := out.Apps[code.App]
	app.Processes, app.Scaled = s.Processes, false
	if s.Threads > 0 {
		app.Threads = s.Threads
	}
	if s.Coroutines > 0 {
		app.Coroutines = s.Coroutines
	}
	app.KillGrace = min(app.KillGrace, configs.Duration(killGrace))
	out.Apps[code.App] = app
	return &out
}

// openRig starts the workers, and the load when all of them are ready.
func openRig(ctx context.Context, options apps.Options, function string, messages []*triggers.Message, s tune.Settings) (_ *rig, err error) {
	cfg := options.Config
	options.Config = configOf(cfg, function, s)
	f, err := apps.OpenStandalone(ctx, options, function)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	load := newSource(messages)
	f.Trigger = load
	look := time.NewTicker(pollInterval)
	defer look.Stop()
	for f.Pool.Stats().Ready < s.Processes {
		select {
		case <-look.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("%d of %d workers were ready: %w", f.Pool.Stats().Ready, s.Processes, ctx.Err())
		}
	}
	r := &rig{f: f, source: load, settings: s, threads: cfg.Apps[f.App].Threads}
	r.startLoad(ctx)
	return r, nil
}

// startLoad starts the load.
func (r *rig) startLoad(ctx context.Context) {
	r.ended = make(chan struct{})
	var receiving, working context.Context
	receiving, r.stopRun = context.WithCancel(context.WithoutCancel(ctx))
	working, r.stopWorking = context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(r.ended)
		_ = r.f.Run(receiving, working, context.WithoutCancel(ctx)) // a load error is in f
	}()
}

// hasLiveThreads reports whether the number of threads can change while workers run.
func (r *rig) hasLiveThreads() bool { return r.f.Pool.IsTunable() }

// changeSettings changes the settings of the running workers, and returns false if that is not
// possible. Another number of processes needs new processes: the memory of the old ones would
// distort the measurement.
func (r *rig) changeSettings(s tune.Settings) bool {
	threads := s.Threads
	if threads == 0 {
		threads = r.threads
	}
	now := r.f.Pool.Settings()
	if s.Processes != now.Processes || threads != now.Threads && !r.hasLiveThreads() {
		return false
	}
	// Code that failed in many threads may continue to fail with fewer in the same process.
	if r.failed && (threads < now.Threads || s.Coroutines < now.Coroutines) {
		return false
	}
	r.f.Pool.ApplySettings(workers.Settings{Threads: threads, Coroutines: s.Coroutines})
	r.settings = s
	return true
}

// waitForSlots waits until no more calls are in flight than there are slots: calls of earlier
// settings have ended then.
func (r *rig) waitForSlots(ctx context.Context, patience time.Duration) bool {
	slots := r.f.Handler.(handlers.Slotted).Slots()
	enough := func() bool { return r.source.countInFlight() <= slots.Capacity() }
	return r.waitUntil(ctx, patience, enough) == nil && enough()
}

// endLoad stops receiving, waits for the calls in flight for at most that long, cancels the rest,
// and stops the workers.
func (r *rig) endLoad(patience time.Duration) error {
	r.stopRun()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case <-r.ended:
	case <-limit.C:
	}
	r.stopWorking()
	<-r.ended
	return r.f.Close()
}

// measureCell lets the load settle, and then measures it in parts of equal length.
func (r *rig) measureCell(ctx context.Context, settle, length time.Duration, parts int) (tune.Cell, *telemetry.Latencies, error) {
	c := tune.Cell{Settings: r.settings}
	if err := r.waitUntil(ctx, settle, nil); err != nil {
		return c, nil, err
	}
	took, err := r.countWhile(ctx, &c, parts, func() error { return r.waitUntil(ctx, length/time.Duration(parts), nil) })
	return c, took, err
}

// countWhile fills a cell with the measurements until wait has returned as often as there are parts.
// It returns the durations of the calls.
func (r *rig) countWhile(ctx context.Context, c *tune.Cell, parts int, wait func() error) (*telemetry.Latencies, error) {
	pool := r.f.Pool.Pool
	latency, used, began := r.f.Stats.ReadCounts().Latency, pool.Usage(), time.Now()
	unsettled, passed := 0, 0.0
	for range parts {
		from := time.Now()
		r.source.openWindow(from)
		if err := wait(); err != nil {
			return nil, err
		}
		to := time.Now()
		w, rate, settled := r.source.closeWindow(to)
		passed += rate * to.Sub(from).Seconds()
		c.Calls, c.Failed, c.Rates = c.Calls+w.ended, c.Failed+w.failed, append(c.Rates, rate)
		if !settled {
			unsettled++
		}
	}
	now := pool.Usage()
	seconds := time.Since(began).Seconds()
	took := r.f.Stats.ReadCounts().Latency.Since(latency)
	c.Seconds, c.Throughput = seconds, passed/seconds
	r.failed = r.failed || c.Failed > 0
	c.Unsettled = 2*unsettled > parts && c.Calls > 0
	c.P50, c.P99 = took.Quantile(0.5).Seconds(), took.Quantile(0.99).Seconds()
	c.CPU = (now.CPU - used.CPU).Seconds() / seconds
	if c.Memory = now.Memory.Proportional; c.Memory == 0 {
		c.Memory = now.Memory.Resident
	}
	if c.Calls == 0 {
		c.Problem = fmt.Sprintf("no call ended within %.1f s", seconds)
		if err := r.f.LoadError(); err != nil {
			c.Problem = "its code no longer loads: " + err.Error()
		}
	}
	return took, ctx.Err()
}

// waitUntil waits until the limit, or until enough returns true; enough may be nil.
func (r *rig) waitUntil(ctx context.Context, limit time.Duration, enough func() bool) error {
	late, look := time.NewTimer(limit), time.NewTicker(pollInterval)
	defer late.Stop()
	defer look.Stop()
	for {
		select {
		case <-late.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
			if enough != nil && enough() {
				return nil
			}
		}
	}
}

// lastFailure returns the error of the function's latest failure, and its traceback; both are
// empty if there is none.
func (r *rig) lastFailure() (why, detail string) {
	last, _ := r.f.LatestFailure("")
	return last.Error, last.Detail
}
