package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/bodymemory"
	"github.com/drover-run/drover/daemon/internal/instances"
	"github.com/drover-run/drover/scaler/local"
)

// reportInterval is the time between two reports of an instance to its parent.
const reportInterval = 500 * time.Millisecond

// RunInstance runs one of several instances until its parent, at the other end of link, has
// it drain. ctx ends it too; if it ends during the drain, the drain is cut short. newLog
// returns the log of a configuration and its level. The errors are those of Daemon.Run.
func RunInstance(ctx context.Context, link *local.Link, env configs.Env, newLog func(configs.Log) (*slog.Logger, *slog.LevelVar), options ...Option) (err error) {
	var hello instances.Greeting
	if err := json.Unmarshal(link.Hello, &hello); err != nil {
		return fmt.Errorf("reading the greeting: %w", err)
	}
	cfg, err := hello.ParseConfig(env, bodymemory.InstanceLimit)
	if err != nil {
		return err
	}
	log, level := newLog(cfg.Log)
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended, hurry := make(chan struct{}), make(chan struct{})
	var background sync.WaitGroup
	defer background.Wait()
	defer close(ended)
	background.Go(func() {
		select {
		case <-link.Drain():
			stop()
		case <-ended:
			return
		}
		select {
		case <-ctx.Done(): // a signal during the drain
			close(hurry)
		case <-ended:
		}
	})
	ready := make(chan struct{})
	d := New(cfg, append(options, WithLogger(log.With("instance", hello.ID)), WithLogLevel(level), WithWholeProcess(), WithHurry(hurry),
		withParent(hello.Parent), WithReady(func() { close(ready) }))...)
	background.Go(func() {
		select {
		case <-ready:
			d.report(link, ended)
		case <-ended:
		}
	})
	err = d.Run(running)
	select {
	case <-ready:
		err = errors.Join(err, link.Report(d.InFlight(), d.newReport())) // the last word
	default:
	}
	return err
}

// report reports until the instance has ended.
func (d *Daemon) report(link *local.Link, ended <-chan struct{}) {
	tick := time.NewTicker(reportInterval)
	defer tick.Stop()
	for {
		if err := link.Report(d.InFlight(), d.newReport()); err != nil {
			return // the parent has ended, so that the instance drains
		}
		select {
		case <-tick.C:
		case <-ended:
			return
		}
	}
}

// regreeted reads the greeting that an instance is sent to go on with.
func (d *Daemon) regreeted(text []byte) (*configs.Config, error) {
	var hello instances.Greeting
	if err := json.Unmarshal(text, &hello); err != nil {
		return nil, fmt.Errorf("this is one of several instances; reload the parent: %w", err)
	}
	return hello.ParseConfig(d.env, bodymemory.InstanceLimit)
}

// newReport reports on this instance to its parent.
func (d *Daemon) newReport() instances.Report {
	return instances.NewReport(d.running(), d.appRegistry.Statuses(usageReported), d.config().Apps, time.Now())
}

// Greeting is what the instance with an ID, counted from 1, is sent at its start, for a
// program that has a provisioner of its own: it runs `drover instance`, or itself with that
// argument, as scaler/local does. The error is that the configuration was not read from a
// file.
func Greeting(cfg *configs.Config, id int) (json.RawMessage, error) {
	return instances.NewGreeting(cfg, id)
}
