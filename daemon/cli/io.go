package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon"
	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/scaler/local"
)

// This file has what commands share: their connection to the process, their flags, their logs and
// the exit status. It depends on no command.

// Exit statuses.
const (
	ExitOK       = 0 // ended as requested; everything in flight was finished
	ExitFailed   = 1 // the configuration is wrong, or the request failed
	ExitUsage    = 2 // the command line is wrong
	ExitStart    = 3 // the daemon could not start: a connection, a worker, code that does not load, a lock
	ExitCutShort = 4 // stopped, but the drain time was too short for the messages in flight
	ExitStopped  = 5 // all functions were disabled while the daemon ran, because their code no longer loads
)

// IO connects a command to its process.
type IO struct {
	In            io.Reader
	Out, Err      io.Writer
	OutIsTerminal bool
	ErrIsTerminal bool
	Env           configs.Env
	Environ       func() []string // the environment of worker processes
	Funcs         handlers.Funcs
	// Program is the path of this program, which runs again for each of several instances.
	Program string
	// ForceStop is closed at the second signal to stop.
	ForceStop <-chan struct{}
	// HangUps starts to deliver each SIGHUP, which otherwise ends the process, until ignore is
	// called. If HangUps is nil, SIGHUP is not handled.
	HangUps func() (hangUps <-chan os.Signal, ignore func())
	// TerminalGone reports whether the terminal of Err was closed.
	TerminalGone func() bool
}

// reportError prints an error that was not logged yet and returns the exit status.
func reportError(std *IO, err error) int {
	var wrongUsage exit.UsageError
	var start *daemon.StartError
	var loadError *handlers.LoadError
	var wrong configs.Errors
	// The error may contain texts from a server, an app or a message.
	printLine := func(text string) { _, _ = fmt.Fprintln(std.Err, "drover: "+term.Printable(text)) }
	switch {
	case errors.Is(err, exit.ErrReported):
		return ExitFailed
	case errors.As(err, &wrongUsage):
		printLine(wrongUsage.Error() + "\nSee drover --help.")
		return ExitUsage
	case errors.As(err, &wrong):
		_, _ = fmt.Fprintln(std.Err, wrong.Error())
		return ExitFailed
	case errors.As(err, &start):
		printLine("cannot start: " + start.Error())
		if errors.As(err, &loadError) && loadError.Detail != "" {
			_, _ = fmt.Fprintln(std.Err, term.Printable(loadError.Detail))
		}
		return ExitStart
	case errors.As(err, &loadError):
		printLine("all functions are disabled: " + err.Error())
		return ExitStopped
	case errors.Is(err, daemon.ErrCutShort):
		printLine(err.Error())
		return ExitCutShort
	}
	printLine(err.Error())
	return ExitFailed
}

// newLogger returns the log that a configuration requests, on standard error.
func (std *IO) newLogger(cfg configs.Log) *slog.Logger {
	log, _ := std.newLevelLogger(cfg)
	return log
}

// newLevelLogger returns a log whose level can be changed.
func (std *IO) newLevelLogger(cfg configs.Log) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	level.Set(telemetry.ParseLevel(cfg.Level))
	options := &slog.HandlerOptions{Level: level}
	if cfg.Format == "json" || cfg.Format == "auto" && !std.ErrIsTerminal {
		options.ReplaceAttr = formatDuration
		return slog.New(slog.NewJSONHandler(std.Err, options)), level
	}
	return slog.New(slog.NewTextHandler(std.Err, options)), level
}

// formatDuration replaces a duration by a text such as 1.5s, as in the text log: by default, JSON
// has nanoseconds without a unit.
func formatDuration(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

// daemonOptions returns the options of a daemon that a command runs.
func (std *IO) daemonOptions() []daemon.Option {
	out := []daemon.Option{daemon.WithEnv(std.Env, std.Environ), daemon.WithFuncs(std.Funcs), daemon.WithForceStop(std.ForceStop)}
	if std.Program != "" {
		out = append(out, daemon.WithInstances(local.Command{
			Path: std.Program, Args: []string{"instance"}, Env: std.Environ(), Stdout: std.Out, Stderr: std.Err,
		}))
	}
	return out
}

// configFlag is the flag of all commands that need a configuration.
type configFlag struct {
	Config string `short:"c" env:"DROVER_CONFIG" default:"drover.yaml" placeholder:"FILE" help:"Read this configuration (default: drover.yaml)."`
}

// fileOr returns the file that was given as an argument, or else that of the flag.
func (f configFlag) fileOr(file string) string { return cmp.Or(file, f.Config) }

// clientFlags are the flags of a command that connects to a running daemon. It needs none of the
// daemon's secrets.
type clientFlags struct {
	configFlag
	DataDir string `name:"data-dir" placeholder:"DIR" help:"Find the daemon by its data_dir, without reading a configuration."`
}

// loadClient reads only the settings that are needed to connect to the daemon.
func (f clientFlags) loadClient(ctx context.Context, std *IO) (*configs.Config, error) {
	if f.DataDir == "" {
		return configs.LoadClient(ctx, f.Config, std.Env)
	}
	dir, err := filepath.Abs(f.DataDir)
	if err != nil {
		return nil, fmt.Errorf("finding %s: %w", f.DataDir, err)
	}
	cfg := configs.New()
	cfg.DataDir = dir
	return cfg, nil
}

// newClient returns a client of the daemon.
func (f clientFlags) newClient(ctx context.Context, std *IO) (*admin.Client, error) {
	cfg, err := f.loadClient(ctx, std)
	if err != nil {
		return nil, err
	}
	return admin.NewClient(cfg)
}

// postEmpty sends a request without a body to the daemon.
func (f clientFlags) postEmpty(ctx context.Context, std *IO, path string) error {
	client, err := f.newClient(ctx, std)
	if err != nil {
		return err
	}
	return client.PostEmpty(ctx, path)
}
