package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
	// dataDirMode is for data_dir, where it is made.
	dataDirMode = 0o700
	// closeLimit bounds the closing of a trigger.
	closeLimit = 10 * time.Second
)

// This file opens and closes what a configuration needs, in order. The packages sources and apps
// make the single things.

// parts is what a daemon has open of one configuration, by name. A reload makes the
// parts of the new configuration, which keep what did not change of the old ones.
type parts struct {
	daemon *Daemon
	cfg    *configs.Config
	old    *parts // what may be kept; nil at the start

	functions map[string]*apps.Function
	sources   map[string]triggers.Trigger // by function, where instances do the work
	apps      *apps.Set                   // the worker processes
	shared    *sources.Set                // what triggers and outputs share
}

func newParts(d *Daemon, cfg *configs.Config, old *parts) *parts {
	p := &parts{
		daemon: d, cfg: cfg, old: old,
		functions: make(map[string]*apps.Function), sources: make(map[string]triggers.Trigger),
	}
	var oldApps *apps.Set
	var earlier *sources.Set
	if old != nil {
		oldApps, earlier = old.apps, old.shared
	}
	p.shared = sources.New(sources.Config{Settings: cfg, Parent: d.parent, Stores: &d.stores.Stores, Log: d.log}, d.connections, earlier)
	p.apps = apps.NewSet(apps.Options{
		Config: cfg, Funcs: d.funcs, Env: d.env, Environ: d.environ, Running: d.running, Log: d.log,
	}, oldApps)
	return p
}

// open makes everything, in the order in which it is needed: what takes long and
// fails often comes first.
func (p *parts) open(ctx context.Context) error {
	if err := p.connect(ctx); err != nil {
		return err
	}
	if err := p.apps.Start(ctx); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(p.cfg.Functions)) {
		if p.keepsFunction(name) {
			p.functions[name] = p.old.functions[name]
			continue
		}
		if err := p.openFunction(ctx, name, p.cfg.Functions[name]); err != nil {
			return fmt.Errorf("function %s: %w", name, err)
		}
	}
	return nil
}

// connect opens the connections that functions use.
func (p *parts) connect(ctx context.Context) error {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(p.cfg.Functions)) {
		for _, connection := range p.cfg.Functions[name].Connections() {
			if p.daemon.triggers[name] != nil && connection == p.cfg.Functions[name].Trigger.Connection() {
				continue // the program's own
			}
			names = append(names, connection)
		}
	}
	return p.shared.Connect(ctx, names)
}

// inOrder are the functions by their names.
func (p *parts) inOrder() []*apps.Function {
	out := make([]*apps.Function, 0, len(p.functions))
	for _, name := range slices.Sorted(maps.Keys(p.functions)) {
		out = append(out, p.functions[name])
	}
	return out
}

// openSources opens the triggers alone, to be asked for their backlogs.
func (p *parts) openSources(ctx context.Context) error {
	if err := p.connect(ctx); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(p.cfg.Functions)) {
		if p.keepsSource(name) {
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

// close undoes open, in the reverse order, but for what others keep; nil keeps
// nothing. Settlements travel on the triggers, so they close when all work is
// settled.
func (p *parts) close(keep *parts) error {
	if keep == nil {
		keep = &parts{}
	}
	p.apps.ClosePools(keep.apps, p.daemon.appRegistry.PoolEnded)
	errs := p.closeFunctions(keep)
	p.apps.CloseReaper(keep.apps)
	return errors.Join(append(errs, p.shared.Close(keep.shared))...)
}

// closeFunctions closes functions and sources, all at once: each waits for its server, and there
// may be a thousand.
func (p *parts) closeFunctions(keep *parts) (errs []error) {
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

// openFunction joins a trigger and a handler. What was opened of a function that
// does not open after all is closed with the parts.
func (p *parts) openFunction(ctx context.Context, name string, settings configs.Function) error {
	d := p.daemon
	given := d.triggers[name]
	if given != nil && p.old != nil && p.old.functions[name] != nil {
		return ownTriggerStays(name)
	}
	f := apps.NewFunction(name, settings, d.log.With("function", name))
	p.functions[name] = f
	f.Spans = spansOf(d.traces, name, settings)
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
func (p *parts) openOutput(ctx context.Context, f *apps.Function, settings configs.Output) error {
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

// checkParts looks for what is wrong with a configuration on this machine and in
// this program, without starting anything of the user's.
func checkParts(ctx context.Context, cfg *configs.Config, funcs handlers.Funcs, env configs.Env, environ []string) (notes []string, err error) {
	for _, name := range slices.Sorted(maps.Keys(cfg.Functions)) {
		if needs := sources.TraitsOf(cfg.Functions[name].Trigger).Requirement; needs != "" {
			notes = append(notes, fmt.Sprintf("function %s %s", name, needs))
		}
	}
	more, errs := apps.CheckApps(ctx, cfg, env, environ)
	return append(notes, more...), errors.Join(append(apps.CheckFuncs(cfg, funcs), errs...)...)
}
