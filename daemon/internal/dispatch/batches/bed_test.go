package batches_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/drover-run/drover/daemon/internal/dispatch"
	"github.com/drover-run/drover/daemon/internal/dispatch/batches"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bed is a function that takes batches, and its queue. Its tests run in a synctest bubble.
type bed struct {
	t        *testing.T
	queue    *memory.Queue
	function *dispatch.Function
	batches  *batches.Handler

	mu    sync.Mutex
	calls [][]string // the bodies of each call

	stopReceiving, stopWorking context.CancelFunc
	ended                      chan error
}

// code is a batch function of a test.
type code func(ctx context.Context, bodies []string, messages []*triggers.Message) ([]handlers.Result, error)

// startBed runs a function with slots for that many messages. change may change its configuration.
func startBed(t *testing.T, slots int, cfg batches.Config, run code, change ...func(*dispatch.Config)) *bed {
	b := &bed{t: t, queue: memory.New(time.Hour), ended: make(chan error, 1)}
	b.startWith(b.recorded(run), slots, cfg, change...)
	return b
}

// recorded returns a batch function that records its calls.
func (b *bed) recorded(run code) handlers.BatchFunc {
	return func(ctx context.Context, messages []*triggers.Message) ([]handlers.Result, error) {
		var bodies []string
		for _, m := range messages {
			bodies = append(bodies, string(m.Body))
		}
		b.mu.Lock()
		b.calls = append(b.calls, bodies)
		b.mu.Unlock()
		return run(ctx, bodies, messages)
	}
}

func (b *bed) startWith(to handlers.Batched, slots int, cfg batches.Config, change ...func(*dispatch.Config)) {
	stats := new(dispatch.Stats)
	cfg.Function, cfg.Concurrency, cfg.Counts, cfg.Log = "f", slots, &stats.Batches, slog.New(slog.DiscardHandler)
	b.batches = batches.New(to, cfg)
	own := dispatch.Config{
		Name: "f", Handler: b.batches, Trigger: b.queue.Trigger(), Share: b.batches.Slots().Share(0), Log: cfg.Log, Stats: stats,
		Timeout: time.Minute, Retry: dispatch.Retry{MaxAttempts: 1, Initial: time.Second, Max: time.Minute},
	}
	for _, each := range change {
		each(&own)
	}
	b.function = dispatch.New(own)
	var receiving, working context.Context
	receiving, b.stopReceiving = context.WithCancel(context.Background())
	working, b.stopWorking = context.WithCancel(context.Background())
	go func() { b.ended <- b.function.Run(receiving, working, context.Background()) }()
}

func (b *bed) send(bodies ...string) {
	for _, body := range bodies {
		b.queue.Send(triggers.Message{Body: []byte(body)})
	}
}

// stop drains the function, and closes it.
func (b *bed) stop() error {
	b.stopReceiving()
	err := <-b.ended
	b.stopWorking()
	b.queue.Close()
	return errors.Join(err, b.function.Close())
}

func (b *bed) sizes() (out []int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, bodies := range b.calls {
		out = append(out, len(bodies))
	}
	return out
}

func (b *bed) wantSizes(want ...int) {
	b.t.Helper()
	if got := b.sizes(); !slices.Equal(got, want) {
		b.t.Errorf("calls with %v messages, want %v", got, want)
	}
}

func (b *bed) wantCounts(done, retried, rejected, released int64) {
	b.t.Helper()
	s := b.function.Stats.ReadCounts()
	if s.Done != done || s.Retried != retried || s.Rejected != rejected || s.Released != released {
		b.t.Errorf("done %d, retried %d, rejected %d, released %d; want %d, %d, %d, %d",
			s.Done, s.Retried, s.Rejected, s.Released, done, retried, rejected, released)
	}
}

func numbers(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprint(i))
	}
	return out
}

func allDone(context.Context, []string, []*triggers.Message) ([]handlers.Result, error) {
	return nil, nil
}

// failsWith fails as a whole if one of the messages is bad.
func failsWith(bad string) code {
	return func(_ context.Context, bodies []string, _ []*triggers.Message) ([]handlers.Result, error) {
		if slices.Contains(bodies, bad) {
			return nil, errBad
		}
		return nil, nil
	}
}
