package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/drover-run/drover/daemon"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/live"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/sources"
	"github.com/drover-run/drover/triggers"
)

// This file implements `drover demo --scale`: a wave of messages, and workers and instances that
// follow it.

const (
	waveFunction = "work"
	waveService  = 50 * time.Millisecond
	maxInstances = 4
	// stopLimit bounds the wait until the instances have stopped after the last message.
	stopLimit = 30 * time.Second
	// printEvery is the time between two lines.
	printEvery = 2 * time.Second
)

// waveConfig is the configuration. Its windows are short, so that a wave of a minute is enough to
// show them.
const waveConfig = `version: 1
log: {level: warn}
data_dir: .
scale:
  clear_within: 5s
  interval: 1s
  scale_in_after: 3s
  instances: {min: 1, max: %d}
functions:
  work:
    trigger: {nats: {ack_wait: 5s}}
    handler: {python: {path: app, threads: 1}}
    timeout: 30s
`

// waveApp sleeps as if it called a service: a worker process handles 20 messages a second.
const waveApp = `"""The function of drover demo --scale."""

import time


def work(body):
    time.sleep(%v)
`

// wave is a running demo of scaling.
type wave struct {
	Options
	daemon *daemon.Daemon
	log    *slog.Logger
	server *sources.Server
	peak   float64 // messages a second

	started time.Time
	sent    int64
	shown   time.Time
	earlier api.FunctionStatus
	before  int64  // sent when the last line was printed
	headed  string // the header that was printed last
	most    struct{ instances, workers int }
}

// RunScale sends a wave of messages and shows how workers and instances follow it. It
// reports whether every message was settled. The end of ctx ends only the sending.
func RunScale(ctx context.Context, o Options) (all bool, err error) {
	for name, text := range map[string]string{
		"drover.yaml": fmt.Sprintf(waveConfig, maxInstances), filepath.Join("app", "function_app.py"): fmt.Sprintf(waveApp, waveService.Seconds()),
	} {
		path := filepath.Join(o.Dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			return false, &daemon.StartError{Err: fmt.Errorf("making the demo's files: %w", err)}
		}
	}
	cfg, err := configs.LoadContext(ctx, filepath.Join(o.Dir, "drover.yaml"), o.Env)
	if err != nil {
		return false, err
	}
	ready := make(chan struct{})
	log := o.NewLog(cfg.Log)
	d := daemon.New(cfg, append(slices.Clone(o.Daemon), daemon.WithLogger(log), daemon.WithReady(func() { close(ready) }))...)
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- d.Run(working) }()
	select {
	case err := <-ended:
		return false, err
	case <-ready:
	}
	w := &wave{
		Options: o, daemon: d, log: log,
		// A little less than what all instances could do.
		peak: 0.8 * maxInstances * float64(runtime.GOMAXPROCS(0)) / waveService.Seconds(),
	}
	all, err = w.runWave(ctx, cfg)
	stop()
	if runErr := <-ended; !errors.Is(runErr, daemon.ErrCutShort) {
		err = errors.Join(err, runErr)
	}
	if err != nil {
		return false, err
	}
	return w.printSummary(all), nil
}

// runWave connects, sends the wave, and waits until all messages are settled and few instances are
// left.
func (w *wave) runWave(ctx context.Context, cfg *configs.Config) (all bool, err error) {
	w.server, err = sources.JoinServer(ctx, sources.Config{Settings: cfg, Log: w.log}, cfg.Functions[waveFunction].Trigger.ConnectionName())
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, w.server.Close()) }()
	if w.sent, err = w.server.CountMessages(ctx, waveFunction); err != nil {
		return false, err
	}
	if w.sent > 0 {
		w.printLine("demo: %d messages were left by an earlier run; they count as sent", w.sent)
	}
	return w.sendWave(ctx)
}

// rateAt returns the messages per second at a time: from few, up to the peak, and back.
func (w *wave) rateAt(at time.Duration) float64 {
	height := math.Sin(math.Pi * at.Seconds() / w.For.Seconds())
	return w.peak * (0.02 + 0.98*height*height)
}

// sendWave sends the wave, and reports whether all messages were settled.
func (w *wave) sendWave(ctx context.Context) (all bool, err error) {
	w.started, w.shown = time.Now(), time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	due, last := 0.0, w.started
	var settled time.Time
	for now := w.started; ; now = <-tick.C {
		at := now.Sub(w.started)
		feeding := at < w.For && ctx.Err() == nil
		if feeding {
			due += w.rateAt(at) * now.Sub(last).Seconds()
			last = now
			if err := w.sendMessages(int(due)); err != nil {
				return false, err
			}
			due -= math.Floor(due)
		}
		count := w.printIfDue(now)
		if feeding {
			continue
		}
		left, err := w.server.CountMessages(context.WithoutCancel(ctx), waveFunction)
		switch {
		case err != nil:
			return false, err
		case left > 0 && at > w.For+settleLimit:
			return false, nil
		case left > 0:
			continue
		}
		if settled.IsZero() {
			settled = now
		}
		if count <= 1 || ctx.Err() != nil || now.Sub(settled) > stopLimit {
			return true, nil
		}
	}
}

