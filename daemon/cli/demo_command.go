package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/drover-run/drover/daemon"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/daemon/internal/sources"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// demoSettleLimit bounds the wait for the last messages. What a killed demo had
// in flight comes back after demoAckWait, and is handled in seconds.
const demoSettleLimit = time.Minute

type demoCommand struct {
	For      *time.Duration `help:"Send messages for this long (default: 20s; with --scale 60s)."`
	Scale    bool           `help:"Show how workers and instances follow a wave of messages."`
	Messages int            `help:"Send this many messages instead, as fast as they are handled."`
	Plain    bool           `help:"Print plain lines, even on a terminal."`
	DataDir  string         `help:"Keep the embedded server's messages in this directory (default: .drover/demo, removed after a clean end). The next demo with the same directory finishes one that was killed."`
}

// demoRun is a demo under way.
type demoRun struct {
	command *demoCommand
	io      *IO
	daemon  *daemon.Daemon
	server  *sources.Server

	sent    map[string]int64 // by function, those left by an earlier run among them
	started time.Time
}

func (*demoCommand) Help() string {
	return `Examples:

    drover demo
    drover demo --scale              # workers and instances follow a wave
    drover demo --messages 100000 --plain
`
}

func (c *demoCommand) Run(ctx context.Context, std *IO) error {
	if c.For != nil && *c.For <= 0 || c.Messages < 0 {
		return exit.UsageError("--for must be more than 0s, and --messages not negative")
	}
	if c.Scale && c.Messages > 0 {
		return exit.UsageError("--scale cannot be combined with --messages; use --for")
	}
	dir, remove, run := filepath.Join(".drover", "demo"), true, c.runIn
	length := 20 * time.Second
	if c.Scale {
		dir, run, length = dir+"-scale", c.runScale, time.Minute
	}
	if c.For == nil {
		c.For = &length
	}
	if c.DataDir != "" {
		dir, remove = c.DataDir, false
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("finding the demo's data directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return &daemon.StartError{Err: fmt.Errorf("making the demo's data directory: %w; choose another with --data-dir", err)}
	}
	all, err := run(ctx, std, dir)
	if err == nil && !all {
		return exit.ErrReported
	}
	if err == nil && remove {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("removing the demo's data: %w", err)
		}
	}
	return err
}

