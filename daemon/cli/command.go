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
	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/daemon/cli/ownprocess"
)

// This file is the command line: with package ownprocess, the only place that touches signals,
// flags, the environment and the exit status.

// commandLine has all commands. Each has a method Run, which receives the context and the IO if it
// takes them, and a method Help with an example.
type commandLine struct {
	Init  initCommand  `cmd:"" help:"Write a small project that runs."`
	Run   runCommand   `cmd:"" help:"Run the functions of a configuration until SIGTERM or SIGINT."`
	Demo  demoCommand  `cmd:"" help:"Run three functions under load for a while, with nothing to set up."`
	Check checkCommand `cmd:"" help:"Check a configuration: print what it would run, or everything that is wrong with it."`
	clientCommands
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

// clientCommands are the commands that need a running daemon.
type clientCommands struct {
	Status  statusCommand  `cmd:"" help:"Show how each function of a running daemon is doing: a live table on a terminal, else printed once."`
	Health  healthCommand  `cmd:"" help:"Check the health of a running daemon: exit status 0 if healthy, else 1 with the reason. For container health checks."`
	Explain explainCommand `cmd:"" help:"Explain why a function or a message waits."`
	Tail    tailCommand    `cmd:"" help:"Follow the log of a function."`
	Pause   pauseCommand   `cmd:"" help:"Pause a function: stop receiving new messages; those in flight finish."`
	Resume  resumeCommand  `cmd:"" help:"Resume a paused function."`
	Reload  reloadCommand  `cmd:"" help:"Reload the configuration of a running daemon."`
}

// Main is the command drover: it runs the command of the process's arguments, and ends the
// process. A Go program offers its functions with WithFuncs.
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
		Funcs:         daemon.FuncsOf(options...),
		Program:       program,
		ForceStop:     forceStop,
		HangUps:       ownprocess.HangUps,
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
	if err == nil {
		err = parsed.Run() // of the chosen command
	} else {
		err = exit.UsageError(err.Error())
	}
	if err == nil {
		return ExitOK
	}
	return reportError(std, err)
}

// newParser returns the parser of the command line; exit is called if only help was requested.
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
		panic(err) // the definition of the command line is wrong
	}
	return parser
}
