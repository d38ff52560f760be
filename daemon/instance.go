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
	"github.com/drover-run/drover/daemon/internal/program"
	"github.com/drover-run/drover/scaler/local"
)

// reportInterval is the time between two reports of an instance to its parent.
const reportInterval = 500 * time.Millisecond

// RunInstance runs one of several instances until its parent, at the other end of link, drains it.
// It also drains when ctx ends; if ctx ends during the drain, the calls in flight are cancelled.
// newLog returns the log of a configuration and its level. It returns the same errors as Daemon.Run.
func RunInstance(ctx context.Context, link *local.Link, env configs.Env, newLog func(configs.Log) (*slog.Logger, *slog.LevelVar), opts ...Option) (err error) {
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
	ended, force := make(chan struct{}), make(chan struct{})
	var background sync.WaitGroup
	defer background.Wait()
	defer close(ended)
	background.Go(func() {
		select {
		case <-link.DrainRequested():
			stop()
		case <-ended:
			return
		}
		select {
		case <-ctx.Done(): // a signal during the drain
			close(force)
		case <-ended:
		}
	})
	ready := make(chan struct{})
	d := New(cfg, append(opts, WithLogger(log.With("instance", hello.ID)), WithLogLevel(level), WithWholeProcess(), WithForceStop(force),
		func(o *program.Options) { o.Parent, o.Started = hello.Parent, hello.Started }, WithReady(func() { close(ready) }))...)
	background.Go(func() {
		select {
		case <-ready:
			sendReports(d, link, ended)
		case <-ended:
		}
	})
	err = d.Run(running)
	select {
	case <-ready:
		err = errors.Join(err, link.Report(d.InFlight(), newReport(d))) // the final report
	default:
	}
	return err
}

// sendReports sends reports to the parent until the instance has ended.
func sendReports(d *Daemon, link *local.Link, ended <-chan struct{}) {
	tick := time.NewTicker(reportInterval)
	defer tick.Stop()
	for {
		if err := link.Report(d.InFlight(), newReport(d)); err != nil {
			return // the parent has ended, and the instance drains
		}
		select {
		case <-tick.C:
		case <-ended:
			return
		}
	}
}

// parseGreeting returns the configuration in a greeting that the parent sent for a reload.
func parseGreeting(text []byte, env configs.Env) (*configs.Config, error) {
	var hello instances.Greeting
	if err := json.Unmarshal(text, &hello); err != nil {
		return nil, fmt.Errorf("this is one of several instances; reload the parent: %w", err)
	}
	return hello.ParseConfig(env, bodymemory.InstanceLimit)
}

// newReport returns the report of an instance to its parent.
func newReport(d *Daemon) instances.Report {
	return instances.NewReport(d.runningFunctions(), d.appRegistry.AppStatuses(reportMaxAge), d.Config().Apps, time.Now())
}

// Greeting returns what the instance with an ID, counted from 1, receives at its start, for a
// program with its own provisioner: it runs `drover instance`, or itself with that argument,
// as scaler/local does. The error is that the configuration was not read from a file.
func Greeting(cfg *configs.Config, id int) (json.RawMessage, error) {
	return instances.NewGreeting(cfg, id)
}
