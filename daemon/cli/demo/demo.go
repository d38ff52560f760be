// Package demo implements `drover demo`: it runs three functions under load over an embedded
// server, or, with RunScale, a wave of messages with workers and instances that follow it. A run
// prints its progress and a last line with the counts of messages, including lost ones.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon"
	"github.com/drover-run/drover/daemon/cli/live"
	"github.com/drover-run/drover/daemon/cli/statustext"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/internal/sources"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// settleLimit bounds the wait for the last messages. The messages in flight of a killed demo are
// redelivered after ackWait, and are handled in seconds.
const settleLimit = time.Minute

// Options are the options of a demo.
type Options struct {
	Dir      string        // an existing directory, for the messages and the app
	For      time.Duration // send for this long
	Messages int           // for Run: if not 0, send this number instead

	Out io.Writer
	// Frame, if not nil, shows a table on a terminal, and Out is the same frame. Palette has its
	// colors.
	Frame   *live.Frame
	Palette term.Palette

	Env     configs.Env
	Environ func() []string // the environment of worker processes
	NewLog  func(configs.Log) *slog.Logger
	Daemon  []daemon.Option // for RunScale: those of a daemon that may start instances
}

func (o *Options) printLine(format string, args ...any) {
	_, _ = io.WriteString(o.Out, fmt.Sprintf(format, args...)+"\n")
}

// run is a running demo.
type run struct {
	Options
	daemon *daemon.Daemon
	server *sources.Server

	sent    map[string]int64 // by function, those left by an earlier run among them
	started time.Time
}

// Run sends messages to the three functions and shows their progress. It reports whether every
// message was settled: it waits at most a minute for the last ones. The end of ctx ends only the
// sending.
func Run(ctx context.Context, o Options) (all bool, err error) {
	log := o.NewLog(configs.Log{Level: "warn", Format: "auto"})
	appDir := filepath.Join(o.Dir, "app")
	endpoint, err := startEndpoint(appDir)
	if err != nil {
		return false, &daemon.StartError{Err: err}
	}
	defer func() { err = errors.Join(err, endpoint.stopServer()) }()

	cfg := newConfig(o.Dir, appDir)
	if err := cfg.Complete(o.Env); err != nil {
		return false, &daemon.StartError{Err: err}
	}
	server, err := sources.StartServer(ctx, sources.Config{Settings: cfg, Log: log}, connection)
	if err != nil {
		return false, &daemon.StartError{Err: err}
	}
	defer func() { err = errors.Join(err, server.Close()) }()

	ready := make(chan struct{})
	d := daemon.New(cfg,
		daemon.WithLogger(log), daemon.WithEnv(o.Env, o.Environ), daemon.WithFuncs(handlers.Funcs{"resize": makeThumbnail}),
		daemon.WithConnection(connection, server.Connection), daemon.WithReady(func() { close(ready) }))
	r := &run{Options: o, daemon: d, server: server, sent: make(map[string]int64)}
	if err := r.countLeft(ctx); err != nil {
		return false, &daemon.StartError{Err: err}
	}

	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- d.Run(working) }()
	select {
	case err := <-ended:
		return false, err
	case <-ready:
	}
	all = r.feedAndWatch(ctx, ended)
	stop()
	if err := <-ended; err != nil && !errors.Is(err, daemon.ErrCutShort) {
		return false, err
	}
	return r.printTotals(all), nil
}

// countLeft counts the messages that an earlier demo did not finish.
func (r *run) countLeft(ctx context.Context) error {
	var left int64
	for _, f := range functions {
		n, err := r.countInStream(ctx, f.name)
		if err != nil {
			return err
		}
		r.sent[f.name] = n
		left += n
	}
	if left > 0 {
		r.printLine("demo: %d messages were left by an earlier run; they count as sent", left)
	}
	return nil
}

// countInStream counts the messages that are not settled: a function's stream keeps each until then.
func (r *run) countInStream(ctx context.Context, name string) (int64, error) {
	return r.server.CountMessages(ctx, name)
}

func (r *run) countUnsettled(ctx context.Context) (n int64, err error) {
	for _, f := range functions {
		m, err := r.countInStream(ctx, f.name)
		if err != nil {
			return 0, err
		}
		n += m
	}
	return n, nil
}

