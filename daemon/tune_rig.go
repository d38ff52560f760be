package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/tune"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers"
)

// tuneRig is a function under load: its real pool, handler and dispatcher, and a tune.Source in
// the place of its queue. It has neither outputs nor traces.
type tuneRig struct {
	f      *apps.Alone
	source *tune.Source

	settings    tune.Settings
	failed      bool               // calls failed, and may have left something behind in the workers
	threads     int                // the configuration's, for settings that have none
	stopRun     context.CancelFunc // of the receiving
	stopWorking context.CancelFunc
	ended       chan struct{} // closed when all that was in flight has ended
}

const (
	// tuneKillGrace is how long a call has to obey when a run ends; the configuration's own
	// is for work that counts.
	tuneKillGrace = time.Second
	// tuneLook is how often a rig is looked at while something is waited for.
	tuneLook = 10 * time.Millisecond
)

// tuneConfig is the configuration of one function, with the settings and without all that
// reaches beyond it.
func tuneConfig(cfg *configs.Config, name string, s tune.Settings) *configs.Config {
	out := *cfg
	out.Traces = configs.Traces{}
	f := cfg.Functions[name]
	f.Output = nil
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
	app.KillGrace = min(app.KillGrace, configs.Duration(tuneKillGrace))
	out.Apps[code.App] = app
	return &out
}

// openRig starts the workers, and the load when all of them are ready.
func openRig(ctx context.Context, cfg *configs.Config, name string, s tune.Settings, source *tune.Source, std *IO) (rig *tuneRig, err error) {
	own := tuneConfig(cfg, name, s)
	f, err := apps.OpenAlone(ctx, std.appOptions(own), name)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	f.Trigger = source
	look := time.NewTicker(tuneLook)
	defer look.Stop()
	for f.Pool.Stats().Ready < s.Processes {
		select {
		case <-look.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("%d of %d workers were ready: %w", f.Pool.Stats().Ready, s.Processes, ctx.Err())
		}
	}
	rig = &tuneRig{f: f, source: source, settings: s, threads: cfg.Apps[f.App].Threads}
	rig.startLoad(ctx)
	return rig, nil
}

// startLoad starts the load.
func (r *tuneRig) startLoad(ctx context.Context) {
	r.ended = make(chan struct{})
	var receiving, working context.Context
	receiving, r.stopRun = context.WithCancel(context.WithoutCancel(ctx))
	working, r.stopWorking = context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(r.ended)
		_ = r.f.Run(receiving, working, context.WithoutCancel(ctx)) // a load error is in f
	}()
}

// appOptions are those of a function that is run under load, without a log.
func (std *IO) appOptions(cfg *configs.Config) apps.Options {
	return apps.Options{Config: cfg, Funcs: std.Funcs, Env: std.Env, Environ: std.Environ, Log: slog.New(slog.DiscardHandler)}
}

// live reports whether threads can change while workers run.
func (r *tuneRig) live() bool { return r.f.Pool.Tunable() }

// become changes the settings of the workers that run, and reports false where that can't be.
// Other numbers of processes are others: what those had in memory before would be in the way.
func (r *tuneRig) become(s tune.Settings) bool {
	threads := s.Threads
	if threads == 0 {
		threads = r.threads
	}
	now := r.f.Pool.Settings()
	if s.Processes != now.Processes || threads != now.Threads && !r.live() {
		return false
	}
	// Code that broke in threads may fail for that with fewer, too, in the same process.
	if r.failed && (threads < now.Threads || s.Coroutines < now.Coroutines) {
		return false
	}
	r.f.Pool.Set(workers.Settings{Threads: threads, Coroutines: s.Coroutines})
	r.settings = s
	return true
}

// calm waits until no more is in flight than there is room for: what began under other settings
// has ended then.
func (r *tuneRig) calm(ctx context.Context, patience time.Duration) bool {
	slots := r.f.Handler.(handlers.Slotted).Slots()
	enough := func() bool { return r.source.CountInFlight() <= slots.Capacity() }
	return r.wait(ctx, patience, enough) == nil && enough()
}

// close ends the load, waits for what is in flight for so long at most, cuts the rest short, and
// ends the workers.
func (r *tuneRig) close(patience time.Duration) error {
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

// measure lets the load settle, and then measures it.
func (r *tuneRig) measure(ctx context.Context, settle, length time.Duration) (tune.Cell, error) {
	c := tune.Cell{Settings: r.settings}
	if err := r.wait(ctx, settle, nil); err != nil {
		return c, err
	}
	r.source.OpenWindow(time.Now())
	err := r.count(ctx, &c, func() error { return r.wait(ctx, length, nil) })
	return c, err
}

// count fills a cell with what was measured while something was waited for.
func (r *tuneRig) count(ctx context.Context, c *tune.Cell, wait func() error) error {
	pool := r.f.Pool.Pool
	latency, used, began := r.f.Stats.Counts().Latency, pool.Usage(), time.Now()
	if err := wait(); err != nil {
		return err
	}
	now := pool.Usage()
	seconds := time.Since(began).Seconds()
	w, throughput, settled := r.source.CloseWindow(time.Now())
	took := r.f.Stats.Counts().Latency.Since(latency)
	c.Seconds, c.Calls, c.Failed, c.Throughput = seconds, w.Ended, w.Failed, throughput
	r.failed = r.failed || w.Failed > 0
	c.Unsettled = !settled && c.Calls > 0
	c.P50, c.P99 = took.Quantile(0.5).Seconds(), took.Quantile(0.99).Seconds()
	c.CPU = (now.CPU - used.CPU).Seconds() / seconds
	if c.Memory = now.Memory.Proportional; c.Memory == 0 {
		c.Memory = now.Memory.Resident
	}
	if c.Calls == 0 {
		c.Problem = fmt.Sprintf("no call ended within %.1f s", seconds)
		if err := r.f.LoadError(); err != nil {
			c.Problem = "its code does not load any more: " + err.Error()
		}
	}
	return ctx.Err()
}

// wait waits for so long, or until enough says that it is; nil never does.
func (r *tuneRig) wait(ctx context.Context, limit time.Duration, enough func() bool) error {
	late, look := time.NewTimer(limit), time.NewTicker(tuneLook)
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

// lastFailure is what the function said when it failed last; empty if it has not.
func (r *tuneRig) lastFailure() (why, detail string) {
	last, _ := r.f.LatestFailure("")
	return last.Error, last.Detail
}
