package apps

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/commandhandler"
)

// defaultGoConcurrency is how many messages of a Go function are in flight by default: goroutines
// are cheap, but the services that they call often are not.
const defaultGoConcurrency = 256

// OpenHandler gives a function its handler and its share of slots. The pools must have been
// started. This is the only list of handlers.
func (s *Set) OpenHandler(f *Function, settings configs.Function) error {
	switch h := settings.Handler; {
	case h.Go != "":
		run, found := s.options.Funcs[h.Go]
		if !found {
			return unknownFunc(h.Go, s.options.Funcs)
		}
		concurrency := settings.Concurrency
		if concurrency == 0 {
			concurrency = defaultGoConcurrency
		}
		f.Handler = run
		f.Share = handlers.NewSlots(concurrency).Share(0)
	case h.Exec != nil:
		return s.openCommand(f, settings)
	case h.HTTP != nil:
		own, err := newHTTPHandler(f, settings)
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
		f.Handler, f.PoolIndex = own, own.FunctionIndex()
		f.Share = own.Slots().Share(settings.Concurrency)
	}
	return nil
}

func (s *Set) openCommand(f *Function, settings configs.Function) error {
	exec, environ := settings.Handler.Exec, s.options.Environ()
	logWithheld(f.Log, exec.Environment, false, environ)
	own, err := commandhandler.New(commandhandler.Config{
		Function: f.Name, Command: exec.Command, Dir: exec.Dir, Env: sandboxEnvironment(exec.Environment).FilterEnviron(environ),
		MaxOutput: int64(exec.MaxOutput), Log: f.Log, Reaper: s.SharedReaper(),
	})
	if err != nil {
		return err
	}
	concurrency := settings.Concurrency
	if concurrency == 0 {
		concurrency = runtime.GOMAXPROCS(0)
	}
	f.Handler, f.Share = own, handlers.NewSlots(concurrency).Share(0)
	return nil
}

// CheckFuncs returns an error for each Go function that the configuration names and the
// program does not have.
func CheckFuncs(cfg *configs.Config, funcs handlers.Funcs) (errs []error) {
	for _, name := range slices.Sorted(maps.Keys(cfg.Functions)) {
		h := cfg.Functions[name].Handler
		if _, found := funcs[h.Go]; h.Go != "" && !found {
			errs = append(errs, fmt.Errorf("function %s: %w", name, unknownFunc(h.Go, funcs)))
		}
	}
	return errs
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