// feedAndWatch sends messages and shows the progress until all are settled. It returns false if
// that took too long, or the daemon ended.
func (r *run) feedAndWatch(ctx context.Context, ended chan error) bool {
	r.started = time.Now()
	t := newTable(r.Options)
	defer t.leaveTable()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	stopFeeding := r.started.Add(r.For)
	var giveUp <-chan time.Time
	quota := r.messageQuotas()
	feeding := true
	interrupted := ctx.Done()
	for {
		if feeding {
			var err error
			if feeding, err = r.refillQueues(quota); err != nil {
				r.printLine("demo: cannot send: %v", err)
				feeding = false
			}
			if !feeding {
				giveUp = time.After(settleLimit)
			}
		}
		t.showIfDue(r, feeding)
		select {
		case err := <-ended:
			ended <- err
			return false
		case <-giveUp:
			return false
		case <-interrupted:
			interrupted, feeding = nil, false
			r.printLine("demo: interrupted; finishing the messages that were sent")
			giveUp = time.After(settleLimit)
		case now := <-tick.C:
			if r.Messages == 0 && feeding && now.After(stopFeeding) {
				feeding = false
				giveUp = time.After(settleLimit)
			}
		}
		if !feeding {
			if left, err := r.countUnsettled(context.WithoutCancel(ctx)); err == nil && left == 0 {
				return true
			}
		}
	}
}

// messageQuotas returns how many messages each function still gets; without --messages there is no
// limit.
func (r *run) messageQuotas() map[string]int {
	quota, rest := make(map[string]int), r.Messages
	for i, f := range functions {
		n := int(float64(r.Messages) * f.share)
		if i == len(functions)-1 {
			n = rest
		}
		if r.Messages == 0 {
			n = -1
		}
		quota[f.name] = n
		rest -= n
	}
	return quota
}

// refillQueues sends each function messages up to its number ahead, and reports whether there are
// more to send.
func (r *run) refillQueues(quota map[string]int) (more bool, err error) {
	sender := r.server.NewSender()
	for _, s := range r.daemon.Status() {
		f := functionOf(s.Name)
		open := int(r.sent[f.name] - s.Done - s.Rejected)
		n := f.ahead - open
		if quota[f.name] >= 0 {
			n = min(n, quota[f.name])
		}
		for range max(n, 0) {
			r.sent[f.name]++
			body := f.body(int(r.sent[f.name]))
			if err := sender.Send(context.Background(), &triggers.Message{Subject: f.name, Body: body}); err != nil {
				return false, errors.Join(err, sender.Flush(context.Background()))
			}
		}
		if quota[f.name] > 0 {
			quota[f.name] -= max(n, 0)
		}
		more = more || quota[f.name] != 0
	}
	return more, sender.Flush(context.Background())
}

func functionOf(name string) function {
	for _, f := range functions {
		if f.name == name {
			return f
		}
	}
	return function{name: name}
}

// printTotals prints the last line and reports whether every message was settled.
func (r *run) printTotals(all bool) bool {
	var sent, done, failed, dead int64
	for _, s := range r.daemon.Status() {
		sent += r.sent[s.Name]
		done += s.Done
		failed += s.Failed
		dead += s.Rejected
	}
	for _, f := range r.daemon.Report(context.Background()).Functions {
		if f.Kind != nil {
			r.printLine("demo: measured: %s is %s: it computes %.0f %% of its time", f.Name, f.Kind.Words(), 100*f.Kind.CPU)
		}
	}
	for _, a := range r.daemon.Apps() {
		r.printLine("demo: measured: %s", statustext.AppText(a))
	}
	left, err := r.countUnsettled(context.Background())
	if err != nil {
		r.printLine("demo: cannot count the remaining messages: %v", err)
		all = false
	}
	if left > 0 {
		r.printLine("demo: %d messages are not settled; run it again over the same data directory to finish them", left)
		all = false
	}
	// Messages handled twice count as done twice, so this can be negative only if none is lost.
	lost := max(sent-done-dead-left, 0)
	r.printLine("demo: sent %d, done %d, failed %d, dead %d, lost %d, in %.1f s",
		sent, done, failed, dead, lost, time.Since(r.started).Seconds())
	return all && lost == 0
}
