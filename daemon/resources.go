package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/dispatch"
	"github.com/drover-run/drover/daemon/internal/sources"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

const (
	// closeLimit bounds the closing of a trigger.
	closeLimit = 10 * time.Second
)

// resources is what a daemon has open of one configuration, by name. A reload opens the
// resources of the new configuration, which reuse what did not change.
type resources struct {
	daemon *Daemon
	cfg    *configs.Config
	old    *resources // may be reused; nil at the start

	functions map[string]*apps.Function
	sources   map[string]triggers.Trigger // by function, if instances do the work
	apps      *apps.Set                   // the worker processes
	shared    *sources.Set                // resources that triggers and outputs share
}

func newResources(d *Daemon, cfg *configs.Config, old *resources) *resources {
	p := &resources{
		daemon: d, cfg: cfg, old: old,
		functions: make(map[string]*apps.Function), sources: make(map[string]triggers.Trigger),
	}
	var oldApps *apps.Set
	var earlier *sources.Set
	if old != nil {
		oldApps, earlier = old.apps, old.shared
	}
	p.shared = sources.New(sources.Config{Settings: cfg, Parent: d.parent, Started: d.started, Stores: &d.stores.Stores, Log: d.log}, d.connections, earlier)
	p.apps = apps.NewSet(apps.Options{
		Config: cfg, Funcs: d.funcs, Env: d.env, Environ: d.environ, Running: d.runningFunctions, Log: d.log,
	}, oldApps)
	return p
}

// openAll opens everything, starting with what takes long and fails often.
func (p *resources) openAll(ctx context.Context) error {
	if err := p.openConnections(ctx); err != nil {
		return err
	}
	if err := p.apps.Start(ctx); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(p.cfg.Functions)) {
		if p.canReuseFunction(name) {
			p.functions[name] = p.old.functions[name]
			continue
		}
		if err := p.openFunction(ctx, name, p.cfg.Functions[name]); err != nil {
			return fmt.Errorf("function %s: %w", name, err)
		}
	}
	return nil
}

// openConnections opens the connections that functions use.
func (p *resources) openConnections(ctx context.Context) error {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(p.cfg.Functions)) {
		for _, connection := range p.cfg.Functions[name].Connections() {
			if p.daemon.triggers[name] != nil && connection == p.cfg.Functions[name].Trigger.ConnectionName() {
				continue // the program's own
			}
			names = append(names, connection)
		}
	}
	return p.shared.OpenConnections(ctx, names)
}

// sortedFunctions returns the functions in the order of their names.
func (p *resources) sortedFunctions() []*apps.Function {
	out := make([]*apps.Function, 0, len(p.functions))
	for _, name := range slices.Sorted(maps.Keys(p.functions)) {
		out = append(out, p.functions[name])
	}
	return out
}

// openSources opens only the triggers, for their backlogs.
func (p *resources) openSources(ctx context.Context) error {
	if err := p.openConnections(ctx); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(p.cfg.Functions)) {
		if p.canReuseSource(name) {
			p.sources[name] = p.old.sources[name]
			continue
		}
		source, err := p.shared.OpenTrigger(ctx, sources.TriggerConfig{Function: name, Settings: p.cfg.Functions[name], Log: p.daemon.log.With("function", name)})
		if err != nil {
			return fmt.Errorf("function %s: %w", name, err)
		}
		p.sources[name] = source
	}
	return nil
}

// closeExcept closes, in the reverse order, everything that keep does not have; keep may be nil. It
// must be called after all messages are settled, since the triggers settle them.
func (p *resources) closeExcept(keep *resources) error {
	if keep == nil {
		keep = &resources{}
	}
	p.apps.ClosePools(keep.apps, p.daemon.appRegistry.PoolEnded)
	errs := p.closeFunctions(keep)
	p.apps.CloseReaper(keep.apps)
	return errors.Join(append(errs, p.shared.Close(keep.shared))...)
}

