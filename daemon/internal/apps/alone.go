package apps

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"

	"github.com/drover-run/drover/configs"
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

// Close ends the workers and frees what the function holds. Nothing may be in flight.
func (a *Standalone) Close() error {
	a.set.ClosePools(nil, func(*Pool) {})
	err := a.Function.Close()
	a.set.CloseReaper(nil)
	return err
}

// StandaloneConfig returns the configuration of one function with one worker and no output.
func StandaloneConfig(cfg *configs.Config, name string) *configs.Config {
	out := *cfg
	f := cfg.Functions[name]
	f.Output = nil
	out.Functions = map[string]configs.Function{name: f}
	out.Apps = maps.Clone(cfg.Apps)
	for name, app := range out.Apps {
		app.Processes, app.Scaled = 1, false
		out.Apps[name] = app
	}
	return &out
}
