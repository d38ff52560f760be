// Package functionapps reads Azure Functions apps for the command line: it prints what `drover check`
// reports of one, and returns the configuration of one for commands that use its queues.
package functionapps

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/configs/functionapp"
	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/daemon/cli/invoke"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/internal/apps"
)

// Checker checks function apps.
type Checker struct {
	Out, Err io.Writer
	Env      configs.Env
	Environ  []string // of the process that imports the code
	// CheckConfig checks a configuration on this machine, and returns remarks.
	CheckConfig func(*configs.Config) (notes []string, err error)
	// Strict makes functions that drover does not run an error.
	Strict bool
}

// slowImport is the time after which Check reports that the code is still being imported.
const slowImport = 5 * time.Second

// Check imports the code of the function app in a directory. It prints the functions and the
// settings to Out, and to Err the errors and what the code prints. After errors that it has printed
// it returns exit.ErrReported.
func (c Checker) Check(ctx context.Context, dir string) error {
	output := &invoke.Log{Print: func(l invoke.Line) { fmt.Fprintln(c.Err, l) }}
	slow := time.AfterFunc(slowImport, func() {
		fmt.Fprintf(c.Err, "drover: %s is still being imported, for %v\n", term.Printable(dir), slowImport)
	})
	t, err := apps.LoadFunctionApp(ctx, dir, c.Env, c.Environ, slog.New(output))
	slow.Stop()
	if ctx.Err() != nil {
		return fmt.Errorf("checking %s: stopped by a signal", dir)
	}
	if t != nil && len(t.Errors) > 0 {
		defer func() { fmt.Fprintln(c.Err, term.Printable(t.Errors.Error())) }()
	}
	if err != nil {
		return err
	}
	var notes []string
	if len(t.Config.Functions) > 0 {
		if notes, err = c.CheckConfig(t.Config); err != nil {
			return err
		}
	}
	if err := t.Describe(c.Out); err != nil {
		return err
	}
	for _, note := range append(notes, t.Config.Warnings...) {
		fmt.Fprintln(c.Out, note)
	}
	for _, warning := range t.Warnings {
		fmt.Fprintln(c.Out, "warning: "+term.Printable(warning))
	}
	fmt.Fprintln(c.Out, "this version of drover checks function apps, and does not run them (docs/azure-functions.md)")
	switch left := t.CountUnsupported(); {
	case len(t.Errors) > 0:
		return exit.ErrReported
	case c.Strict && left > 0:
		return fmt.Errorf("--strict: drover does not run %d of %d functions", left, len(t.Functions))
	}
	return nil
}

// Load returns the configuration at a path. Of a function app it has the functions that drover has
// the parts for. Their code is imported; what it prints is dropped.
func Load(ctx context.Context, path string, env configs.Env, environ func() []string) (*configs.Config, error) {
	dir, found := functionapp.Find(path)
	if !found {
		return configs.LoadContext(ctx, path, env)
	}
	t, err := apps.LoadFunctionApp(ctx, dir, env, environ(), slog.New(slog.DiscardHandler))
	if err == nil && len(t.Config.Functions) == 0 {
		err = fmt.Errorf("drover has the parts for none of the functions of %s; run: drover check %s", dir, dir)
	}
	if err != nil {
		return nil, err
	}
	return t.Config, nil
}

// LoadToRun returns the configuration at a path, for a command that runs its functions. It refuses
// function apps.
func LoadToRun(ctx context.Context, path string, env configs.Env) (*configs.Config, error) {
	if dir, found := functionapp.Find(path); found {
		return nil, fmt.Errorf("%s is an Azure Functions app: this version of drover checks it, and sends to its queues, but does not run it (docs/azure-functions.md)", dir)
	}
	return configs.LoadContext(ctx, path, env)
}
