package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/configs/functionapp"
	"github.com/drover-run/drover/daemon"
	"github.com/drover-run/drover/daemon/cli/functionapps"
	"github.com/drover-run/drover/daemon/cli/ownprocess"
	"github.com/drover-run/drover/scaler/local"
)

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
	cfg, err := functionapps.LoadToRun(ctx, c.fileOr(c.File), std.Env)
	if ctx.Err() != nil {
		return nil // stopped before it started
	}
	if err == nil {
		err = cfg.CheckPaths()
	}
	if err != nil {
		return err
	}
	log, level := std.newLevelLogger(cfg.Log)
	for _, w := range cfg.Warnings {
		log.Warn(w)
	}
	defer ownprocess.CatchSIGPIPE()()
	ready := make(chan struct{})
	d := daemon.New(cfg, append(std.daemonOptions(), daemon.WithLogger(log), daemon.WithLogLevel(level), daemon.WithWholeProcess(), daemon.WithReady(func() { close(ready) }))...)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	systemd := ownprocess.NotifySystemd(ctx, std.Env, d.Summary, ready, log)
	defer systemd.Close()
	defer std.handleHangUps(ctx, stop, d, systemd)()
	return d.Run(ctx)
}

// handleHangUps reloads the configuration at each SIGHUP, until the returned function is called. If
// the SIGHUP comes from a terminal that was closed, the daemon stops instead.
func (std *IO) handleHangUps(ctx context.Context, stop context.CancelFunc, d *daemon.Daemon, systemd *ownprocess.Systemd) (leave func()) {
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

// checkCommand is `drover check`.
type checkCommand struct {
	File   string `arg:"" optional:"" help:"Read this configuration, as with --config, or this directory: an Azure Functions app, or one with a drover.yaml."`
	Strict bool   `help:"Fail if a function app has functions that drover does not run."`
	configFlag
}

func (*checkCommand) Help() string {
	return `Opens no connection. The exit status is 1 if something is wrong.

Of a configuration it starts none of your code. Of an Azure Functions app in Python it imports the code, as func start does, and lists the functions with their triggers, the settings, and what drover does not run.

Examples:

    drover check drover.yaml
    drover check ./my-function-app --strict
`
}

func (c *checkCommand) Run(ctx context.Context, std *IO) error {
	path := c.fileOr(c.File)
	if dir, found := functionapp.Find(path); found {
		check := func(cfg *configs.Config) ([]string, error) { return std.checkResources(ctx, dir, cfg) }
		return functionapps.Checker{Out: std.Out, Err: std.Err, Env: std.Env, Environ: std.Environ(), CheckConfig: check, Strict: c.Strict}.Check(ctx, dir)
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		file := filepath.Join(path, "drover.yaml")
		if _, err := os.Stat(file); err != nil {
			return fmt.Errorf("%s has neither a drover.yaml nor a host.json, which an Azure Functions app has", path)
		}
		path = file
	}
	cfg, err := configs.LoadContext(ctx, path, std.Env)
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
	if err := cfg.Describe(std.Out); err != nil {
		return err
	}
	for _, note := range notes {
		fmt.Fprintln(std.Out, note)
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
