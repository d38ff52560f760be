// Package apps holds the code that functions run: the worker processes of apps, and the
// handler of each function.
package apps

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/sources"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/handlers/interpreters"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

// Options are the options of a Set. All fields but the handlers, Results and Terminal are required.
type Options struct {
	Config *configs.Config
	// Handlers are the program's, by function.
	Handlers map[string]handlers.Handler
	Funcs    handlers.Funcs // the program's Go functions
	// BatchFuncs are its Go functions that take batches; may be nil.
	BatchFuncs handlers.BatchFuncs
	Env        configs.Env
	// Environ returns the environment that worker processes inherit, as os.Environ does.
	Environ func() []string
	// Results overrides how much of a result workers send back. By default, a function
	// without an output sends nothing.
	Results *protocol.Results
	// Running returns the functions that run now.
	Running func() []*Function
	// Terminal is the terminal for debugging worker processes; nil: none.
	Terminal *os.File
	Log      *slog.Logger
}

// Set is the worker processes of one configuration: a pool for each app that a function
// uses, and the process that reaps them. It is for use by one goroutine.
type Set struct {
	options Options
	old     *Set // whose pools may be reused; nil at the start
	pools   map[string]*Pool
	servers map[string]*Server
	reaper  *childproc.Reaper // nil until something has processes
}

// NewSet returns an empty set. It reuses the pools of old that have not changed; old may
// be nil.
func NewSet(options Options, old *Set) *Set {
	s := &Set{options: options, old: old, pools: make(map[string]*Pool), servers: make(map[string]*Server)}
	if old != nil {
		s.reaper = old.reaper
	}
	return s
}

// DropOld releases the set that this one replaces.
func (s *Set) DropOld() { s.old = nil }

// PoolOf returns the pool of an app; nil if there is none.
func (s *Set) PoolOf(app string) *Pool { return s.pools[app] }

// AllPools returns the pools by app.
func (s *Set) AllPools() map[string]*Pool { return s.pools }

// NeedsProcesses reports whether the daemon of a configuration starts processes.
func NeedsProcesses(cfg *configs.Config) bool {
	for _, f := range cfg.Functions {
		if _, code := f.Handler.Code(); code || f.Handler.Exec != nil {
			return true
		}
	}
	if len(serverApps(cfg)) > 0 {
		return true
	}
	return cfg.Scale.Instances.Scaled()
}

// StartLimit bounds the loading of the code of all apps.
func StartLimit(cfg *configs.Config) time.Duration {
	limit := 2 * time.Minute
	for _, app := range cfg.Apps {
		limit = max(limit, app.StartTimeout.D())
	}
	return limit
}

// SharedReaper returns the process that reaps others. The first call starts it, which takes some
// milliseconds; SharedReaper does not wait for that.
func (s *Set) SharedReaper() *childproc.Reaper {
	if s.reaper == nil {
		s.reaper = childproc.New(s.options.Log)
	}
	return s.reaper
}

// Start starts a pool for each app that a function uses, and waits until each has loaded
// its code.
func (s *Set) Start(ctx context.Context) error {
	cfg := s.options.Config
	functions := AppFunctions(cfg)
	if results := s.options.Results; results != nil {
		for _, of := range functions {
			for i := range of {
				of[i].Results = *results
			}
		}
	}
	if len(functions) > 0 {
		s.SharedReaper() // it starts while Start finds the interpreters
	}
	for _, app := range slices.Sorted(maps.Keys(functions)) {
		code := RuntimeOf(cfg.Apps[app].Language).readCode(cfg.Apps[app].Dir)
		if s.canReusePool(app, code) {
			s.pools[app] = s.old.pools[app]
			continue
		}
		p, err := s.startPool(ctx, app, functions[app])
		if err != nil {
			return fmt.Errorf("app %s: %w", app, err)
		}
		p.code = code
		s.pools[app] = p
	}
	for _, app := range slices.Sorted(maps.Keys(serverApps(cfg))) {
		if err := s.openServer(ctx, app); err != nil {
			return fmt.Errorf("app %s: %w", app, err)
		}
	}
	for app, p := range s.pools {
		if err := p.WaitReady(ctx); err != nil {
			return fmt.Errorf("app %s, with %v: %w", app, p.interpreter, err)
		}
	}
	for app, own := range s.servers {
		if err := own.WaitReady(ctx); err != nil {
			return fmt.Errorf("app %s, with %v: %w", app, own.program, err)
		}
	}
	return nil
}

// AppFunctions returns the functions that the workers of each app run, by app.
func AppFunctions(cfg *configs.Config) map[string][]workers.Function {
	out := make(map[string][]workers.Function)
	for _, name := range slices.Sorted(maps.Keys(cfg.Functions)) {
		settings := cfg.Functions[name]
		c, found := settings.Handler.Code()
		if !found {
			continue
		}
		traits := sources.TraitsOf(settings.Trigger)
		f := workers.Function{
			Name: name, Module: c.Module, Function: c.Function, SessionState: traits.SessionState,
			Outputs: settings.Output.OutputNames(), Reply: traits.SendersWait, Batch: settings.Batch.Size, Azure: describeAzure(name, settings, cfg),
		}
		f.Origin = f.Azure != nil
		if !settings.TakesResult() {
			f.Results = protocol.Dropped
		}
		out[c.App] = append(out[c.App], f)
	}
	return out
}

func (s *Set) canReusePool(app string, code *interpreters.Code) bool {
	if s.old == nil || s.old.pools[app] == nil {
		return false
	}
	p, was, is := s.old.pools[app], s.old.options.Config, s.options.Config
	if p.WaitReady(context.Background()) != nil || // a pool that has ended, or whose code does not load, is replaced
		!reflect.DeepEqual(was.Apps[app], is.Apps[app]) || !reflect.DeepEqual(AppFunctions(was)[app], AppFunctions(is)[app]) {
		return false
	}
	changed, unused := code.ChangesSince(p.code, p.imports)
	if len(changed) > 0 {
		s.options.Log.Info("code changed", "app", app, "files", shortList(changed))
		return false
	}
	if len(unused) > 0 {
		s.options.Log.Info("files changed that no worker has imported; the workers continue", "app", app, "files", shortList(unused))
	}
	p.code = code // a worker that imports one of those files later loads its present content
	return true
}

// shortList returns the first names of a list, for the log.
func shortList(names []string) string {
	const few = 5
	if len(names) > few {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
	}
	return strings.Join(names, ", ")
}

// ClosePools closes the pools and the web servers that keep does not have, all at once, and calls
// ended for each pool; keep may be nil.
func (s *Set) ClosePools(keep *Set, ended func(*Pool)) {
	var closing sync.WaitGroup
	for app, p := range s.pools {
		if keep == nil || keep.pools[app] != p {
			closing.Go(func() {
				p.Close()
				ended(p)
			})
		}
	}
	for app, own := range s.servers {
		if keep == nil || keep.servers[app] != own {
			closing.Go(own.Close)
		}
	}
	closing.Wait()
}

// CloseReaper ends the reaper unless keep uses it; keep may be nil.
func (s *Set) CloseReaper(keep *Set) {
	if s.reaper != nil && (keep == nil || keep.reaper != s.reaper) {
		s.reaper.Close()
	}
}
