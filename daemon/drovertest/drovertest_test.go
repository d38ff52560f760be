package drovertest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon"
	"github.com/drover-run/drover/daemon/drovertest"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type order struct {
	ID    int `json:"id"`
	Price int `json:"price"`
}

type receipt struct {
	ID    int `json:"id"`
	Total int `json:"total"`
}

// functions are the options of a program: its functions, with their brokers.
func functions() []daemon.Option {
	return []daemon.Option{
		daemon.WithFunction("orders", configs.Function{
			Trigger: configs.Trigger{NATS: &configs.NATSTrigger{Stream: "ORDERS"}},
			Output:  configs.Outputs{{NATS: &configs.NATSOutput{Subject: "receipts"}}, {Name: "audit", NATS: &configs.NATSOutput{Subject: "audit"}}},
		}, handlers.JSONResult(handleOrder)),
	}
}

func handleOrder(ctx context.Context, o order) (receipt, error) {
	switch {
	case o.Price < 0:
		return receipt{}, handlers.Reject(errors.New("the price is negative"))
	case o.Price == 0 && handlers.MessageOf(ctx).Attempt < 3:
		return receipt{}, errors.New("no price yet")
	}
	return receipt{o.ID, o.Price}, handlers.Send(ctx, "audit", fmt.Appendf(nil, "order %d", o.ID), nil)
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	d := drovertest.Start(t, nil, functions()...)
	got := d.Handle(t.Context(), "orders", drovertest.JSON(order{7, 10}))
	if !got.Done() || string(got.Output) != `{"id":7,"total":10}` || got.Attempts() != 1 || got.Properties[triggers.ContentType] != "application/json" {
		t.Error(got)
	}
	if sent := d.Sent("orders", ""); len(sent) != 1 || string(sent[0].Body) != `{"id":7,"total":10}` {
		t.Errorf("results: %v", sent)
	}
	if sent := d.Sent("orders", "audit"); len(sent) != 1 || string(sent[0].Body) != "order 7" {
		t.Errorf("audit: %v", sent)
	}
	for _, bad := range []struct {
		m    triggers.Message
		want string
	}{{drovertest.JSON(order{8, -1}), "the price is negative"}, {triggers.Message{ID: "x", Body: []byte("no JSON")}, "the body does not fit drovertest_test.order"}} {
		if got := d.Handle(t.Context(), "orders", bad.m); got.Done() || !strings.Contains(got.Reason(), bad.want) || got.Attempts() != 1 || !strings.Contains(got.String(), "dead-lettered after 1 attempts: "+bad.want) {
			t.Errorf("%v; want %s", got, bad.want)
		}
	}
	if dead := d.DeadLetters("orders"); len(dead) != 2 || dead[1].Message.ID != "x" {
		t.Errorf("dead letters: %v", dead)
	}
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
}

func TestVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := drovertest.Start(t, nil, functions()...)
		start := time.Now()
		got := d.Handle(t.Context(), "orders", drovertest.JSON(order{9, 0}))
		if !got.Done() || got.Attempts() != 3 || got.Verdicts[0].Kind != triggers.Retry {
			t.Error(got)
		}
		if took := time.Since(start); took < 2*time.Second {
			t.Errorf("two retries took %v of virtual time", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		id := d.Send("orders", drovertest.JSON(order{10, 0}))
		if got := d.Wait(ctx, "orders", id); !got.Done() || got.Message.Attempt != 3 {
			t.Error(got)
		}
	})
}

