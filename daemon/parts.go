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
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/storagequeue"
)

const (
	// dataDirMode is for data_dir, where it is made.
	dataDirMode = 0o700
	// closeLimit bounds the closing of a trigger.
	closeLimit = 10 * time.Second
)

// This file opens and closes what a configuration needs, in order; its neighbours
// connections.go, pools.go and kinds.go make the single things.

// parts is what a daemon has open of one configuration, by name. A reload makes the
// parts of the new configuration, which keep what did not change of the old ones.
type parts struct {
	daemon *Daemon
	cfg    *configs.Config
	old    *parts // what may be kept; nil at the start

	functions   map[string]*apps.Function
	sources     map[string]triggers.Trigger // by function, where instances do the work
	apps        *apps.Set                   // the worker processes
	connections map[string]*connection      // to NATS: those that are ours to close
	accounts    map[string]*storagequeue.Account
	ledger      *storagequeue.Ledger // nil where no function needs it
}

func newParts(d *Daemon, cfg *configs.Config, old *parts) *parts {
	p := &parts{
		daemon: d, cfg: cfg, old: old,
		functions: make(map[string]*apps.Function), sources: make(map[string]triggers.Trigger),
		connections: make(map[string]*connection), accounts: make(map[string]*storagequeue.Account),
	}
	var oldApps *apps.Set
	if old != nil {
		p.ledger, oldApps = old.ledger, old.apps
	}
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
		source, err := p.openTrigger(ctx, name, p.cfg.Functions[name], nil, p.daemon.log.With("function", name))
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
	for name, a := range p.accounts {
		if keep.accounts[name] != a {
			a.Close()
		}
	}
	p.apps.CloseReaper(keep.apps)
	if p.ledger != nil && keep.ledger != p.ledger {
		errs = append(errs, p.ledger.Close())
	}
	for name, c := range p.connections {
		if keep.connections[name] != c {
			p.daemon.stores.remove(name)
			errs = append(errs, c.close())
		}
	}
	return errors.Join(errs...)
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
	source, err := p.openTrigger(ctx, f.Name, settings, f.Memory, f.Log)
	if err == nil {
		f.Trigger = source
	}
	return err
}
