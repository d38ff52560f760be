package pools

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/python"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/triggers"

	"github.com/drover-run/drover/bench/rig"
)

type WorkersCommand struct {
	Rounds      int           `default:"7" help:"Rounds; their median is reported."`
	Import      time.Duration `default:"2s" help:"How long the app takes to import."`
	Memory      int           `default:"128" help:"How much it imports, in MiB."`
	Kills       int           `default:"50" help:"Workers that are killed under load."`
	Invocations int           `default:"1000000" help:"Invocations in one worker slot, with and without recycling."`
	Recycle     int           `default:"1000" help:"max_invocations of that."`
	Only        string        `default:"" enum:",start,kill,recycle" help:"Only one part: start, kill or recycle."`
}

// heavy is an app that takes long to import, and much memory.
const heavy = `
import os, time
time.sleep(%g)
table = [str(number) * 8 for number in range(%d)]
def f(body): return str(os.getpid())
def work(body):
    end = time.perf_counter() + 0.001
    while time.perf_counter() < end: pass
def noop(body): pass
`

// Run measures how soon a worker is there, from a template and without; how soon
// another handles messages where one was killed; and what recycling costs.
func (c *WorkersCommand) Run(ctx context.Context) error {
	if c.Rounds < 1 || c.Kills < 1 || c.Invocations < 1 || c.Recycle < 1 || c.Memory < 1 {
		return errors.New("all numbers must be at least 1")
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, part := range []struct {
		name string
		run  func(context.Context, *tabwriter.Writer) error
	}{{"start", c.start}, {"kill", c.kill}, {"recycle", c.recycle}} {
		if c.Only == "" || c.Only == part.name {
			if err := part.run(ctx, w); err != nil {
				return fmt.Errorf("%s: %w", part.name, err)
			}
			if err := w.Flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// app is a pool over an app that imports for so long and so much.
func (c *WorkersCommand) app(ctx context.Context, imports time.Duration, mib int, change func(*workers.Config)) (p *workers.Pool, end func() error, err error) {
	source := fmt.Sprintf(heavy, imports.Seconds(), mib*9500) // a text of 48 to 56 characters takes about 110 bytes with its place in the list
	return pythonPool(ctx, source, []string{"f", "work", "noop"}, change)
}

// pythonPool is a pool over the source of an app, with these functions of it.
func pythonPool(ctx context.Context, source string, functions []string, change func(*workers.Config)) (p *workers.Pool, end func() error, err error) {
	dir, err := os.MkdirTemp("", "drover-bench-")
	if err != nil {
		return nil, nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "function_app.py"), []byte(source), 0o600); err != nil {
		return nil, nil, err
	}
	interpreter, err := python.FindInterpreter(ctx, dir, "", os.LookupEnv)
	if err != nil {
		return nil, nil, err
	}
	home, err := python.InstallWorker(filepath.Join(dir, "data"))
	if err != nil {
		return nil, nil, err
	}
	cfg := workers.Config{
		App: dir, Command: python.WorkerCommand(interpreter, home, dir, os.Environ()),
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	}
	for _, name := range functions {
		cfg.Functions = append(cfg.Functions, workers.Function{Name: name, Module: "function_app", Function: name})
	}
	change(&cfg)
	p = workers.New(cfg)
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- p.Run(running) }()
	return p, func() error {
		stop()
		return errors.Join(<-ended, os.RemoveAll(dir))
	}, p.WaitReady(ctx)
}

// ready waits for n workers.
func ready(ctx context.Context, p *workers.Pool, n int) error {
	for deadline := time.Now().Add(rig.StuckAfter); p.Stats().Ready != n; time.Sleep(100 * time.Microsecond) {
		if ctx.Err() != nil || time.Now().After(deadline) {
			return fmt.Errorf("%d workers do not come: %+v", n, p.Stats())
		}
	}
	return nil
}

// start adds one worker after the other.
func (c *WorkersCommand) start(ctx context.Context, w *tabwriter.Writer) error {
	fmt.Fprintf(w, "an app that imports for %v, and %d MiB\tspawn\ttemplate\n", c.Import, c.Memory)
	var took, memory [2]string
	for i, template := range []bool{false, true} {
		p, end, err := c.app(ctx, c.Import, c.Memory, func(cfg *workers.Config) { cfg.Template = template })
		if err != nil {
			return err
		}
		if err := ready(ctx, p, 1); err != nil {
			return errors.Join(err, end())
		}
		first := p.Usage().Memory.Proportional
		var times []time.Duration
		for n := range c.Rounds {
			time.Sleep(500 * time.Millisecond) // usually a worker has been forked ahead; let it start
			began := time.Now()
			p.Scale(n + 2)
			if err := ready(ctx, p, n+2); err != nil {
				return errors.Join(err, end())
			}
			times = append(times, time.Since(began))
		}
		all := p.Usage().Memory.Proportional
		further := (all - first) / uint64(c.Rounds)
		took[i] = fmt.Sprintf("%.1f ms", float64(rig.Median(times).Microseconds())/1e3)
		memory[i] = fmt.Sprintf("%.1f MiB, of %.1f (with the template, where there is one): %.0f %%",
			float64(further)/(1<<20), float64(first)/(1<<20), 100*float64(further)/float64(first))
		if err := end(); err != nil {
			return err
		}
	}
	fmt.Fprintf(w, "until a further worker takes messages\t%s\t%s\n", took[0], took[1])
	fmt.Fprintf(w, "memory of each further one (its proportional share)\t%s\t%s\n", memory[0], memory[1])
	return nil
}

// Calls calls a function until the context ends or n calls are done, as many at a
// time as there is room.
type Calls struct {
	share   *handlers.Share
	done    atomic.Int64
	Failed  atomic.Int64
	LastErr atomic.Value
	handled func(output []byte) // nil: not called
	Message *triggers.Message   // nil: one of 128 bytes
	flights sync.WaitGroup
}

// SetResult implements handlers.ResultSink.
func (l *Calls) SetResult(output []byte, err error) {
	if err != nil {
		l.Failed.Add(1)
		l.LastErr.Store(err.Error())
	} else if l.handled != nil {
		l.handled(output)
	}
	l.done.Add(1)
	l.share.Free(1)
	l.flights.Done()
}

func (l *Calls) Run(ctx context.Context, p *workers.Pool, function string, n int) error {
	h, err := p.HandlerOf(function)
	if err != nil {
		return err
	}
	l.share = h.Slots().Share(0)
	m := l.Message
	if m == nil {
		m = &triggers.Message{ID: "x", Body: make([]byte, 128), Attempt: 1}
	}
	for left := n; left > 0; {
		room, err := l.share.Offer(ctx)
		if err != nil {
			break
		}
		room = l.share.Take(min(room, left))
		left -= room
		l.flights.Add(room)
		for range room {
			h.Start(context.WithoutCancel(ctx), m, l)
		}
	}
	l.flights.Wait()
	return nil
}

// kill kills the only worker under load, over and over, and measures how long it
// takes until another has handled a message.
func (c *WorkersCommand) kill(ctx context.Context, w *tabwriter.Writer) error {
	p, end, err := c.app(ctx, 0, c.Memory, func(cfg *workers.Config) { cfg.Template = true })
	if err != nil {
		return err
	}
	defer func() { _ = end() }()
	var current atomic.Int64
	l := &Calls{handled: func(output []byte) {
		if pid, err := strconv.ParseInt(string(output), 10, 64); err == nil {
			current.Store(pid)
		}
	}}
	loading, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- l.Run(loading, p, "f", 1<<62) }()
	var times []time.Duration
	for range c.Kills {
		// Deaths that follow each other sooner are answered with a pause.
		for begin := time.Now(); time.Since(begin) < 11*time.Second || p.Stats().Ready != 1 || int64(p.Stats().PIDs[0]) != current.Load(); time.Sleep(time.Millisecond) {
			if ctx.Err() != nil || time.Since(begin) > rig.StuckAfter {
				return errors.Join(fmt.Errorf("no worker: %+v", p.Stats()), ctx.Err())
			}
		}
		pid := current.Load()
		began := time.Now()
		if err := syscall.Kill(int(pid), syscall.SIGKILL); err != nil {
			return err
		}
		for current.Load() == pid {
			time.Sleep(20 * time.Microsecond)
		}
		times = append(times, time.Since(began))
	}
	stop()
	if err := <-ended; err != nil {
		return err
	}
	worst := times[0]
	for _, t := range times {
		worst = max(worst, t)
	}
	fmt.Fprintf(w, "kill -9 of the only worker under load, until another has handled a message\t%d times\tmedian %.1f ms, longest %.1f ms; failed: %d\n",
		c.Kills, float64(rig.Median(times).Microseconds())/1e3, float64(worst.Microseconds())/1e3, l.Failed.Load())
	return nil
}

// recycle runs many invocations in one slot, with and without recycling.
func (c *WorkersCommand) recycle(ctx context.Context, w *tabwriter.Writer) error {
	for _, function := range []string{"noop", "work"} {
		n := c.Invocations
		if function == "work" {
			n = min(n, 20_000) // of a millisecond each
		}
		var rates [2][]float64
		var replaced, failed int
		for range (c.Rounds + 1) / 2 {
			for i, limit := range []int{0, c.Recycle} {
				p, end, err := c.app(ctx, 0, 1, func(cfg *workers.Config) { cfg.Template, cfg.Recycle.MaxInvocations = true, limit })
				if err != nil {
					return err
				}
				if err := ready(ctx, p, 1); err != nil {
					return errors.Join(err, end())
				}
				l := new(Calls)
				began := time.Now()
				err = l.Run(ctx, p, function, n)
				rates[i] = append(rates[i], float64(n)/time.Since(began).Seconds())
				failed += int(l.Failed.Load())
				if limit > 0 {
					replaced = p.Stats().Restarts[process.CauseInvocations]
				}
				if err = errors.Join(err, end()); err != nil {
					return err
				}
			}
		}
		without, with := rig.Median(rates[0]), rig.Median(rates[1])
		fmt.Fprintf(w, "%d invocations of %s in one slot, max_invocations: %d\t%.0f/s without\t%.0f/s with: %.2f; %d workers; failed: %d\n",
			n, function, c.Recycle, without, with, with/without, replaced+1, failed)
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return nil
}
