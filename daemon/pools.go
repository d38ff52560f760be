package daemon

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/dispatch"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/interpreters"
	"github.com/drover-run/drover/handlers/sandbox"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

// This file starts the pools of worker processes, one for each app.

// startLimit bounds the loading of the code of all apps.
func startLimit(cfg *configs.Config) time.Duration {
	limit := 2 * time.Minute
	for _, app := range cfg.Apps {
		limit = max(limit, app.StartTimeout.D())
	}
	return limit
}

// pool is the worker processes of one app.
type pool struct {
	*workers.Pool
	interpreter interpreters.Interpreter
	confinement *sandbox.Confinement
	waits       telemetry.Histogram // for the event loops of its workers
	usage       usage
	code        *interpreters.Code // the state of the app's files that its workers have loaded
	imports     *interpreters.Imports
	life        context.Context
	stop        context.CancelFunc
	running     sync.WaitGroup
	scaled      bool                           // whether its number of workers follows the load
	tuner       atomic.Pointer[tuner]          // nil until it runs
	epoch       atomic.Pointer[dispatch.Epoch] // of the calls that are handed out now; nil until settings are sought
	most        atomic.Int64                   // how many workers it may have, by measure; 0 while nothing is
	pressed     atomic.Bool                    // whether there is more to do than room for it
}

// close stops the processes, and waits until they have ended.
func (own *pool) close() {
	own.stop()
	own.running.Wait()
}

// callFailed records a call that failed while the tuner tries settings. It reports whether the
// message is released, without using an attempt.
func (own *pool) callFailed(call dispatch.FailedCall) (release bool) {
	return own.tuner.Load().failed(call)
}

// startPools starts one pool for each app that a function uses, and waits until
// each has loaded its code.
func (p *parts) startPools(ctx context.Context) error {
	functions := appFunctions(p.cfg)
	if results := p.daemon.results; results != nil {
		for _, of := range functions {
			for i := range of {
				of[i].Results = *results
			}
		}
	}
	if len(functions) > 0 {
		p.startsProcesses() // meanwhile the interpreters are looked for
	}
	for _, app := range slices.Sorted(maps.Keys(functions)) {
		code := languages[p.cfg.Apps[app].Language].code(p.cfg.Apps[app].Dir)
		if p.keepsPool(app, code) {
			p.pools[app] = p.old.pools[app]
			continue
		}
		own, err := p.startPool(ctx, app, functions[app])
		if err != nil {
			return fmt.Errorf("app %s: %w", app, err)
		}
		own.code = code
		p.pools[app] = own
	}
	for app, own := range p.pools {
		if err := own.Ready(ctx); err != nil {
			return fmt.Errorf("app %s, with %v: %w", app, own.interpreter, err)
		}
	}
	return nil
}

// appFunctions are the functions that workers are told of, by app.
func appFunctions(cfg *configs.Config) map[string][]workers.Function {
	out := make(map[string][]workers.Function)
	for _, name := range slices.Sorted(maps.Keys(cfg.Functions)) {
		if c, found := cfg.Functions[name].Handler.Code(); found {
			bus := cfg.Functions[name].Trigger.ServiceBus
			f := workers.Function{Name: name, Module: c.Module, Function: c.Function, SessionState: bus != nil && bus.SessionState}
			if len(cfg.Functions[name].Output) == 0 {
				f.Results = protocol.Dropped
			}
			out[c.App] = append(out[c.App], f)
		}
	}
	return out
}

func (p *parts) startPool(ctx context.Context, app string, functions []workers.Function) (*pool, error) {
	d, settings := p.daemon, p.cfg.Apps[app]
	of := languages[settings.Language]
	interpreter, err := of.find(ctx, settings, d.env)
	if err != nil {
		return nil, err
	}
	own := &pool{interpreter: interpreter, imports: interpreters.NewImports(settings.Dir)}
	var command process.Command
	if own.confinement, command, err = confineApp(ctx, settings, p.cfg.DataDir, interpreter, d.environ(), d.log.With("app", app)); err != nil {
		return nil, err
	}
	own.Pool = workers.New(workers.Config{
		App:       settings.Dir,
		Command:   command,
		Settings:  workers.Settings{Processes: first(settings, p.cfg.Scale.Workers), Threads: settings.Threads, Coroutines: settings.Coroutines},
		Functions: functions,

		Template:     settings.Start == "template",
		StartTimeout: settings.StartTimeout.D(),
		KillGrace:    settings.KillGrace.D(),
		Recycle: workers.Recycle{
			MaxInvocations: settings.Recycle.MaxInvocations, MaxMemory: uint64(settings.Recycle.MaxMemory),
			MaxAge: settings.Recycle.MaxAge.D(), MaxIdle: settings.Recycle.MaxIdle.D(),
		},
		OnBlocked: workers.OnBlocked(settings.OnBlocked),
		Observers: workers.Observers{
			Moved: func(function string, to *handlers.Slots) {
				d.moveShare(own, function, to)
				own.tuner.Load().moved()
			},
			Died:     dispatch.ReportWorkerDied,
			Lagged:   own.waits.Add,
			Imported: own.imports.Add,
		},
		Reaper: p.startsProcesses(), Confine: own.confinement, Log: d.log,
	})
	own.life, own.stop = context.WithCancel(context.WithoutCancel(ctx))
	own.running.Go(func() {
		if err := own.Run(own.life); err != nil {
			d.log.Error("a pool of workers ended", "app", app, "error", err)
		}
		if err := own.confinement.Close(); err != nil {
			d.log.Warn("some resources of workers were not removed; the next daemon removes them", "app", app, "error", err)
		}
	})
	return own, nil
}

// moveShare gives a function of a pool its room elsewhere.
func (d *Daemon) moveShare(own *pool, function string, to *handlers.Slots) {
	for _, f := range d.running() {
		if f.pool == own && f.Name == function {
			f.Share.Move(to)
		}
	}
}

// first is how many workers an app begins with: one finds out whether its code
// loads.
func first(app configs.App, bounds configs.Workers) int {
	if app.Scaled {
		return min(max(bounds.Min, 1), app.Processes)
	}
	return app.Processes
}
