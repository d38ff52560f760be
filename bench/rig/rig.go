// Package rig has what the benchmarks share: the embedded NATS server with messages in it and the upper
// bound that it allows, daemons in this process and commands beside it, parts of a command, medians.
package rig

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	_ "embed"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/client"
	"github.com/drover-run/drover/triggers/natsjs/embedded"
)

//go:embed app/index.js
var nodeApp []byte

//go:embed app/function_app.py
var PythonApp []byte

const (
	Stream  = "BENCH"
	Subject = "bench"
	// A consumer of the ceiling and of drover may have this many unacknowledged.
	maxAckPending = 10_000
	// What the ceiling asks the server for in one go; the best of 500 to 8,000.
	pullMessages = 2_000
)

// StuckAfter ends a measurement that does not come to its end.
const StuckAfter = 2 * time.Minute

// Rig is the embedded, file-backed server, with messages in it, that everything
// is measured against.
type Rig struct {
	Dir    string
	Limits bool // the stream keeps its messages; else it is a work queue, as drover creates it
	server *embedded.Server
	Conn   *client.Connection
	JS     jetstream.JetStream
	Next   int // numbers the consumers

	batch batch
	full  bool // the stream has the batch
}

// batch is the data that each measurement reads.
type batch struct {
	messages, size int
	attributes     map[string]string
}

func New(ctx context.Context) (*Rig, error) { return NewOf(ctx, false) }

func NewOf(ctx context.Context, limits bool) (*Rig, error) {
	dir, err := os.MkdirTemp("", "drover-bench-")
	if err != nil {
		return nil, err
	}
	r := &Rig{Dir: dir, Limits: limits}
	if err := r.open(ctx); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *Rig) open(ctx context.Context) (err error) {
	if err := os.WriteFile(filepath.Join(r.Dir, "index.js"), nodeApp, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(r.Dir, "function_app.py"), PythonApp, 0o600); err != nil {
		return err
	}
	r.server, err = embedded.Start(ctx, embedded.Config{
		Dir: filepath.Join(r.Dir, "nats"), Listen: "off", Sync: 2 * time.Minute, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	if r.Conn, err = client.ConnectInProcess(ctx, r.server, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	if r.JS, err = jetstream.New(r.Conn.Conn()); err != nil {
		return err
	}
	retention := jetstream.WorkQueuePolicy
	if r.Limits {
		retention = jetstream.LimitsPolicy
	}
	_, err = r.JS.CreateStream(ctx, jetstream.StreamConfig{
		Name: Stream, Subjects: []string{Subject}, Storage: jetstream.FileStorage, Retention: retention,
	})
	return err
}

func (r *Rig) Close() error {
	var errs []error
	if r.Conn != nil {
		errs = append(errs, r.Conn.Close())
	}
	if r.server != nil {
		errs = append(errs, r.server.Close(context.Background()))
	}
	return errors.Join(append(errs, os.RemoveAll(r.Dir))...)
}

// Fill puts n messages of size bytes into the stream.
func (r *Rig) Fill(ctx context.Context, n, size int, attributes map[string]string) error {
	r.batch, r.full = batch{n, size, attributes}, true
	sender := r.Conn.NewSender()
	body := make([]byte, size)
	for range n {
		if err := sender.Send(ctx, &triggers.Message{Subject: Subject, Body: body, Attributes: attributes}); err != nil {
			return err
		}
	}
	return sender.Flush(ctx)
}

// Refill fills a work queue again that a measurement has read. With retention limits the messages
// stay, and each measurement reads them through its own consumer.
func (r *Rig) Refill(ctx context.Context) error {
	if r.full {
		return nil
	}
	queue, err := r.JS.Stream(ctx, Stream)
	if err == nil {
		err = queue.Purge(ctx) // of what a measurement that failed has left
	}
	if err == nil {
		err = r.Fill(ctx, r.batch.messages, r.batch.size, r.batch.attributes)
	}
	if err != nil {
		return fmt.Errorf("filling the stream: %w", err)
	}
	return nil
}

// Consumer makes the durable that one measurement reads through.
func (r *Rig) Consumer(ctx context.Context) (jetstream.Consumer, error) {
	r.Next++
	return r.JS.CreateConsumer(ctx, Stream, jetstream.ConsumerConfig{
		Durable: fmt.Sprint("c", r.Next), AckPolicy: jetstream.AckExplicitPolicy,
		AckWait: 30 * time.Second, MaxDeliver: -1, MaxAckPending: maxAckPending, FilterSubject: Subject,
	})
}

// settledAll waits until the server has every acknowledgement: only then is a
// measurement over.
func (r *Rig) settledAll(ctx context.Context, consumer jetstream.Consumer) error {
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

// ErrStalled is a Consume of nats.go that stopped asking for messages.
var ErrStalled = errors.New("nats.go stopped asking for messages")

// Ceiling reads and acknowledges n messages with nats.go alone, and returns how
// long it took: in the callback, or from goroutines behind a channel.
func (r *Rig) Ceiling(ctx context.Context, n int, goroutines int) (time.Duration, error) {
	if err := r.Refill(ctx); err != nil {
		return 0, err
	}
	r.full = r.Limits
	consumer, err := r.Consumer(ctx)
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
	err = errors.Join(err, r.JS.DeleteConsumer(ctx, Stream, consumer.CachedInfo().Name))
	if stalled {
		return 0, errors.Join(err, ErrStalled)
	}
	if p := failure.Load(); p != nil {
		err = errors.Join(err, *p)
	}
	return took, errors.Join(err, ctx.Err())
}
