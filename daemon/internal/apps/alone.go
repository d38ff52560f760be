package apps

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/handlers/workers"
)

// Standalone is one function without a source. The caller gives it a trigger before it runs.
type Standalone struct {
	*Function
	set *Set
}

// OpenStandalone starts the workers of the function of a name, and waits until they have loaded
// its code. The configuration should have no other function, since all of its apps start.
// options.Running is ignored. ctx ends the start only.
func OpenStandalone(ctx context.Context, options Options, name string) (a *Standalone, err error) {
	var opened atomic.Pointer[Function]
	options.Running = func() []*Function {
		if f := opened.Load(); f != nil {
			return []*Function{f}
		}
		return nil // its workers are being started
	}
	settings := options.Config.Functions[name]
	made := &Standalone{Function: NewFunction(name, settings, options.Log.With("function", name)), set: NewSet(options, nil)}
	defer func() {
		if err != nil {
			err = errors.Join(err, made.Close())
		}
	}()
	if err := made.set.Start(ctx); err != nil {
		return nil, err
	}
	if err := made.set.OpenHandler(made.Function, settings); err != nil {
		return nil, fmt.Errorf("function %s: %w", name, err)
	}
	opened.Store(made.Function)
	return made, nil
}

// AppPools returns the pool of the function, by its app; empty if it has none.
func (a *Standalone) AppPools() map[string]*Pool { return a.set.AllPools() }

// Interrupt sends SIGINT to the workers, as Ctrl-C does in a terminal.
func (a *Standalone) Interrupt() {
	for _, p := range a.set.AllPools() {
		for _, group := range workers.GroupsOf(p.Pool, a.Name) {
			group.Interrupt()
		}
	}
}

// Close ends the workers and frees the function's resources. Nothing may be in flight.
func (a *Standalone) Close() error {
	a.set.ClosePools(nil, func(*Pool) {})
	err := a.Function.Close()
	a.set.CloseReaper(nil)
	return err
}

// StandaloneConfig returns the configuration of one function with one worker. Of the outputs only
// those with a name are left, since the function may send to them; nothing opens them.
func StandaloneConfig(cfg *configs.Config, name string) *configs.Config {
	out := *cfg
	f := cfg.Functions[name]
	f.Output = f.Output.OnlyNamed()
	out.Functions = map[string]configs.Function{name: f}
	out.Apps = maps.Clone(cfg.Apps)
	for name, app := range out.Apps {
		app.Processes, app.Scaled, app.Spare = 1, false, 0
		out.Apps[name] = app
	}
	return &out
}

// unlimited means no time limit, where a limit is required.
const unlimited = configs.Duration(365 * 24 * time.Hour)

// DebugConfig is StandaloneConfig without time limits, and with a worker that runs one call at a time
// on its main thread.
func DebugConfig(cfg *configs.Config, name string) *configs.Config {
	out := StandaloneConfig(cfg, name)
	f := out.Functions[name]
	f.Timeout = unlimited
	out.Functions[name] = f
	for name, app := range out.Apps {
		app.StartTimeout, app.Threads, app.Start, app.OnBlocked, app.Recycle = unlimited, 1, "", string(workers.BlockedOff), configs.Recycle{}
		out.Apps[name] = app
	}
	return out
}
