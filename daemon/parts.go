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
	"github.com/drover-run/drover/handlers/childproc"
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

	functions   map[string]*function
	sources     map[string]triggers.Trigger // by function, where instances do the work
	pools       map[string]*pool            // by app
	connections map[string]*connection      // to NATS: those that are ours to close
	accounts    map[string]*storagequeue.Account
	ledger      *storagequeue.Ledger // nil where no function needs it
	reaper      *childproc.Reaper    // nil where nothing has processes
}

func newParts(d *Daemon, cfg *configs.Config, old *parts) *parts {
	p := &parts{
		daemon: d, cfg: cfg, old: old,
		functions: make(map[string]*function), sources: make(map[string]triggers.Trigger), pools: make(map[string]*pool),
		connections: make(map[string]*connection), accounts: make(map[string]*storagequeue.Account),
	}
	if old != nil {
		p.ledger, p.reaper = old.ledger, old.reaper
	}
	return p
}

// open makes everything, in the order in which it is needed: what takes long and
// fails often comes first.
func (p *parts) open(ctx context.Context) error {
	if err := p.connect(ctx); err != nil {
		return err
	}
	if err := p.startPools(ctx); err != nil {
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

// needsProcesses reports whether a configuration has the daemon start processes.
func needsProcesses(cfg *configs.Config) bool {
	for _, f := range cfg.Functions {
		if _, code := f.Handler.Code(); code || f.Handler.Exec != nil {
			return true
		}
	}
	return cfg.Scale.Instances.Scaled()
}

// startsProcesses returns the reaper, whose process is being started where there is
// none yet: it takes some milliseconds, in which others can be used.
func (p *parts) startsProcesses() *childproc.Reaper {
	if p.reaper == nil {
		p.reaper = childproc.New(p.daemon.log)
	}
	return p.reaper
}

// inOrder are the functions by their names.
func (p *parts) inOrder() []*function {
	out := make([]*function, 0, len(p.functions))
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
	var pools sync.WaitGroup
	for app, own := range p.pools {
		if keep.pools[app] != own {
			pools.Go(func() {
				own.close()
				p.daemon.poolEnded(own)
			})
		}
	}
	pools.Wait()
	errs := p.closeFunctions(keep)
	for name, a := range p.accounts {
		if keep.accounts[name] != a {
			a.Close()
		}
	}
	if p.reaper != nil && keep.reaper != p.reaper {
		p.reaper.Close()
	}
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
			do(f.close)
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
	f := newFunction(name, settings, d.log.With("function", name))
	p.functions[name] = f
	f.Spans = d.traces.of(name, settings)
	f.Standstill = &d.standstill
	f.Memory = d.budget.Open()
	if err := p.openHandler(f, settings); err != nil {
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
