package apps

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/apps/labels"
	"github.com/drover-run/drover/daemon/internal/dispatch/batches"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/commandhandler"
	"github.com/drover-run/drover/handlers/workers/coreshare"
	"github.com/drover-run/drover/scaler/hostinfo"
)

// defaultGoConcurrency is how many messages of a Go function are in flight by default: goroutines
// are cheap, but the services that they call often are not.
const defaultGoConcurrency = 256

// OpenHandler gives a function its handler and its share of slots. The pools must have been
// started. This is the only list of handlers.
func (s *Set) OpenHandler(f *Function, settings configs.Function) error {
	switch h := settings.Handler; {
	case h.Go != "":
		own, err := s.findHandler(f.Name, settings)
		if err != nil {
			return err
		}
		own, f.Labels = labels.Mark(f.Name, own)
		f.setOwnHandler(own, settings)
	case h.Exec != nil:
		return s.openCommand(f, settings)
	case h.HTTP != nil:
		own, err := s.newHTTPHandler(f, settings)
		if err != nil {
			return err
		}
		f.Handler, f.Share = own, own.Slots().Share(0)
		checking, stop := context.WithCancel(context.Background())
		f.stopChecking = stop
		f.checking.Go(func() { own.Run(checking) })
	default: // the others run in worker processes
		code, _ := h.Code()
		f.App, f.Pool = code.App, s.pools[code.App]
		f.Epochs = &f.Pool.Epoch
		own, err := f.Pool.HandlerOf(f.Name)
		if err != nil {
			return err
		}
		f.PoolIndex = own.FunctionIndex()
		if settings.Batch.Size > 0 {
			f.collectBatches(own, settings, 0)
			return nil
		}
		f.Handler = own
		f.Share = own.Slots().Share(settings.Concurrency)
	}
	return nil
}

// findHandler returns the program's handler of a function.
func (s *Set) findHandler(name string, settings configs.Function) (handlers.Handler, error) {
	if own := s.options.Handlers[name]; own != nil {
		return own, nil
	}
	if err := checkFunc(settings, s.options.Funcs, s.options.BatchFuncs); err != nil {
		return nil, err
	}
	if settings.Batch.Size > 0 {
		return s.options.BatchFuncs[settings.Handler.Go], nil
	}
	return s.options.Funcs[settings.Handler.Go], nil
}

// setOwnHandler sets a handler of the program for a function. Unless the handler has slots, the function
// gets its own slots.
func (f *Function) setOwnHandler(own handlers.Handler, settings configs.Function) {
	concurrency := settings.Concurrency
	if concurrency == 0 {
		concurrency = max(defaultGoConcurrency, settings.Batch.Size)
	}
	if settings.Batch.Size > 0 {
		f.collectBatches(own.(handlers.Batched), settings, concurrency) //nolint:forcetypeassert // checked with the settings
		return
	}
	f.Handler = own
	if slotted, is := own.(handlers.Slotted); is {
		f.Share = slotted.Slots().Share(settings.Concurrency)
		return
	}
	f.Share = handlers.NewSlots(concurrency).Share(0)
}

// collectBatches gives a function a handler that collects batches for another.
func (f *Function) collectBatches(to handlers.Batched, settings configs.Function, concurrency int) {
	b := settings.Batch
	own := batches.New(to, batches.Config{
		Function: f.Name, OneKey: settings.Handler.Python != nil && settings.Handler.Python.Azure != nil, Size: b.Size, Min: cmp.Or(b.Min, b.Size), Window: b.Window.D(), Concurrency: concurrency,
		Counts: &f.Stats.Batches, Log: f.Log,
	})
	f.Handler, f.Share = own, own.Slots().Share(settings.Concurrency)
}

func (s *Set) openCommand(f *Function, settings configs.Function) error {
	exec := settings.Handler.Exec
	environ := exec.Environment.WithFiles(s.options.Environ())
	logWithheld(f.Log, exec.Environment, false, environ)
	concurrency := settings.Concurrency
	if concurrency == 0 {
		concurrency = runtime.GOMAXPROCS(0)
	}
	machine, _ := hostinfo.New().ReadMachine() // the cores are always known
	env := coreshare.Environ(sandboxEnvironment(exec.Environment).FilterEnviron(environ), coreshare.Of(machine.Cores, concurrency, 0))
	own, err := commandhandler.New(commandhandler.Config{
		Function: f.Name, Command: exec.Command, Dir: exec.Dir, Env: env,
		MaxOutput: int64(exec.MaxOutput), Log: f.Log, Reaper: s.SharedReaper(),
	})
	if err != nil {
		return err
	}
	f.Handler, f.Share = own, handlers.NewSlots(concurrency).Share(0)
	return nil
}

// CheckFuncs returns an error for each Go function that the configuration names and the
// program does not have. Functions with a handler in own have been checked.
func CheckFuncs(cfg *configs.Config, own map[string]handlers.Handler, funcs handlers.Funcs, batched handlers.BatchFuncs) (errs []error) {
	for _, name := range slices.Sorted(maps.Keys(cfg.Functions)) {
		if own[name] != nil {
			continue
		}
		if err := checkFunc(cfg.Functions[name], funcs, batched); err != nil {
			errs = append(errs, fmt.Errorf("function %s: %w", name, err))
		}
	}
	return errs
}

// checkFunc returns an error if a function names a Go function that the program does not have, or has
// for single messages where the function takes batches, or the reverse.
func checkFunc(settings configs.Function, funcs handlers.Funcs, batched handlers.BatchFuncs) error {
	name := settings.Handler.Go
	_, single := funcs[name]
	_, batch := batched[name]
	switch batches := settings.Batch.Size > 0; {
	case name == "", single && !batches, batch && batches:
		return nil
	case single:
		return fmt.Errorf("the Go function %q takes one message, not a batch: remove batch, or offer a handlers.BatchFunc with daemon.WithBatchFuncs", name)
	case batch:
		return fmt.Errorf("the Go function %q takes batches: set batch, such as batch: {size: 10}", name)
	}
	return unknownFunc(name, funcs)
}

// CheckApps finds each app's interpreter and checks its limits and sandbox on this machine,
// without starting the user's code.
func CheckApps(ctx context.Context, cfg *configs.Config, env configs.Env, environ []string) (notes []string, errs []error) {
	for _, name := range slices.Sorted(maps.Keys(cfg.Apps)) {
		app := cfg.Apps[name]
		if app.Language == "" {
			notes = append(notes, fmt.Sprintf("app %s is used by no function", name))
			continue
		}
		interpreter, err := RuntimeOf(app.Language).Find(ctx, app, env)
		if err != nil {
			errs = append(errs, fmt.Errorf("app %s: %w", name, err))
			continue
		}
		notes = append(notes, fmt.Sprintf("app %s runs with %v", name, interpreter))
		more, err := checkConfinement(ctx, app, cfg.DataDir, interpreter, environ)
		if err != nil {
			errs = append(errs, fmt.Errorf("app %s: %w", name, err))
		}
		for _, note := range more {
			notes = append(notes, fmt.Sprintf("app %s: %s", name, note))
		}
	}
	return notes, errs
}

func unknownFunc(name string, funcs handlers.Funcs) error {
	known := slices.Sorted(maps.Keys(funcs))
	if len(known) == 0 {
		return fmt.Errorf("this program has no Go function %q: build your own main that calls cli.Main with daemon.WithFuncs", name)
	}
	return fmt.Errorf("this program has no Go function %q; it has: %v", name, known)
}
