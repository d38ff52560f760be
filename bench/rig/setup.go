package rig

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// HTTPSlots is how many requests are in flight.
const HTTPSlots = 64

// Setup is a drover with one no-op function.
type Setup struct {
	Name      string
	Function  string // Python, or Node.js; empty for Go
	Node      bool
	Processes int
	Threads   int
	URL       string // of an app, instead of a function
	Events    string // how it gets messages; empty: by default
	Change    func(c *configs.Config)
}

func Noop(context.Context, *triggers.Message) ([]byte, error) { return nil, nil }

// Drover runs a daemon until n messages are done, and returns how long that took
// from the moment at which it was ready.
func (r *Rig) Drover(ctx context.Context, n int, s Setup) (time.Duration, error) {
	if err := r.Refill(ctx); err != nil {
		return 0, err
	}
	r.full = r.Limits
	consumer, err := r.Consumer(ctx)
	if err != nil {
		return 0, err
	}
	d, stop, err := r.Daemon(ctx, consumer.CachedInfo().Name, s)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	giveUp := time.After(StuckAfter)
	for d.Status()[0].Done < int64(n) {
		select {
		case <-tick.C:
		case <-giveUp:
			s := d.Status()[0]
			info, err := consumer.Info(ctx)
			s.Latency = nil
			return 0, errors.Join(fmt.Errorf("not done after %v: %+v; the consumer: %+v", StuckAfter, s, info), err, stop())
		case <-ctx.Done():
			return 0, errors.Join(ctx.Err(), stop())
		}
	}
	err = r.settledAll(ctx, consumer)
	took := time.Since(start)
	// The daemon first: it would miss its consumer.
	return took, errors.Join(err, stop(), r.JS.DeleteConsumer(ctx, Stream, consumer.CachedInfo().Name))
}

// Daemon starts a daemon with one function and returns when it is ready.
func (r *Rig) Daemon(ctx context.Context, consumer string, s Setup) (*daemon.Daemon, func() error, error) {
	f := configs.Function{
		Trigger: configs.Trigger{NATS: &configs.NATSTrigger{Stream: Stream, Consumer: consumer, Subject: Subject}},
		Handler: configs.Handler{Go: "noop"},
	}
	switch {
	case s.URL != "":
		f.Handler = configs.Handler{HTTP: &configs.HTTPHandler{URL: s.URL, CloudEvents: s.Events}}
		f.Concurrency = HTTPSlots
	case s.Node:
		f.Handler = configs.Handler{Node: &configs.NodeHandler{Path: r.Dir, Function: s.Function, Processes: s.Processes, Coroutines: 512}}
	case s.Function != "":
		f.Handler = configs.Handler{Python: &configs.PythonHandler{
			Path: r.Dir, Function: s.Function, Processes: s.Processes, Threads: s.Threads, Coroutines: 512,
		}}
	default:
		f.Concurrency = pullMessages
	}
	cfg := configs.New()
	cfg.DataDir = filepath.Join(r.Dir, "daemon")
	cfg.Connections = map[string]configs.Connection{"bench": {NATS: configs.Strings{"embedded"}}}
	cfg.Functions = map[string]configs.Function{"noop": f}

	if s.Change != nil {
		s.Change(cfg)
	}

	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	running, cancel := context.WithCancel(ctx)
	ready, ended := make(chan struct{}), make(chan error, 1)
	d := daemon.New(cfg, daemon.WithLogger(log), daemon.WithEnv(os.LookupEnv, os.Environ), daemon.WithConnection("bench", r.Conn),
		daemon.WithFuncs(handlers.Funcs{"noop": Noop}), daemon.WithReady(func() { close(ready) }))
	go func() { ended <- d.Run(running) }()
	stop := func() error { cancel(); return <-ended }
	select {
	case <-ready:
		return d, stop, nil
	case err := <-ended:
		cancel()
		return nil, nil, fmt.Errorf("starting drover: %w", err)
	}
}
