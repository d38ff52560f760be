package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/ownprocess"
	"github.com/drover-run/drover/daemon/internal/instances"
	"github.com/drover-run/drover/scaler/local"
)

// This file is one of several instances, as its parent starts it.

// reportEvery is the time between two reports; a step of the load is seen so much
// later at most.
const reportEvery = 500 * time.Millisecond

// instanceCommand is `drover instance`, which is not for people.
type instanceCommand struct{}

func (instanceCommand) Run(ctx context.Context, std *IO) (err error) {
	link, err := local.Attach(std.Env)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, link.Close()) }()
	var hello instances.Greeting
	if err := json.Unmarshal(link.Hello, &hello); err != nil {
		return fmt.Errorf("reading the instances.Greeting: %w", err)
	}
	cfg, err := hello.ParseConfig(std.Env, instanceBodies)
	if err != nil {
		return err
	}
	log, level := std.levelledLogger(cfg.Log)
	log = log.With("instance", hello.ID)
	defer ownprocess.SurviveClosedLog()()
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
		case <-ctx.Done(): // a signal to one that drains
			close(hurry)
		case <-ended:
		}
	})
	ready := make(chan struct{})
	d := New(cfg, append(std.options(), WithLogger(log), withLevel(level), withMain(), WithHurry(hurry), withParent(hello.Parent), WithReady(func() { close(ready) }))...)
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
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		if err := link.Report(d.InFlight(), d.newReport()); err != nil {
			return // the parent is gone; Drain says so, too
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
	return hello.ParseConfig(d.env, instanceBodies)
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
