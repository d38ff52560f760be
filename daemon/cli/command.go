package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/drover-run/drover/daemon"

	"github.com/alecthomas/kong"
	xterm "golang.org/x/term"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/daemon/cli/ownprocess"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/internal/buildinfo"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/scaler/local"
)

// This file is the command line: with package ownprocess, the only place that touches signals,
// flags, the environment and the exit status.

// Exit statuses.
const (
	ExitOK       = 0 // ended as asked; everything in flight was finished
	ExitFailed   = 1 // the configuration is wrong, or what was asked for did not work
	ExitUsage    = 2 // the command line is wrong
	ExitStart    = 3 // the daemon could not start: a connection, a worker, code that does not load, a lock
	ExitCutShort = 4 // stopped, but the drain time was too short for what was in flight
	ExitStopped  = 5 // all functions were disabled while the daemon ran, because their code no longer loads
)

// commandLine is all commands. Each has a method Run, which is given the context
// and the IO if it takes them, and a method Help with an example.
type commandLine struct {
	Init       initCommand       `cmd:"" help:"Write a small project that runs."`
	Run        runCommand        `cmd:"" help:"Run the functions of a configuration until SIGTERM or SIGINT."`
	Demo       demoCommand       `cmd:"" help:"Run three functions under load for a while, with nothing to set up."`
	Check      checkCommand      `cmd:"" help:"Check a configuration: print what it would run, or everything that is wrong with it."`
	Status     statusCommand     `cmd:"" help:"Show how each function of a running daemon is doing: a live table on a terminal, else printed once."`
	Health     healthCommand     `cmd:"" help:"Check the health of a running daemon: exit status 0 if healthy, else 1 with the reason. For container health checks."`
	Explain    whyCommand        `cmd:"" help:"Explain why a function or a message waits."`
	Tail       tailCommand       `cmd:"" help:"Follow the log of a function."`
	Pause      pauseCommand      `cmd:"" help:"Pause a function: stop receiving new messages; those in flight finish."`
	Resume     resumeCommand     `cmd:"" help:"Resume a paused function."`
	Reload     reloadCommand     `cmd:"" help:"Reload the configuration of a running daemon."`
	Send       sendCommand       `cmd:"" help:"Send messages to a function, a subject or a queue."`
	Invoke     invokeCommand     `cmd:"" help:"Run one message through a function, without a queue."`
	Capture    captureCommand    `cmd:"" help:"Copy messages that wait for a function into a file, without removing them."`
	Tune       tuneCommand       `cmd:"" help:"Find the best numbers of processes, threads and coroutines for a function, under load from real messages."`
	Dead       deadCommand       `cmd:"" help:"List, show, replay or purge dead letters: messages that were rejected or failed too often."`
	Emulate    emulateCommand    `cmd:"" help:"Run a local emulator of an Azure service."`
	Scale      scaleCommand      `cmd:"" help:"Explain or simulate scaling decisions."`
	Config     configCommand     `cmd:"" help:"Print the schemas of the configuration and of the admin API."`
	Worker     workerCommand     `cmd:"" help:"Test a worker, or write type information for apps."`
	Instance   instanceCommand   `cmd:"" hidden:"" help:"Run one of several instances; started by drover run."`
	Completion completionCommand `cmd:"" help:"Print a completion script for a shell."`
	Complete   completeCommand   `cmd:"" hidden:"" help:"Complete a command line; called by the completion scripts."`
	Version    versionCommand    `cmd:"" help:"Print the version."`
}

type configCommand struct {
	Schema  schemaCommand  `cmd:"" help:"Print the JSON Schema of a configuration."`
	OpenAPI openAPICommand `cmd:"" name:"openapi" help:"Print the OpenAPI document of the admin server."`
}

// IO is what a command is connected to.
type IO struct {
	In            io.Reader
	Out, Err      io.Writer
	OutIsTerminal bool
	ErrIsTerminal bool
	Env           configs.Env
	Environ       func() []string // what worker processes get
	Funcs         handlers.Funcs
	// Program is the path of this program, which is run again for each of several
	// instances.
	Program string
	// Hurry is closed when a stop is asked for a second time.
	Hurry <-chan struct{}
	// HangUps begins to tell of each SIGHUP, which otherwise ends the process, until
	// ignore is called; nil: they are not looked at.
	HangUps func() (hangUps <-chan os.Signal, ignore func())
	// TerminalGone reports whether the terminal of Err was closed.
	TerminalGone func() bool
}

