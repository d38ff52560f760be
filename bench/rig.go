package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	_ "embed"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/client"
	"github.com/drover-run/drover/triggers/natsjs/embedded"
)

//go:embed app/index.js
var nodeApp []byte

//go:embed app/function_app.py
var app []byte

const (
	stream  = "BENCH"
	subject = "bench"
	// A consumer of the ceiling and of drover may have this many unacknowledged.
	maxAckPending = 10_000
	// What the ceiling asks the server for in one go; the best of 500 to 8,000.
	pullMessages = 2_000
)

// stuckAfter ends a measurement that does not come to its end.
const stuckAfter = 2 * time.Minute

// rig is the embedded, file-backed server, with messages in it, that everything
// is measured against.
type rig struct {
	dir    string
	server *embedded.Server
	conn   *client.Connection
	js     jetstream.JetStream
	next   int // numbers the consumers
}

func newRig(ctx context.Context) (*rig, error) {
	dir, err := os.MkdirTemp("", "drover-bench-")
	if err != nil {
		return nil, err
	}
	r := &rig{dir: dir}
	if err := r.open(ctx); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func (r *rig) open(ctx context.Context) (err error) {
	if err := os.WriteFile(filepath.Join(r.dir, "index.js"), nodeApp, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(r.dir, "function_app.py"), app, 0o600); err != nil {
		return err
	}
	r.server, err = embedded.Start(ctx, embedded.Config{
		Dir: filepath.Join(r.dir, "nats"), Listen: "off", Sync: 2 * time.Minute, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	if r.conn, err = client.ConnectInProcess(ctx, r.server, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	if r.js, err = jetstream.New(r.conn.Conn()); err != nil {
		return err
	}
	_, err = r.js.CreateStream(ctx, jetstream.StreamConfig{
		Name: stream, Subjects: []string{subject}, Storage: jetstream.FileStorage,
	})
	return err
}

func (r *rig) close() error {
	var errs []error
	if r.conn != nil {
		errs = append(errs, r.conn.Close())
	}
	if r.server != nil {
		errs = append(errs, r.server.Close(context.Background()))
	}
	return errors.Join(append(errs, os.RemoveAll(r.dir))...)
}

// fill puts n messages of size bytes into the stream. They stay: each measurement
// reads them through a consumer of its own.
func (r *rig) fill(ctx context.Context, n, size int, attributes map[string]string) error {
	sender := r.conn.NewSender()
	body := make([]byte, size)
	for range n {
		if err := sender.Send(ctx, &triggers.Message{Subject: subject, Body: body, Attributes: attributes}); err != nil {
			return err
		}
	}
	return sender.Flush(ctx)
}

// consumer makes the durable that one measurement reads through.
func (r *rig) consumer(ctx context.Context) (jetstream.Consumer, error) {
	r.next++
	return r.js.CreateConsumer(ctx, stream, jetstream.ConsumerConfig{
		Durable: fmt.Sprint("c", r.next), AckPolicy: jetstream.AckExplicitPolicy,
		AckWait: 30 * time.Second, MaxDeliver: -1, MaxAckPending: maxAckPending, FilterSubject: subject,
	})
}

// settledAll waits until the server has every acknowledgement: only then is a
// measurement over.
func (r *rig) settledAll(ctx context.Context, consumer jetstream.Consumer) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		info, err := consumer.Info(ctx)
		if err != nil {
			return err
		}
		if info.NumAckPending == 0 && info.NumPending == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("consumer %s: %d messages unacknowledged, %d undelivered", info.Name, info.NumAckPending, info.NumPending)
		}
	}
}

// errStalled is a Consume of nats.go that stopped asking for messages.
var errStalled = errors.New("nats.go stopped asking for messages")

// ceiling reads and acknowledges n messages with nats.go alone, and returns how
// long it took: in the callback, or from goroutines behind a channel.
func (r *rig) ceiling(ctx context.Context, n int, goroutines int) (time.Duration, error) {
	consumer, err := r.consumer(ctx)
	if err != nil {
		return 0, err
	}
	var count atomic.Int64
	var failure atomic.Pointer[error]
	done := make(chan struct{})
	ack := func(m jetstream.Msg) {
		if err := m.Ack(); err != nil {
			failure.CompareAndSwap(nil, &err)
		}
		if count.Add(1) == int64(n) {
			close(done)
		}
	}
	callback := ack
	if goroutines > 0 {
		queue := make(chan jetstream.Msg, pullMessages)
		var wait sync.WaitGroup
		for range goroutines {
			wait.Go(func() {
				for m := range queue {
					ack(m)
				}
			})
		}
		defer wait.Wait()
		defer close(queue)
		callback = func(m jetstream.Msg) { queue <- m }
	}
	start := time.Now()
	// On a busy machine Consume stops asking for more now and then, until two
	// heartbeats are missing. The shortest heartbeat keeps that from spoiling a round.
	consuming, err := consumer.Consume(callback, jetstream.PullMaxMessages(pullMessages), jetstream.PullHeartbeat(500*time.Millisecond))
	if err != nil {
		return 0, err
	}
	limit := time.NewTimer(5*time.Second + time.Duration(n)*50*time.Microsecond)
	defer limit.Stop()
	stalled := false
	select {
	case <-done:
	case <-limit.C:
		stalled = true
	case <-ctx.Done():
	}
	if !stalled {
		err = r.settledAll(ctx, consumer)
	}
	took := time.Since(start)
	consuming.Stop()
	<-consuming.Closed()
	err = errors.Join(err, r.js.DeleteConsumer(ctx, stream, consumer.CachedInfo().Name))
	if stalled {
		return 0, errors.Join(err, errStalled)
	}
	if p := failure.Load(); p != nil {
		err = errors.Join(err, *p)
	}
	return took, errors.Join(err, ctx.Err())
}

// setup is a drover with one no-op function.
type setup struct {
	name      string
	function  string // Python, or Node.js; empty for Go
	node      bool
	processes int
	threads   int
	url       string // of an app, in place of a function
	events    string // how it gets messages; empty: by default
	change    func(c *configs.Config)
}

func noop(context.Context, *triggers.Message) ([]byte, error) { return nil, nil }

// drover runs a daemon until n messages are done, and returns how long that took
// from the moment at which it was ready.
func (r *rig) drover(ctx context.Context, n int, s setup) (time.Duration, error) {
	consumer, err := r.consumer(ctx)
	if err != nil {
		return 0, err
	}
	d, stop, err := r.daemon(ctx, consumer.CachedInfo().Name, s)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	giveUp := time.After(stuckAfter)
	for d.Status()[0].Done < int64(n) {
		select {
		case <-tick.C:
		case <-giveUp:
			s := d.Status()[0]
			info, err := consumer.Info(ctx)
			s.Latency = nil
			return 0, errors.Join(fmt.Errorf("not done after %v: %+v; the consumer: %+v", stuckAfter, s, info), err, stop())
		case <-ctx.Done():
			return 0, errors.Join(ctx.Err(), stop())
		}
	}
	err = r.settledAll(ctx, consumer)
	took := time.Since(start)
	// The daemon first: it would miss its consumer.
	return took, errors.Join(err, stop(), r.js.DeleteConsumer(ctx, stream, consumer.CachedInfo().Name))
}

// daemon starts a daemon with one function and returns when it is ready.
func (r *rig) daemon(ctx context.Context, consumer string, s setup) (*daemon.Daemon, func() error, error) {
	f := configs.Function{
		Trigger: configs.Trigger{NATS: &configs.NATSTrigger{Stream: stream, Consumer: consumer, Subject: subject}},
		Handler: configs.Handler{Go: "noop"},
	}
	switch {
	case s.url != "":
		f.Handler = configs.Handler{HTTP: &configs.HTTPHandler{URL: s.url, CloudEvents: s.events}}
		f.Concurrency = httpSlots
	case s.node:
		f.Handler = configs.Handler{Node: &configs.NodeHandler{Path: r.dir, Function: s.function, Processes: s.processes, Coroutines: 512}}
	case s.function != "":
		f.Handler = configs.Handler{Python: &configs.PythonHandler{
			Path: r.dir, Function: s.function, Processes: s.processes, Threads: s.threads, Coroutines: 512,
		}}
	default:
		f.Concurrency = pullMessages
	}
	cfg := configs.New()
	cfg.DataDir = filepath.Join(r.dir, "daemon")
	cfg.Connections = map[string]configs.Connection{"bench": {NATS: configs.Strings{"embedded"}}}
	cfg.Functions = map[string]configs.Function{"noop": f}

	if s.change != nil {
		s.change(cfg)
	}

	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	running, cancel := context.WithCancel(ctx)
	ready, ended := make(chan struct{}), make(chan error, 1)
	d := daemon.New(cfg, daemon.WithLogger(log), daemon.WithEnv(os.LookupEnv, os.Environ), daemon.WithConnection("bench", r.conn),
		daemon.WithFuncs(handlers.Funcs{"noop": noop}), daemon.WithReady(func() { close(ready) }))
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

func median[T int64 | float64 | time.Duration](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}
