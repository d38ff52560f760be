package cli

import (
	"context"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	xterm "golang.org/x/term"

	"github.com/drover-run/drover/daemon"
	"github.com/drover-run/drover/daemon/cli/about"
	"github.com/drover-run/drover/daemon/cli/completion"
	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/daemon/cli/ownprocess"
	"github.com/drover-run/drover/daemon/cli/suggest"
)

// This file is the command line: with package ownprocess, the only place that touches signals,
// flags, the environment and the exit status.

// commandLine has all commands, in the order of the help. Each has a method Run, which may take the
// context and the IO, and a method Help with an example. Its group is a key of commandGroups.
type commandLine struct {
	Demo  demoCommand  `cmd:"" group:"begin" help:"Run three functions under load for a while, with nothing to set up."`
	Init  initCommand  `cmd:"" group:"begin" help:"Write a small project that runs."`
	Check checkCommand `cmd:"" group:"begin" help:"Check a configuration: print what it would run, or every mistake."`
	Run   runCommand   `cmd:"" group:"begin" help:"Run the functions of a configuration until SIGTERM or SIGINT."`
	Send  sendCommand  `cmd:"" group:"begin" help:"Send messages to a function, a subject or a queue."`

	Invoke  invokeCommand  `cmd:"" group:"develop" help:"Run one message through a function, without a queue."`
	Capture captureCommand `cmd:"" group:"develop" help:"Copy messages waiting for a function into a file, without removing them."`
	Tune    tuneCommand    `cmd:"" group:"develop" help:"Find the best numbers of processes, threads and coroutines for a function, under load from real messages."`
	Emulate emulateCommand `cmd:"" group:"develop" help:"Run a local emulator of an Azure service."`
	Worker  workerCommand  `cmd:"" group:"develop" help:"Test a worker, or write type information for apps."`

	clientCommands

	Dead   deadCommand   `cmd:"" group:"dead" help:"List, show, replay or purge dead letters: messages that were rejected or failed too often."`
	Replay replayCommand `cmd:"" group:"dead" help:"Send a dead letter back to its source, or debug a function with it."`

	Config configCommand `cmd:"" group:"configure" help:"Print the effective configuration, and the schemas of the configuration and of the admin API."`
	Scale  scaleCommand  `cmd:"" group:"control" help:"Explain or simulate scaling decisions."`

	Completion completion.Command `cmd:"" group:"about" help:"Print a completion script for a shell."`
	Version    about.Version      `cmd:"" group:"about" help:"Print the version, the commit, and the versions of Go and of the worker protocol."`

	Instance instanceCommand     `cmd:"" hidden:"" help:"Run one of several instances; started by drover run."`
	Complete completion.Complete `cmd:"" hidden:"" help:"Complete a command line; called by the completion scripts."`
}

// commandGroups are the groups of commands in the help, by task. docs/commands.md has a section for each.
var commandGroups = []kong.Group{
	{Key: "begin", Title: "Begin:"},
	{Key: "develop", Title: "Develop and test:"},
	{Key: "control", Title: "Inspect and control a running daemon:"},
	{Key: "dead", Title: "Dead letters:"},
	{Key: "configure", Title: "Configure:"},
	{Key: "about", Title: "About drover:"},
}

// clientCommands are the commands that need a running daemon.
type clientCommands struct {
	Status  statusCommand  `cmd:"" group:"control" help:"Show the state of each function of a running daemon: a live table on a terminal, else printed once."`
	Tail    tailCommand    `cmd:"" group:"control" help:"Follow the log of a function."`
	Explain explainCommand `cmd:"" group:"control" help:"Explain why a function or a message waits."`
	Health  healthCommand  `cmd:"" group:"control" help:"Check the health of a running daemon: exit status 0 if healthy, else 1 with the reason. For container health checks."`
	Profile profileCommand `cmd:"" group:"control" help:"Show where a function spends its time: write a flame graph and a pprof file from sampled stacks."`
	Pause   pauseCommand   `cmd:"" group:"control" help:"Pause a function: stop receiving new messages; those in flight finish."`
	Resume  resumeCommand  `cmd:"" group:"control" help:"Resume a paused function."`
	Reload  reloadCommand  `cmd:"" group:"control" help:"Reload the configuration of a running daemon."`
}

// Main is the command drover: it runs the command of the process's arguments, and ends the
// process. A Go program passes its functions as options, with daemon.WithFunction or daemon.WithFuncs.
// With the former it needs no configuration file.
func Main(options ...daemon.Option) { os.Exit(runProcess(ownprocess.TermInterval, options...)) }

// runProcess is Main, with the time within which a second SIGTERM is ignored. It returns the exit
// status.
func runProcess(termInterval time.Duration, options ...daemon.Option) int {
	ctx, forceStop, stop := ownprocess.StopSignals(termInterval)
	defer stop()
	_ = ownprocess.HideFromPeers() // without it, drover runs like any other program
	program, err := os.Executable()
	if err != nil {
		program = "" // then instances are not possible
	}
	return Command(ctx, os.Args[1:], &IO{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		OutIsTerminal: xterm.IsTerminal(int(os.Stdout.Fd())),
		ErrIsTerminal: xterm.IsTerminal(int(os.Stderr.Fd())),
		Env:           os.LookupEnv,
		Environ:       childEnviron,
		Options:       options,
		Program:       program,
		ForceStop:     forceStop,
		HangUps:       ownprocess.HangUps,
		Resizes:       ownprocess.Resizes,
		Interrupts:    ownprocess.DivertInterrupts,
		TerminalGone:  func() bool { return !xterm.IsTerminal(int(os.Stderr.Fd())) },
	})
}

// childEnviron returns the environment for worker processes and instances, without the variables of
// systemd that are for this process alone.
func childEnviron() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "NOTIFY_SOCKET=") || strings.HasPrefix(v, "WATCHDOG_")
	})
}

// Command runs the command of the arguments and returns the exit status. The end of ctx ends
// commands that run for long, such as run.
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
	command := suggest.Command(parsed, err)
	if err == nil {
		err = parsed.Run() // of the chosen command
	} else if unknown := suggest.Unknown(parser.Model.Node, args); unknown != "" {
		err = exit.UsageError(unknown)
	} else {
		err = exit.UsageError(err.Error())
	}
	if err == nil {
		return ExitOK
	}
	return reportError(std, err, command)
}

// newParser returns the parser of the command line; exit is called if only help was requested.
func newParser(ctx context.Context, std *IO, exit func(status int)) *kong.Kong {
	parser, err := kong.New(new(commandLine),
		kong.Name("drover"),
		kong.Description("Runs functions against queues. First: drover demo, then drover init."),
		kong.Writers(std.Out, std.Err),
		kong.Exit(exit),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.BindTo(std.Out, (*io.Writer)(nil)), kong.Bind(std),
		kong.Bind(&completion.Program{Path: std.Program, Config: defaultConfig(std)}),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.ExplicitGroups(commandGroups),
		kong.Vars{"config": defaultConfig(std)},
		kong.UsageOnError(),
	)
	if err != nil {
		panic(err) // the definition of the command line is wrong
	}
	return parser
}