// closeFunctions closes functions and sources, all at once, since each waits for its server and
// there may be a thousand.
func (p *resources) closeFunctions(keep *resources) (errs []error) {
	var mu sync.Mutex
	var closing sync.WaitGroup
	do := func(closeIt func() error) {
		closing.Go(func() {
			if err := closeIt(); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	for name, f := range p.functions {
		if keep.functions[name] != f {
			do(f.Close)
		}
	}
	for name, source := range p.sources {
		if keep.sources[name] != source {
			do(func() error {
				ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
				defer cancel()
				return source.Close(ctx)
			})
		}
	}
	closing.Wait()
	return errs
}

// openFunction opens a function's handler, outputs and trigger. If it fails, closeExcept frees the
// parts that are open.
func (p *resources) openFunction(ctx context.Context, name string, settings configs.Function) error {
	d := p.daemon
	given := d.triggers[name]
	if given != nil && p.old != nil && p.old.functions[name] != nil {
		return ownTriggerError(name)
	}
	f := apps.NewFunction(name, settings, d.log.With("function", name))
	p.functions[name] = f
	f.Spans = newSpans(d.traces, name, settings)
	f.Standstill = &d.standstill
	f.Memory = d.budget.Open()
	if err := p.apps.OpenHandler(f, settings); err != nil {
		return err
	}
	for _, o := range settings.Output {
		if err := p.openOutput(ctx, f, o); err != nil {
			return err
		}
	}
	if given != nil {
		f.Trigger = given
		return nil
	}
	source, err := p.shared.OpenTrigger(ctx, sources.TriggerConfig{Function: name, Settings: settings, Memory: f.Memory, Log: f.Log})
	if err == nil {
		f.Trigger = source
	}
	return err
}

// openOutput opens an output of a function, and starts it.
func (p *resources) openOutput(ctx context.Context, f *apps.Function, settings configs.Output) error {
	to, err := p.shared.OpenOutput(ctx, settings)
	if err != nil {
		return err
	}
	to.Name, to.Log = settings.String(), f.Log
	own := dispatch.NewOutput(to)
	f.Outputs = append(f.Outputs, own)
	own.Start(context.WithoutCancel(ctx))
	return nil
}

// checkResources returns the errors of a configuration on this machine and in this program, and
// remarks as notes. It starts none of the user's code.
func checkResources(ctx context.Context, cfg *configs.Config, funcs handlers.Funcs, env configs.Env, environ []string) (notes []string, err error) {
	for _, name := range slices.Sorted(maps.Keys(cfg.Functions)) {
		if needs := sources.TraitsOf(cfg.Functions[name].Trigger).Requirement; needs != "" {
			notes = append(notes, fmt.Sprintf("function %s %s", name, needs))
		}
	}
	more, errs := apps.CheckApps(ctx, cfg, env, environ)
	return append(notes, more...), errors.Join(append(apps.CheckFuncs(cfg, funcs), errs...)...)
}

// dropOld releases the resources of the earlier configuration.
func (p *resources) dropOld() {
	p.old = nil
	p.apps.DropOld()
	p.shared.DropEarlier()
}

// sameSettings reports whether the settings of a function, without its app, are unchanged.
func (p *resources) sameSettings(name string) bool {
	if p.old == nil {
		return false
	}
	was, found := p.old.cfg.Functions[name]
	return found && reflect.DeepEqual(was, p.cfg.Functions[name]) &&
		!slices.ContainsFunc(was.Connections(), func(c string) bool { return !reflect.DeepEqual(p.old.cfg.Connections[c], p.cfg.Connections[c]) })
}

func (p *resources) canReuseSource(name string) bool {
	return p.sameSettings(name) && p.old.sources[name] != nil
}

// canReuseFunction reports whether the open function of a name can be reused. It must be called
// after the pools have started.
func (p *resources) canReuseFunction(name string) bool {
	if !p.sameSettings(name) || p.old.functions[name] == nil || p.old.functions[name].LoadError() != nil {
		return false
	}
	c, found := p.cfg.Functions[name].Handler.Code()
	return !found || p.apps.PoolOf(c.App) == p.old.apps.PoolOf(c.App)
}
