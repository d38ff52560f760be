// Package program has the options that a Go program passes to a daemon: the options of package daemon. The
// daemon and the command line read them.
package program

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/dispatch"
	"github.com/drover-run/drover/daemon/internal/sources"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/scaler/local"
	"github.com/drover-run/drover/triggers"
)

// Options are the options of a daemon. The zero value has none.
type Options struct {
	Log        *slog.Logger   // nil: slog.Default
	Level      *slog.LevelVar // of the log; nil: it cannot change
	Env        configs.Env    // nil: empty
	Environ    func() []string
	Funcs      handlers.Funcs
	BatchFuncs handlers.BatchFuncs
	Functions  []Function
	Triggers   map[string]triggers.Trigger
	ForceStop  <-chan struct{}
	OnReady    func()
	Instance   *local.Command // runs an instance; nil: instances are not possible
	// WholeProcess allows settings of the Go runtime.
	WholeProcess bool
	TerminalLog  bool // the log is printed on a terminal

	// The other options are only for drover's own packages.

	// Connections replace those of the configuration. The daemon does not close them.
	Connections map[string]*sources.Connection
	// OpenOutput replaces the outputs of all functions; nil: the outputs of the configuration are used.
	OpenOutput func(function string, settings configs.Output) dispatch.OutputConfig
	// Parent is the data directory of the daemon that started this instance; empty if it is not
	// one of several.
	Parent  string
	Started time.Time // when the daemon, or its parent, started
}

// Function is a function that a program defines.
type Function struct {
	Name     string
	Settings configs.Function
	Handler  handlers.Handler // nil: Settings names it
}

// Handlers returns the handlers of the functions that the program defines, by function.
func (o *Options) Handlers() map[string]handlers.Handler {
	out := make(map[string]handlers.Handler)
	for _, f := range o.Functions {
		if f.Handler != nil {
			out[f.Name] = f.Handler
		}
	}
	return out
}

// CompleteConfig adds the program's functions to a configuration, and completes it. The error lists the
// mistakes in both.
func (o *Options) CompleteConfig(cfg *configs.Config) error {
	functions := make(map[string]configs.Function)
	for _, f := range o.Functions {
		settings := f.Settings
		switch _, twice := functions[f.Name]; {
		case twice:
			return fmt.Errorf("daemon.WithFunction: function %s is defined twice; give each function its own name", f.Name)
		case f.Handler != nil && settings.Handler != (configs.Handler{}):
			return fmt.Errorf("daemon.WithFunction: function %s has a handler and Settings.Handler; remove one of them", f.Name)
		case f.Handler != nil:
			settings.Handler.Go = f.Name
		}
		settings.Trigger.Program = o.Triggers[f.Name] != nil && settings.Trigger == (configs.Trigger{})
		functions[f.Name] = settings
	}
	if err := cfg.AddFunctions(o.Env, functions); err != nil {
		return err
	}
	return o.checkHandlers(cfg)
}

// CheckTriggers returns an error for triggers without a function in a complete configuration.
func (o *Options) CheckTriggers(cfg *configs.Config) error {
	for _, name := range slices.Sorted(maps.Keys(o.Triggers)) {
		if _, found := cfg.Functions[name]; !found {
			return fmt.Errorf("daemon.WithTrigger: there is no function %s; functions: %v", name, slices.Sorted(maps.Keys(cfg.Functions)))
		}
	}
	return nil
}

// checkHandlers returns an error for each handler that takes batches without a Batch in the settings, or
// the reverse.
func (o *Options) checkHandlers(cfg *configs.Config) error {
	var errs []error
	for _, f := range o.Functions {
		_, batched := f.Handler.(handlers.Batched)
		switch size := cfg.Functions[f.Name].Batch.Size; {
		case f.Handler == nil:
		case size > 0 && !batched:
			errs = append(errs, fmt.Errorf("function %s: its handler takes one message; remove Batch, or use a handlers.BatchFunc", f.Name))
		case size == 0 && batched:
			errs = append(errs, fmt.Errorf("function %s: its handler takes batches; set Batch, such as Batch: configs.Batch{Size: 10}", f.Name))
		}
	}
	return errors.Join(errs...)
}