// TestFileConfiguration runs functions of a file, which names a broker that does not exist and a Go
// function that takes batches.
func TestFileConfiguration(t *testing.T) {
	t.Parallel()
	cfg, err := configs.Parse("drover.yaml", []byte(`
version: 1
connections: {main: {nats: "nats://127.0.0.1:1"}}
probes: {listen: "127.0.0.1:1"}
scale: {instances: {max: 4}}
functions:
  single: {trigger: {nats: {}}, handler: {go: double}}
  several: {trigger: {nats: {}}, handler: {go: sums}, batch: {size: 10}}
`), t.TempDir(), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	d := drovertest.Start(t, cfg, daemon.WithFuncs(handlers.Funcs{"double": func(_ context.Context, m *triggers.Message) ([]byte, error) {
		return append(m.Body, m.Body...), nil
	}}), daemon.WithBatchFuncs(handlers.BatchFuncs{"sums": handlers.JSONBatch(func(_ context.Context, batch []handlers.Decoded[int]) ([]handlers.Result, error) {
		out := make([]handlers.Result, len(batch))
		for i := range batch {
			out[i] = handlers.JSONOutput(batch[i].Body + 1)
		}
		return out, nil
	})}))
	if got := d.Handle(t.Context(), "single", triggers.Message{Body: []byte("ab")}); string(got.Output) != "abab" {
		t.Error(got)
	}
	if got := d.Handle(t.Context(), "several", drovertest.JSON(41)); string(got.Output) != "42" {
		t.Error(got)
	}
	if cfg.Probes.Listen != "127.0.0.1:1" || cfg.Scale.Instances.Max != 4 {
		t.Errorf("the caller's configuration was changed: %+v, %+v", cfg.Probes, cfg.Scale)
	}
}

// closing is a trigger whose Receive must not be called.
type closing struct {
	triggers.Trigger
	closed atomic.Bool
}

func (c *closing) Close(context.Context) error {
	c.closed.Store(true)
	return nil
}

func TestTriggersAreReplaced(t *testing.T) {
	t.Parallel()
	queue := memory.New(0)
	defer queue.Close()
	own, ready := &closing{Trigger: queue.Trigger()}, make(chan struct{})
	d := drovertest.Start(t, nil, daemon.WithFunction("f", configs.Function{}, handlers.Func(func(context.Context, *triggers.Message) ([]byte, error) { return nil, nil })),
		daemon.WithTrigger("f", own), daemon.WithReady(func() { close(ready) }))
	<-ready
	if got := d.Handle(t.Context(), "f", triggers.Message{}); !got.Done() || got.Output != nil || !own.closed.Load() {
		t.Errorf("%v; closed: %v", got, own.closed.Load())
	}
}

// failing is a test that records its failure. Fatalf ends its goroutine, like that of a real test.
type failing struct {
	*testing.T
	text string
}

func (f *failing) Helper()           {}
func (f *failing) Output() io.Writer { return io.Discard }
func (f *failing) Fatalf(format string, args ...any) {
	f.text = fmt.Sprintf(format, args...)
	panic(f)
}

// failsWith runs a step that must fail the test.
func failsWith(t *testing.T, want string, step func(f *failing)) {
	t.Helper()
	f := &failing{T: t}
	defer func() {
		t.Helper()
		if p := recover(); p != any(f) || !strings.Contains(f.text, want) {
			t.Errorf("it failed with %q, %v; want %q", f.text, p, want)
		}
	}()
	step(f)
}

func TestFailures(t *testing.T) {
	t.Parallel()
	failsWith(t, "the daemon did not start: functions: it is empty", func(f *failing) { drovertest.Start(f, nil) })
	failsWith(t, `there is no function "oders"; functions: orders`, func(f *failing) { drovertest.Start(f, nil, functions()...).Send("oders", triggers.Message{}) })
	failsWith(t, "no message with the ID 5 was sent", func(f *failing) { drovertest.Start(f, nil, functions()...).Wait(t.Context(), "orders", "5") })
	failsWith(t, "a message with the ID 1 was sent before", func(f *failing) {
		d := drovertest.Start(f, nil, functions()...)
		d.Send("orders", triggers.Message{ID: "1"})
		d.Send("orders", triggers.Message{ID: "1"})
	})
	failsWith(t, "message 1 is neither done nor dead-lettered: the daemon has ended; verdicts so far: none", func(f *failing) {
		d := drovertest.Start(f, nil, functions()...)
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
		d.Handle(t.Context(), "orders", triggers.Message{})
	})
	synctest.Test(t, func(t *testing.T) {
		failsWith(t, "verdicts so far: retry in ", func(f *failing) {
			d := drovertest.Start(f, nil, functions()...)
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			d.Handle(ctx, "orders", drovertest.JSON(order{1, 0}))
		})
	})
	defer func() {
		if p := recover(); !strings.Contains(fmt.Sprint(p), "drovertest.JSON: json: unsupported type: chan int") {
			t.Errorf("%v", p)
		}
	}()
	drovertest.JSON(make(chan int))
}
