package cli

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon"
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
	cfg, err := configs.LoadContext(ctx, c.fileOr(c.File), std.Env)
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
	cfg, err := configs.LoadContext(ctx, c.fileOr(c.File), std.Env)
	if err == nil {
		err = cfg.CheckPaths()
	}
	if err != nil {
		return err
	}
	notes, err := daemon.Check(ctx, cfg, std.daemonOptions()...)
	if ctx.Err() != nil {
		return fmt.Errorf("checking %s: stopped by a signal", c.fileOr(c.File))
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
