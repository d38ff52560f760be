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
	"github.com/drover-run/drover/daemon/cli/console"
	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/daemon/cli/functionapps"
	"github.com/drover-run/drover/daemon/cli/live"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/program"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/scaler/local"
)

// This file has what commands share: their connection to the process, their flags, their logs and
// the exit status. It depends on no command.

// Exit statuses. docs/commands.md lists them for users.
const (
	ExitOK       = 0 // ended as requested; everything in flight was finished
	ExitFailed   = 1 // the configuration is wrong, or the request failed
	ExitUsage    = 2 // the command line is wrong
	ExitStart    = 3 // the daemon could not start: a connection, a worker, a lock
	ExitCutShort = 4 // stopped, but the drain time was too short for the messages in flight
	ExitCode     = 5 // the code of a function does not load: at the start, at a reload, in a check, or later while the daemon runs
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
	BatchFuncs    handlers.BatchFuncs
	Options       []daemon.Option // of the program
	// Program is the path of this program, which runs again for each of several instances.
	Program string
	// ForceStop is closed at the second signal to stop.
	ForceStop <-chan struct{}
	// HangUps starts to deliver each SIGHUP, which otherwise ends the process, until ignore is
	// called. If HangUps is nil, SIGHUP is not handled.
	HangUps func() (hangUps <-chan os.Signal, ignore func())
	// Resizes delivers each change of the terminal's size, until stop is called. If Resizes is nil, a
	// table adapts when it is next drawn.
	Resizes func() (resizes <-chan os.Signal, stop func())
	// Interrupts calls a function for each SIGINT instead of stopping, until stop is called.
	Interrupts func(to func()) (stop func())
	// TerminalGone reports whether the terminal of Err was closed.
	TerminalGone func() bool
}

// reportError prints an error of a command that was not logged yet, and returns the exit status.
func reportError(std *IO, err error, command string) int {
	var wrongUsage exit.UsageError
	var start *daemon.StartError
	var code *exit.CodeError
	var loadError *handlers.LoadError
	var wrong configs.Errors
	// The error may contain texts from a server, an app or a message.
	printLine := func(text string) { _ = term.Print(std.Err, "drover: "+term.Printable(text)+"\n") }
	switch {
	case errors.Is(err, exit.ErrCodeReported):
		return ExitCode
	case errors.Is(err, exit.ErrReported):
		return ExitFailed
	case errors.As(err, &wrongUsage):
		printLine(wrongUsage.Error() + "\nSee " + command + " --help.")
		return ExitUsage
	case errors.As(err, &wrong):
		_ = term.Print(std.Err, term.Printable(wrong.Error())+"\n")
		if errors.As(err, &code) {
			return ExitCode
		}
		return ExitFailed
	case errors.As(err, &start):
		printLine("cannot start: " + start.Error())
		var instance *local.EndedError // which has logged why
		if errors.As(err, &instance) && instance.Status == ExitCode {
			return ExitCode
		}
		if !errors.As(err, &loadError) {
			return ExitStart
		}
		if loadError.Detail != "" {
			_, _ = fmt.Fprintln(std.Err, term.Printable(loadError.Detail))
		}
		return ExitCode
	case errors.As(err, &code):
		printLine(err.Error())
		return ExitCode
	case errors.As(err, &loadError):
		printLine(err.Error())
		if loadError.Detail != "" {
			_, _ = fmt.Fprintln(std.Err, term.Printable(loadError.Detail))
		}
		return ExitCode
	case errors.Is(err, daemon.ErrCutShort):
		printLine(err.Error())
		return ExitCutShort
	}
	printLine(err.Error())
	return ExitFailed
}

// startError returns the error of a daemon that cannot start because the code of a function app
// cannot be loaded, and other errors unchanged.
func startError(err error) error {
	var index *apps.IndexError
	var code *handlers.LoadError
	if errors.As(err, &index) || errors.As(err, &code) {
		return &daemon.StartError{Err: err}
	}
	return err
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
	if std.isLogForPeople(cfg) {
		return slog.New(console.New(std.Err, console.StyleOf(true, std.Env), level)), level
	}
	if cfg.Format != "text" {
		options.ReplaceAttr = formatDuration
		return slog.New(slog.NewJSONHandler(std.Err, options)), level
	}
	return slog.New(slog.NewTextHandler(std.Err, options)), level
}

// isLogForPeople reports whether the log is printed in the format for terminals.
func (std *IO) isLogForPeople(cfg configs.Log) bool {
	return cfg.Format == "auto" && std.ErrIsTerminal
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
	out := append([]daemon.Option{daemon.WithFuncs(std.Funcs), daemon.WithBatchFuncs(std.BatchFuncs)}, std.Options...)
	out = append(out, daemon.WithEnv(std.Env, std.Environ), daemon.WithForceStop(std.ForceStop))
	if std.ErrIsTerminal {
		out = append(out, daemon.WithTerminalLog())
	}
	if std.Program != "" {
		out = append(out, daemon.WithInstances(local.Command{
			Path: std.Program, Args: []string{"instance"}, Env: std.Environ(), Stdout: std.Out, Stderr: std.Err,
		}))
	}
	return out
}

// program returns the functions and options of the program.
func (std *IO) program() *program.Options {
	own := new(program.Options)
	for _, option := range std.daemonOptions() {
		option(own)
	}
	return own
}

// appOptions returns the options of a function that a command runs without a daemon.
func (std *IO) appOptions(cfg *configs.Config, log *slog.Logger) apps.Options {
	own := std.program()
	return apps.Options{Config: cfg, Handlers: own.Handlers(), Funcs: own.Funcs, BatchFuncs: own.BatchFuncs, Env: std.Env, Environ: std.Environ, Log: log}
}

// loadConfig returns the configuration at a path, for a command that uses its queues. It drops the output
// of a function app's code.
func (std *IO) loadConfig(ctx context.Context, path string) (*configs.Config, error) {
	return functionapps.LoadProgram(ctx, path, std.program(), func(configs.Log) *slog.Logger { return slog.New(slog.DiscardHandler) })
}

// inFrame returns the IO of commands that write to a frame on the terminal: their log appears above
// its table.
func (std *IO) inFrame(frame *live.Frame) *IO {
	framed := *std
	framed.Out = frame
	if std.ErrIsTerminal {
		framed.Err = frame
	}
	return &framed
}

// configFlag is the flag of all commands that need a configuration.
type configFlag struct {
	Config string `short:"c" default:"${config}" placeholder:"FILE" help:"Read this configuration (default: drover.yaml, or $$DROVER_CONFIG if set)."`
}

// AfterApply is called by the parser.
func (f *configFlag) AfterApply() error {
	if f.Config == "" {
		return exit.UsageError("--config is empty; name a configuration file")
	}
	return nil
}

// defaultConfig returns the configuration that commands read without --config.
func defaultConfig(std *IO) string {
	file := ""
	if std.Env != nil {
		file, _ = std.Env("DROVER_CONFIG")
	}
	return cmp.Or(file, "drover.yaml")
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
	cfg := configs.New()
	dir := f.DataDir
	if dir == "" && !functionapps.NeedsNoFile(f.Config, std.program()) {
		return functionapps.LoadClient(ctx, f.Config, std.Env)
	}
	dir = cmp.Or(dir, cfg.DataDir)
	var err error
	if cfg.DataDir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("finding %s: %w", dir, err)
	}
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
