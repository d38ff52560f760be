package daemon

import (
	"context"
	"log/slog"
	"maps"
	"slices"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/handlers"
)

// This file handles Azure Functions apps: a reload indexes the code again, and
// functions of the app may not run.

// readFunctionApp indexes the function app again. The error is also that a function has failed that
// runs now.
func readFunctionApp(ctx context.Context, d *Daemon) (*configs.Config, error) {
	cfg, err := apps.RunFunctionApp(ctx, apps.FunctionAppOptions{
		Dir: d.cfg.File, Env: d.given.Env, Environ: d.given.Environ(), NewLog: func(configs.Log) *slog.Logger { return d.log },
	})
	if err != nil {
		return nil, err
	}
	for _, f := range cfg.NotRun {
		if _, runs := d.Config().Functions[f.Function]; runs && f.Failed {
			return nil, &handlers.LoadError{Function: f.Function, Summary: f.Reason}
		}
	}
	return cfg, nil
}

// logFunctionApp logs the functions of a function app, and why some of them do not run.
func logFunctionApp(log *slog.Logger, cfg *configs.Config) {
	if cfg.FunctionApp == nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Functions)) {
		log.Info("function found", "function", name, "trigger", cfg.Functions[name].Trigger.String())
	}
	for _, f := range cfg.NotRun {
		switch {
		case f.Failed:
			log.Error("function does not run: it has an error; fix it and run drover reload", "function", f.Function, "error", f.Reason)
		case f.Disabled:
			log.Info("function does not run", "function", f.Function, "reason", f.Reason)
		default:
			log.Warn("function does not run: drover lacks what it needs", "function", f.Function, "reason", f.Reason)
		}
	}
}