// Main is the command drover: it reads the arguments, does as they say, and ends
// the process. A Go program offers its functions with WithFuncs.
func Main(options ...daemon.Option) {
	ctx, hurry, stop := ownprocess.StopSignals()
	_ = ownprocess.HideFromPeers() // if it fails, it is as in any other program
	program, err := os.Executable()
	if err != nil {
		program = "" // then there is one instance
	}
	status := Command(ctx, os.Args[1:], &IO{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		OutIsTerminal: xterm.IsTerminal(int(os.Stdout.Fd())),
		ErrIsTerminal: xterm.IsTerminal(int(os.Stderr.Fd())),
		Env:           os.LookupEnv,
		Environ:       environ,
		Funcs:         daemon.FuncsOf(options...),
		Program:       program,
		Hurry:         hurry,
		HangUps:       ownprocess.HangUps,
		TerminalGone:  func() bool { return !xterm.IsTerminal(int(os.Stderr.Fd())) },
	})
	stop()
	os.Exit(status)
}

// environ is what worker processes and instances get: not what systemd says to
// this process alone.
func environ() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "NOTIFY_SOCKET=") || strings.HasPrefix(v, "WATCHDOG_")
	})
}

// Command does what the arguments say and returns the exit status. ctx ends a
// command that runs on, such as run.
func Command(ctx context.Context, args []string, std *IO) int {
	switch {
	case len(args) == 0:
		args = []string{"--help"}
	case args[0] == "help":
		args = append(slices.Clone(args[1:]), "--help")
	case args[0] == "--version":
		args = append([]string{"version"}, args[1:]...)
	}
	helped := -1
	parser := newParser(ctx, std, func(status int) { helped = status })
	parsed, err := parser.Parse(args)
	if helped >= 0 { // by --help
		return helped
	}
	if err == nil {
		err = parsed.Run() // of the command that was chosen
	} else {
		err = exit.UsageError(err.Error())
	}
	if err == nil {
		return ExitOK
	}
	return report(std, err)
}

// newParser makes the parser of the command line; exit is called where only help
// was asked for.
func newParser(ctx context.Context, std *IO, exit func(status int)) *kong.Kong {
	parser, err := kong.New(new(commandLine),
		kong.Name("drover"),
		kong.Description("Runs functions against queues. First: drover demo, then drover init."),
		kong.Writers(std.Out, std.Err),
		kong.Exit(exit),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.BindTo(std.Out, (*io.Writer)(nil)), kong.Bind(std),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.UsageOnError(),
	)
	if err != nil {
		panic(err) // the command line's own definition is wrong
	}
	return parser
}

// report prints an error that was not logged yet and returns the exit status.
func report(std *IO, err error) int {
	var wrongUsage exit.UsageError
	var start *daemon.StartError
	var loadError *handlers.LoadError
	var wrong configs.Errors
	// An error may quote what a server, an app or a message says.
	say := func(text string) { _, _ = fmt.Fprintln(std.Err, "drover: "+term.Printable(text)) }
	switch {
	case errors.Is(err, exit.ErrReported):
		return ExitFailed
	case errors.As(err, &wrongUsage):
		say(wrongUsage.Error() + "\nSee drover --help.")
		return ExitUsage
	case errors.As(err, &wrong):
		_, _ = fmt.Fprintln(std.Err, wrong.Error())
		return ExitFailed
	case errors.As(err, &start):
		say("cannot start: " + start.Error())
		if errors.As(err, &loadError) && loadError.Detail != "" {
			_, _ = fmt.Fprintln(std.Err, term.Printable(loadError.Detail))
		}
		return ExitStart
	case errors.As(err, &loadError):
		say("all functions are disabled: " + err.Error())
		return ExitStopped
	case errors.Is(err, daemon.ErrCutShort):
		say(err.Error())
		return ExitCutShort
	}
	say(err.Error())
	return ExitFailed
}

// logger makes the log that a configuration asks for, on standard error.
func (std *IO) logger(cfg configs.Log) *slog.Logger {
	log, _ := std.levelledLogger(cfg)
	return log
}

// levelledLogger makes one whose level can be changed.
func (std *IO) levelledLogger(cfg configs.Log) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	level.Set(telemetry.ParseLevel(cfg.Level))
	options := &slog.HandlerOptions{Level: level}
	if cfg.Format == "json" || cfg.Format == "auto" && !std.ErrIsTerminal {
		options.ReplaceAttr = withUnit
		return slog.New(slog.NewJSONHandler(std.Err, options)), level
	}
	return slog.New(slog.NewTextHandler(std.Err, options)), level
}

