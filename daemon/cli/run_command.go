package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/configs/functionapp"
	"github.com/drover-run/drover/daemon"
	"github.com/drover-run/drover/daemon/cli/codecheck"
	"github.com/drover-run/drover/daemon/cli/console"
	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/daemon/cli/functionapps"
	"github.com/drover-run/drover/daemon/cli/ownprocess"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/watch"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/scaler/local"
)

type runCommand struct {
	File  string `arg:"" optional:"" help:"Read this configuration, as with --config, or this directory: an Azure Functions app, or one with a drover.yaml."`
	Watch bool   `help:"Reload when a file of the configuration or of an app's code is saved. If the new code does not load, the old code keeps running."`
	configFlag
}

func (*runCommand) Help() string {
	return `The first SIGTERM or SIGINT stops receiving and waits for messages in flight, at most for the time of the key drain.
A second one ends the wait at once. Two SIGTERMs within a second count as one.

Examples:

    drover run                       # ./drover.yaml, or an Azure Functions app here
    drover run /etc/drover/orders.yaml
    drover run ./my-function-app
    drover run --watch               # reload the code when it is saved
`
}

func (c *runCommand) Run(ctx context.Context, std *IO) error {
	if !c.Watch {
		return c.runDaemon(ctx, std, nil)
	}
	w := watch.New(c.fileOr(c.File))
	return w.RunAgain(ctx, func() error { return c.runDaemon(ctx, std, w) }, func(err error) {
		reportError(std, err, "drover run")
		_, _ = fmt.Fprintln(std.Err, "drover: waiting until a file is saved")
	})
}

// runDaemon runs the daemon with the current configuration until ctx ends. With a Watcher, it reloads
// saved files.
func (c *runCommand) runDaemon(ctx context.Context, std *IO, saves *watch.Watcher) error {
	cfg, err := functionapps.LoadProgram(ctx, c.fileOr(c.File), std.program(), std.newLogger)
	if ctx.Err() != nil {
		return nil // stopped before it started
	}
	if err == nil {
		err = cfg.CheckPaths()
	}
	if err != nil {
		return startError(err)
	}
	log, level := std.newLevelLogger(cfg.Log)
	for _, w := range cfg.Warnings {
		log.Warn(w)
	}
	defer ownprocess.CatchSIGPIPE()()
	ready := make(chan struct{})
	var d *daemon.Daemon
	onReady := func() {
		close(ready)
		if std.isLogForPeople(cfg.Log) {
			_, _ = io.WriteString(std.Err, console.StartText(console.Start{
				Config: cfg, Path: c.fileOr(c.File), Interpreters: daemon.Interpreters(d), Env: std.Env,
			}, console.StyleOf(true, std.Env).For(std.Err)))
		}
	}
	d = daemon.New(cfg, append(std.daemonOptions(), daemon.WithLogger(log), daemon.WithLogLevel(level), daemon.WithWholeProcess(), daemon.WithReady(onReady))...)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	systemd := ownprocess.NotifySystemd(ctx, std.Env, d.Summary, ready, log)
	defer systemd.Close()
	gone := func() bool { return std.ErrIsTerminal && std.TerminalGone() }
	defer ownprocess.ReloadAtHangUps(ctx, std.HangUps, gone, stop, func(ctx context.Context) {
		systemd.BeginReload()
		_, _ = d.ReloadFile(ctx) // a refusal is logged
		systemd.EndReload()
	})()
	if saves != nil {
		saves.Follow(cfg)
		defer saves.StartReloads(ctx, ready, d, log)()
	}
	err = d.Run(ctx)
	var start *daemon.StartError
	var code *handlers.LoadError
	if errors.As(err, &code) && !errors.As(err, &start) {
		return fmt.Errorf("all functions are disabled: %w", err)
	}
	return err
}

// checkCommand is `drover check`.
type checkCommand struct {
	File   string `arg:"" optional:"" help:"Read this configuration, as with --config, or this directory: an Azure Functions app, or one with a drover.yaml."`
	Strict bool   `help:"Fail if a function app has functions that drover does not run."`
	Load   bool   `help:"Import the code, too: start one worker of each app, which loads the functions, and stop it."`
	configFlag
}

func (*checkCommand) Help() string {
	return `Opens no connection. The exit status is 1 if the configuration is wrong, and 5 if the code of a function does not load.

Parses the code of functions in Python and Node.js without importing it, to find missing modules, functions and packages, syntax errors, and parameters that do not fit. --load also imports the code, which runs all code outside functions. The code of an Azure Functions app in Python is always imported, as by func start; the functions are listed with their triggers, the settings, and everything that drover does not run.

Examples:

    drover check drover.yaml
    drover check drover.yaml --load
    drover check ./my-function-app --strict
`
}

func (c *checkCommand) Run(ctx context.Context, std *IO) error {
	path := c.fileOr(c.File)
	if dir, found := functionapp.Find(path); found {
		check := func(cfg *configs.Config) ([]string, error) { return std.checkResources(ctx, dir, cfg) }
		return functionapps.Checker{Out: std.Out, Err: std.Err, Env: std.Env, Environ: std.Environ(), CheckConfig: check, Strict: c.Strict}.Check(ctx, dir)
	}
	cfg, err := functionapps.LoadProgram(ctx, path, std.program(), std.newLogger)
	if err == nil {
		err = cfg.CheckPaths()
	}
	if err != nil {
		return err
	}
	notes, err := std.checkResources(ctx, path, cfg)
	if err != nil {
		return err
	}
	more, err := codecheck.Check(ctx, cfg, std.Env, std.Environ())
	if err != nil {
		return &exit.CodeError{Err: err}
	}
	if err := functionapps.PrintCheck(std.Out, cfg.Describe, append(notes, more...)); err != nil {
		return err
	}
	if c.Load {
		return codecheck.Load(ctx, std.Out, std.Err, apps.Options{Config: cfg, Env: std.Env, Environ: std.Environ})
	}
	return nil
}

// checkResources checks a configuration on this machine. It returns remarks.
func (std *IO) checkResources(ctx context.Context, path string, cfg *configs.Config) (notes []string, err error) {
	notes, err = daemon.Check(ctx, cfg, std.daemonOptions()...)
	if ctx.Err() != nil {
		err = fmt.Errorf("checking %s: stopped by a signal", path)
	}
	return notes, err
}

// instanceCommand is `drover instance`, which drover run starts.
type instanceCommand struct{}

func (instanceCommand) Run(ctx context.Context, std *IO) (err error) {
	link, err := local.Attach(std.Env)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, link.Close()) }()
	defer ownprocess.CatchSIGPIPE()()
	return daemon.RunInstance(ctx, link, std.Env, std.newLevelLogger, std.daemonOptions()...)
}
