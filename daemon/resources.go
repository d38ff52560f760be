package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/dispatch"
	"github.com/drover-run/drover/daemon/internal/produce"
	"github.com/drover-run/drover/daemon/internal/program"
	"github.com/drover-run/drover/daemon/internal/sources"
	"github.com/drover-run/drover/triggers"
)

const (
	// closeLimit bounds the closing of a trigger.
	closeLimit = 10 * time.Second
)

// resources are the open resources of one configuration, by name. A reload opens the
// resources of the new configuration, and reuses those that did not change.
type resources struct {
	daemon *Daemon
	cfg    *configs.Config
	old    *resources // may be reused; nil at the start

	functions map[string]*apps.Function
	sources   map[string]triggers.Trigger // by function, if instances do the work
	apps      *apps.Set                   // the worker processes
	shared    *sources.Set                // resources that triggers and outputs share
	producers *produce.Registry           // for the admin API
}

func newResources(d *Daemon, cfg *configs.Config, old *resources) *resources {
	p := &resources{
		daemon: d, cfg: cfg, old: old,
		functions: make(map[string]*apps.Function), sources: make(map[string]triggers.Trigger), producers: new(produce.Registry),
	}
	var oldApps *apps.Set
	var earlier *sources.Set
	if old != nil {
		oldApps, earlier = old.apps, old.shared
	}
	p.shared = sources.New(sources.Config{
		Settings: cfg, Parent: d.given.Parent, Started: d.given.Started, Stores: &d.stores.Stores, Log: d.log,
		Run: func(function string, run *triggers.Delivery) (bool, error) { return runByName(d, function, run) },
	}, d.given.Connections, earlier)
	p.apps = apps.NewSet(apps.Options{
		Config: cfg, Handlers: d.given.Handlers(), Funcs: d.given.Funcs, BatchFuncs: d.given.BatchFuncs, Env: d.given.Env, Environ: d.given.Environ, Running: d.runningFunctions, Log: d.log,
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
			p.keepProducer(name)
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
		f := p.cfg.Functions[name]
		if p.daemon.given.Triggers[name] != nil { // the program's own
			f.Trigger = configs.Trigger{}
		}
		if p.daemon.given.OpenOutput != nil {
			f.Output = nil
		}
		names = append(names, f.Connections()...)
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
			p.keepProducer(name)
			continue
		}
		source, err := p.shared.OpenTrigger(ctx, sources.TriggerConfig{Function: name, Settings: p.cfg.Functions[name], Log: p.daemon.log.With("function", name)})
		if err != nil {
			return fmt.Errorf("function %s: %w", name, err)
		}
		p.sources[name] = source
		if err := p.openProducer(ctx, name, p.cfg.Functions[name]); err != nil {
			return fmt.Errorf("function %s: %w", name, err)
		}
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
	errs := append(p.closeFunctions(keep), p.producers.Close(keep.producers))
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
	given := d.given.Triggers[name]
	if _, own := d.given.Handlers()[name]; (own || given != nil) && p.old != nil && p.old.functions[name] != nil {
		return errOwnParts
	}
	f := apps.NewFunction(name, settings, d.log.With("function", name))
	p.functions[name] = f
	f.Spans = newSpans(d.traces, name, settings)
	f.Standstill = &d.standstill
	f.Completions = d.completions.Of(f.Log)
	f.Memory = d.budget.Open()
	if err := p.apps.OpenHandler(f, settings); err != nil {
		return err
	}
	for _, o := range settings.Output {
		if err := p.openOutput(ctx, f, o); err != nil {
			return err
		}
	}
	if err := p.openProducer(ctx, name, settings); err != nil {
		return err
	}
	if given != nil {
		f.Trigger = given
		return nil
	}
	source, err := p.shared.OpenTrigger(ctx, sources.TriggerConfig{Function: name, Settings: settings, Receives: true, Memory: f.Memory, Log: f.Log})
	if err != nil {
		return err
	}
	f.Trigger = source
	if limited, ok := source.(triggers.Limited); ok && limited.AttemptLimit() > 0 {
		f.Retry.MaxAttempts = limited.AttemptLimit()
	}
	return nil
}

// openProducer opens the producer with which the admin API sends to a function.
func (p *resources) openProducer(ctx context.Context, name string, settings configs.Function) error {
	to := produce.Config{Function: name, Given: p.daemon.given.Triggers[name], MaxBody: int64(settings.MaxBody)}
	if to.Given == nil {
		var err error
		if to.Source, err = p.shared.OpenInlet(ctx, name, settings.Trigger); err != nil {
			return err
		}
	}
	p.producers.Add(produce.New(to))
	return nil
}

// keepProducer keeps the producer of a function that did not change.
func (p *resources) keepProducer(name string) {
	if was := p.old.producers.Lookup(name); was != nil {
		p.producers.Add(was)
	}
}

// runByName runs a function of a daemon once, on a delivery that its trigger did not receive.
func runByName(d *Daemon, function string, run *triggers.Delivery) (found bool, err error) {
	for _, f := range d.runningFunctions() {
		if !strings.EqualFold(f.Name, function) {
			continue
		}
		traits := sources.TraitsOf(d.Config().Functions[f.Name].Trigger)
		if m := run.Message; m.Body == nil {
			m.Body = traits.SampleBody
		}
		if traits.SampleProperties != nil {
			run.Message.Origin = triggers.Known(traits.SampleProperties)
		}
		return true, f.RunExtra(run)
	}
	return false, nil
}

// openOutput opens an output of a function, and starts it.
func (p *resources) openOutput(ctx context.Context, f *apps.Function, settings configs.Output) (err error) {
	var to dispatch.OutputConfig
	if replaced := p.daemon.given.OpenOutput; replaced != nil {
		to = replaced(f.Name, settings)
	} else if to, err = p.shared.OpenOutput(ctx, settings); err != nil {
		return err
	}
	to.Name, to.Key, to.Log = settings.String(), settings.Name, f.Log
	own := dispatch.NewOutput(to)
	f.Outputs = append(f.Outputs, own)
	own.Start(context.WithoutCancel(ctx))
	return nil
}

// checkResources returns the errors of a configuration on this machine and in this program, and
// remarks as notes. It starts none of the user's code.
func checkResources(ctx context.Context, cfg *configs.Config, o *program.Options) (notes []string, err error) {
	for _, name := range slices.Sorted(maps.Keys(cfg.Functions)) {
		if needs := sources.TraitsOf(cfg.Functions[name].Trigger).Requirement; needs != "" {
			notes = append(notes, fmt.Sprintf("function %s %s", name, needs))
		}
	}
	more, errs := apps.CheckApps(ctx, cfg, o.Env, o.Environ())
	wrong := apps.CheckFuncs(cfg, o.Handlers(), o.Funcs, o.BatchFuncs)
	if len(o.Funcs)+len(o.BatchFuncs)+len(o.Handlers()) == 0 { // another program runs them
		for _, err := range wrong {
			more = append(more, err.Error()+", and check it with that")
		}
		wrong = nil
	}
	return append(notes, more...), errors.Join(append(wrong, errs...)...)
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
	h := p.cfg.Functions[name].Handler
	if own := h.HTTP; own != nil && own.App != "" && p.apps.ServerOf(own.App) != p.old.apps.ServerOf(own.App) {
		return false
	}
	c, found := h.Code()
	return !found || p.apps.PoolOf(c.App) == p.old.apps.PoolOf(c.App)
}
