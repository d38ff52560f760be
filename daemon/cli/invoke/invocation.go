package invoke

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

// Invocation runs a message through a function of a configuration, and prints the report.
type Invocation struct {
	Config   *configs.Config
	Function string
	// JSON prints the report as JSON to Out.
	JSON bool
	// Debug gives the function the terminal, and no time limit.
	Debug         bool
	Out, Err      io.Writer
	OutIsTerminal bool
	// Interrupts is Options.Interrupts.
	Interrupts func(to func()) (stop func())
	// Program has the functions and the environment of the program.
	Program apps.Options
}

// Run runs a message. The error is exit.ErrReported if its verdict is not done, or
// exit.ErrCodeReported if the code does not load.
func (i *Invocation) Run(ctx context.Context, m *triggers.Message) (err error) {
	settings := i.Config.Functions[i.Function]
	lines := &Log{}
	if !i.JSON {
		lines.Print = func(l Line) { fmt.Fprintln(i.Err, l) }
	}
	_ = lines.Level.UnmarshalText([]byte(i.Config.Log.Level)) // checked before; the zero level is info
	for _, w := range i.Config.Warnings {
		slog.New(lines).Warn(w)
	}
	results := protocol.Shown
	if settings.TakesResult() {
		results = "" // the same as the destination
	}
	options := Options{Options: i.Program, Interrupts: i.Interrupts}
	options.Config, options.Results, options.Log = apps.StandaloneConfig(i.Config, i.Function), &results, slog.New(lines)
	if i.Debug {
		options.Config = apps.DebugConfig(i.Config, i.Function)
	}
	if _, isWorker := settings.Handler.Code(); i.Debug && isWorker {
		terminal, openErr := OpenTerminal()
		if openErr != nil {
			return openErr
		}
		defer func() { err = errors.Join(err, terminal.Close()) }()
		options.Terminal = terminal.File
	}
	out, err := Run(ctx, i.Function, m, options)
	if err != nil {
		return err
	}
	out.Function, out.Handler, out.MaxAttempts = i.Function, settings.Handler.String(), settings.Retry.MaxAttempts
	out.SetDestinations(settings)
	out.Log = lines.AllLines()
	if i.JSON {
		err = out.WriteJSON(i.Out)
	} else {
		err = out.PrintText(i.Out, i.Err, i.OutIsTerminal)
	}
	switch {
	case err != nil || out.IsDone():
		return err
	case out.DidNotLoad():
		return exit.ErrCodeReported
	}
	return exit.ErrReported
}
