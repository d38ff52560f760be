package apps

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/handlers"
)

// CheckLoads loads the code of each app's functions in one worker, one app after the other. It returns the
// apps whose code loads. The error joins the errors of the other apps; if code does not load, it is a
// *handlers.LoadError with the tracebacks of all apps in Detail.
func CheckLoads(ctx context.Context, options Options) (loaded []string, err error) {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(AppFunctions(options.Config))) {
		if err := loadOne(ctx, options, name); err != nil {
			errs = append(errs, err)
			continue
		}
		loaded = append(loaded, name)
	}
	return loaded, joinLoadErrors(errs)
}

// loadOne loads the code of one app.
func loadOne(ctx context.Context, options Options, name string) error {
	cfg := *options.Config
	app := cfg.Apps[name]
	app.Processes, app.Scaled, app.Spare = 1, false, 0
	app.Limits.Memory, app.Limits.CPU, app.Limits.Processes = 0, 0, 0 // a running daemon may use the cgroup
	cfg.Apps = map[string]configs.App{name: app}
	cfg.Functions = maps.Clone(cfg.Functions)
	maps.DeleteFunc(cfg.Functions, func(_ string, f configs.Function) bool {
		code, _ := f.Handler.Code()
		return code.App != name
	})
	options.Config, options.Running = &cfg, func() []*Function { return nil }
	set := NewSet(options, nil)
	defer func() {
		set.ClosePools(nil, func(*Pool) {})
		set.CloseReaper(nil)
	}()
	return set.Start(ctx)
}

// joinLoadErrors joins errors. Detail of the result has the tracebacks of load errors.
func joinLoadErrors(errs []error) error {
	joined := errors.Join(errs...)
	detail := ""
	for _, err := range errs {
		var of *handlers.LoadError
		if !errors.As(err, &of) {
			return joined
		}
		if of.Detail != "" {
			detail += of.Detail + "\n"
		}
	}
	if joined == nil {
		return nil
	}
	return &handlers.LoadError{Summary: joined.Error(), Detail: detail}
}