func (w *wave) sendMessages(n int) error {
	sender := w.server.NewSender()
	for range n {
		w.sent++
		if err := sender.Send(context.Background(), &triggers.Message{Subject: waveFunction, Body: fmt.Appendf(nil, "%d", w.sent)}); err != nil {
			return errors.Join(err, sender.Flush(context.Background()))
		}
	}
	return sender.Flush(context.Background())
}

// printIfDue prints a line if enough time has passed, and returns the number of instances.
func (w *wave) printIfDue(now time.Time) int {
	count, _ := w.daemon.Instances()
	instances := count.Ready + count.Starting + count.Draining
	var s api.FunctionStatus
	if all := w.daemon.Status(); len(all) > 0 {
		s = all[0]
	}
	w.most.instances, w.most.workers = max(w.most.instances, instances), max(w.most.workers, s.Workers)
	elapsed := now.Sub(w.shown)
	if elapsed < printEvery {
		return instances
	}
	backlog := "?"
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if b, err := w.daemon.Backlog(ctx, waveFunction); err == nil {
		backlog = fmt.Sprint(b.Ready)
	}
	recent := s.Latency.Since(w.earlier.Latency)
	w.printPoint([]string{
		fmt.Sprintf("%.1f s", now.Sub(w.started).Seconds()), fmt.Sprintf("%.0f", float64(w.sent-w.before)/elapsed.Seconds()), backlog,
		fmt.Sprintf("%.0f", float64(s.Done-w.earlier.Done)/elapsed.Seconds()), term.ShortDuration(recent.Quantile(0.99)),
		fmt.Sprint(s.Workers), fmt.Sprint(instances), strings.Repeat("█", instances),
	})
	w.shown, w.earlier, w.before = now, s, w.sent
	return instances
}

// waveColumns are the columns of a point of the wave.
var waveColumns = []live.Column{
	{Title: "time", Right: true},
	{Title: "arriving/s", Right: true, Drop: 3},
	{Title: "waiting", Right: true, Drop: 2},
	{Title: "done/s", Right: true, Drop: 1},
	{Title: "p99", Right: true, Drop: 4},
	{Title: "workers", Right: true, Drop: 1},
	{Title: "instances", Right: true},
	{Title: "", Drop: 5},
}

// printPoint prints a point of the wave: on a terminal a table row that fits, below a header, else a
// line of text.
func (w *wave) printPoint(texts []string) {
	if w.Frame == nil {
		w.printLine("demo: %7s  arriving %4s/s, waiting %5s, done %4s/s, p99 %-8s workers %2s, instances %s %s",
			texts[0], texts[1], texts[2], texts[3], texts[4]+",", texts[5], texts[6], texts[7])
		return
	}
	// The columns are wide enough for the largest values, so that the rows are aligned.
	t := live.Table{Columns: waveColumns, Widths: map[string]int{"time": 7, "waiting": 7, "done/s": 6, "p99": 8, "": maxInstances}}
	cells := make([]live.Cell, len(texts))
	for i, text := range texts {
		cells[i].Text = text
	}
	cells[len(cells)-1].Style = term.Green
	t.Rows = [][]live.Cell{cells}
	columns, _ := w.Frame.Size()
	lines := t.Lines(columns, w.Palette)
	if w.headed != lines[0] { // the first, or after a resize
		w.headed = lines[0]
		w.printLine("%s", lines[0])
	}
	w.printLine("%s", lines[1])
}

// printSummary prints the last line and reports whether every message was settled.
func (w *wave) printSummary(all bool) bool {
	var s api.FunctionStatus
	if status := w.daemon.Status(); len(status) > 0 {
		s = status[0]
	}
	if !all {
		w.printLine("demo: not all messages are settled; run it again over the same data directory to finish them")
	}
	lost := int64(0)
	if all { // nothing is left then, and messages handled twice count as done twice
		lost = max(w.sent-s.Done-s.Rejected, 0)
	}
	w.printLine("demo: sent %d, done %d, failed %d, dead %d, lost %d, in %.1f s, with up to %d instances and %d workers",
		w.sent, s.Done, s.Failed, s.Rejected, lost, time.Since(w.started).Seconds(), w.most.instances, w.most.workers)
	return all && lost == 0
}