// withUnit writes a duration as 1.5s, as the text log does: JSON has nanoseconds, and
// does not say so.
func withUnit(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

// configFlag is the flag of all commands that need a configuration.
type configFlag struct {
	Config string `short:"c" env:"DROVER_CONFIG" default:"drover.yaml" placeholder:"FILE" help:"Read this configuration (default: drover.yaml)."`
}

// or returns the file that was given as an argument, or else the flag's.
func (f configFlag) or(file string) string { return cmp.Or(file, f.Config) }

type runCommand struct {
	File string `arg:"" optional:"" help:"Read this configuration, as with --config."`
	configFlag
}

func (*runCommand) Help() string {
	return `The first SIGTERM or SIGINT stops receiving and waits for messages in flight, at most for the time of the key drain.
A second one ends the wait at once. Two SIGTERMs within a second count as one.

Examples:

    drover run                       # ./drover.yaml
    drover run /etc/drover/orders.yaml
`
}

func (c *runCommand) Run(ctx context.Context, std *IO) error {
	cfg, err := configs.LoadContext(ctx, c.or(c.File), std.Env)
	if ctx.Err() != nil {
		return nil // stopped before it started
	}
	if err == nil {
		err = cfg.CheckPaths()
	}
	if err != nil {
		return err
	}
	log, level := std.levelledLogger(cfg.Log)
	for _, w := range cfg.Warnings {
		log.Warn(w)
	}
	defer ownprocess.SurviveClosedLog()()
	ready := make(chan struct{})
	d := daemon.New(cfg, append(std.options(), daemon.WithLogger(log), daemon.WithLogLevel(level), daemon.WithWholeProcess(), daemon.WithReady(func() { close(ready) }))...)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	systemd := ownprocess.NotifySystemd(ctx, std.Env, d.Summary, ready, log)
	defer systemd.Close()
	defer std.onHangUp(ctx, stop, d, systemd)()
	return d.Run(ctx)
}

// onHangUp has each SIGHUP reload the configuration, until the returned function
// is called. That of a terminal that was closed stops the daemon instead.
func (std *IO) onHangUp(ctx context.Context, stop context.CancelFunc, d *daemon.Daemon, systemd *ownprocess.Systemd) (leave func()) {
	if std.HangUps == nil {
		return func() {}
	}
	hangUps, ignore := std.HangUps()
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			select {
			case <-hangUps:
			case <-ctx.Done():
				return
			}
			if std.ErrIsTerminal && std.TerminalGone() {
				stop()
				return
			}
			systemd.BeginReload()
			_, _ = d.ReloadFile(ctx) // a refusal is logged
			systemd.EndReload()
		}
	})
	return func() {
		ignore()
		cancel()
		running.Wait()
	}
}

// options are those of a daemon that a command runs.
func (std *IO) options() []daemon.Option {
	out := []daemon.Option{daemon.WithEnv(std.Env, std.Environ), daemon.WithFuncs(std.Funcs), daemon.WithForceStop(std.Hurry)}
	if std.Program != "" {
		out = append(out, daemon.WithInstances(local.Command{
			Path: std.Program, Args: []string{"instance"}, Env: std.Environ(), Stdout: std.Out, Stderr: std.Err,
		}))
	}
	return out
}

type checkCommand struct {
	File string `arg:"" optional:"" help:"Read this configuration, as with --config."`
	configFlag
}

func (*checkCommand) Help() string {
	return `Opens no connection and starts none of your code. The exit status is 1 if something is wrong.

Example:

    drover check drover.yaml
`
}

func (c *checkCommand) Run(ctx context.Context, std *IO) error {
	cfg, err := configs.LoadContext(ctx, c.or(c.File), std.Env)
	if err == nil {
		err = cfg.CheckPaths()
	}
	if err != nil {
		return err
	}
	notes, err := daemon.Check(ctx, cfg, std.options()...)
	if ctx.Err() != nil {
		return fmt.Errorf("checking %s: stopped by a signal", c.or(c.File))
	}
	if err != nil {
		return err
	}
	if err := cfg.Describe(std.Out); err != nil {
		return err
	}
	for _, note := range notes {
		_, _ = fmt.Fprintln(std.Out, note)
	}
	return nil
}

type schemaCommand struct{}

func (schemaCommand) Help() string {
	return `Editors with a YAML language server use it to complete and check configurations.

Example:

    drover config schema > drover.schema.json
`
}

func (schemaCommand) Run(std *IO) error {
	schema, err := configs.Schema()
	if err != nil {
		return err
	}
	_, err = std.Out.Write(append(schema, '\n'))
	return err
}

type versionCommand struct{}

func (versionCommand) Help() string {
	return `Example:

    drover version
`
}

func (versionCommand) Run(std *IO) error {
	_, err := fmt.Fprintf(std.Out, "drover %s (%s, %s/%s)\n", buildinfo.Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}

// instanceCommand is `drover instance`, which drover run starts.
type instanceCommand struct{}

func (instanceCommand) Run(ctx context.Context, std *IO) (err error) {
	link, err := local.Attach(std.Env)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, link.Close()) }()
	defer ownprocess.SurviveClosedLog()()
	return daemon.RunInstance(ctx, link, std.Env, std.levelledLogger, std.options()...)
}