// runIn runs the demo over a data directory and reports whether every message
// was settled.
func (c *demoCommand) runIn(ctx context.Context, std *IO, dir string) (all bool, err error) {
	log := std.logger(configs.Log{Level: "warn", Format: "auto"})
	appDir := filepath.Join(dir, "app")
	endpoint, err := startDemoEndpoint(appDir)
	if err != nil {
		return false, &daemon.StartError{Err: err}
	}
	defer func() { err = errors.Join(err, endpoint.close()) }()

	cfg := demoConfig(dir, appDir)
	if err := cfg.Complete(std.Env); err != nil {
		return false, &daemon.StartError{Err: err}
	}
	server, err := sources.StartServer(ctx, sources.Config{Settings: cfg, Log: log}, demoConnection)
	if err != nil {
		return false, &daemon.StartError{Err: err}
	}
	defer func() { err = errors.Join(err, server.Close()) }()

	ready := make(chan struct{})
	d := daemon.New(cfg,
		daemon.WithLogger(log), daemon.WithEnv(std.Env, std.Environ), daemon.WithFuncs(handlers.Funcs{"resize": demoResize}),
		daemon.WithConnection(demoConnection, server.Connection), daemon.WithReady(func() { close(ready) }))
	run := &demoRun{command: c, io: std, daemon: d, server: server, sent: make(map[string]int64)}
	if err := run.countLeft(ctx); err != nil {
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
	all = run.feedAndWatch(ctx, ended)
	stop()
	if err := <-ended; err != nil && !errors.Is(err, daemon.ErrCutShort) {
		return false, err
	}
	return run.summarize(all), nil
}

// countLeft finds what an earlier demo did not finish.
func (r *demoRun) countLeft(ctx context.Context) error {
	var left int64
	for _, f := range demoFunctions {
		n, err := r.inStream(ctx, f.name)
		if err != nil {
			return err
		}
		r.sent[f.name] = n
		left += n
	}
	if left > 0 {
		r.line("demo: %d messages were left by an earlier run; they count as sent", left)
	}
	return nil
}

// inStream counts the messages that are not settled: a function's stream keeps
// each until then.
func (r *demoRun) inStream(ctx context.Context, name string) (int64, error) {
	return r.server.CountMessages(ctx, name)
}

func (r *demoRun) left(ctx context.Context) (n int64, err error) {
	for _, f := range demoFunctions {
		m, err := r.inStream(ctx, f.name)
		if err != nil {
			return 0, err
		}
		n += m
	}
	return n, nil
}

// feedAndWatch sends messages and shows what becomes of them, until all are
// settled. It reports false when that took too long, or the daemon ended.
func (r *demoRun) feedAndWatch(ctx context.Context, ended chan error) bool {
	r.started = time.Now()
	table := newDemoTable(r.io, r.command.Plain)
	defer table.end()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	stopFeeding := r.started.Add(*r.command.For)
	var giveUp <-chan time.Time
	quota := r.quotas()
	feeding := true
	interrupted := ctx.Done()
	for {
		if feeding {
			var err error
			if feeding, err = r.feed(quota); err != nil {
				r.line("demo: cannot send: %v", err)
				feeding = false
			}
			if !feeding {
				giveUp = time.After(demoSettleLimit)
			}
		}
		table.show(r)
		select {
		case err := <-ended:
			ended <- err
			return false
		case <-giveUp:
			return false
		case <-interrupted:
			interrupted, feeding = nil, false
			r.line("demo: interrupted; finishing what was sent")
			giveUp = time.After(demoSettleLimit)
		case now := <-tick.C:
			if r.command.Messages == 0 && feeding && now.After(stopFeeding) {
				feeding = false
				giveUp = time.After(demoSettleLimit)
			}
		}
		if !feeding {
			if left, err := r.left(context.WithoutCancel(ctx)); err == nil && left == 0 {
				return true
			}
		}
	}
}

// quotas is how many messages each function still gets; without --messages there
// is no end to them.
func (r *demoRun) quotas() map[string]int {
	quota, rest := make(map[string]int), r.command.Messages
	for i, f := range demoFunctions {
		n := int(float64(r.command.Messages) * f.share)
		if i == len(demoFunctions)-1 {
			n = rest
		}
		if r.command.Messages == 0 {
			n = -1
		}
		quota[f.name] = n
		rest -= n
	}
	return quota
}

// feed tops every function up to what it should have ahead of it, and reports
// whether there is more to send.
func (r *demoRun) feed(quota map[string]int) (more bool, err error) {
	sender := r.server.NewSender()
	for _, s := range r.daemon.Status() {
		f := demoFunctionOf(s.Name)
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

func demoFunctionOf(name string) demoFunction {
	for _, f := range demoFunctions {
		if f.name == name {
			return f
		}
	}
	return demoFunction{name: name}
}

// summarize prints the last line and reports whether every message was settled.
func (r *demoRun) summarize(all bool) bool {
	var sent, done, failed, dead int64
	for _, s := range r.daemon.Status() {
		sent += r.sent[s.Name]
		done += s.Done
		failed += s.Failed
		dead += s.Rejected
	}
	for _, f := range demoFunctions {
		if k := r.daemon.Kind(f.name); k != nil {
			r.line("demo: found by measuring: %s is %s: it computes %.0f %% of its time", f.name, k.Words(), 100*k.CPU)
		}
	}
	for _, a := range r.daemon.Apps() {
		r.line("demo: found by measuring: %s", appText(a))
	}
	left, err := r.left(context.Background())
	if err != nil {
		r.line("demo: cannot count the remaining messages: %v", err)
		all = false
	}
	if left > 0 {
		r.line("demo: %d messages are not settled; run it again over the same data directory to finish them", left)
		all = false
	}
	// A message that came twice was done twice, so this can only be less than 0
	// where none is lost.
	lost := max(sent-done-dead-left, 0)
	r.line("demo: sent %d, done %d, failed %d, dead %d, lost %d, in %.1f s",
		sent, done, failed, dead, lost, time.Since(r.started).Seconds())
	return all && lost == 0
}

func (r *demoRun) line(format string, args ...any) {
	_, _ = io.WriteString(r.io.Out, fmt.Sprintf(format, args...)+"\n")
}
