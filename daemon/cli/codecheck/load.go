package codecheck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/drover-run/drover/daemon/cli/invoke"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/internal/apps"
)

// Load loads the code of each app in one worker. It prints the apps that load to out, and the output of
// their code to errs. The error is a *handlers.LoadError if code does not load.
func Load(ctx context.Context, out, errs io.Writer, options apps.Options) error {
	options.Log = slog.New(&invoke.Log{Print: func(l invoke.Line) { fmt.Fprintln(errs, l) }})
	loaded, err := apps.CheckLoads(ctx, options)
	for _, app := range loaded {
		fmt.Fprintln(out, term.Printable("app "+app+": its code loads"))
	}
	if ctx.Err() != nil {
		return errors.New("stopped by a signal before the code was loaded")
	}
	return err
}
