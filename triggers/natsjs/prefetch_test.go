package natsjs

import (
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
)

func TestWhatWasPrefetchedIsGivenBackAtClose(t *testing.T) {
	server := startServer(t, t.TempDir())
	c := connect(t, server)
	cfg := testConfig(t)
	cfg.AckWait, cfg.Prefetch = time.Minute, 10
	first := open(t, c, cfg)
	bodies := make([]string, 8)
	send(t, c, "orders.x", bodies...)
	done(t, receive(t, first, 1)...)
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := open(t, connect(t, server), cfg)
	for _, d := range receive(t, second, 7) { // long before the minute is over
		if d.Message.Attempt != 1 {
			t.Errorf("attempt %d", d.Message.Attempt)
		}
		done(t, d)
	}
}

// Drain returns prefetched messages when receiving has ended, and pending requests are withdrawn:
// nothing is delivered twice.
func TestWhatWasPrefetchedIsDrained(t *testing.T) {
	server := startServer(t, t.TempDir())
	c := connect(t, server)
	cfg := testConfig(t)
	cfg.AckWait, cfg.Prefetch = time.Minute, 10
	first := open(t, c, cfg)
	source, ok := first.(triggers.Drainer)
	if !ok {
		t.Fatal("it holds messages ready, and cannot be drained")
	}
	send(t, c, "orders.x", make([]string, 8)...)
	done(t, receive(t, first, 1)...)
	drained := 1
	for {
		got, err := source.Drain(t.Context(), 3)
		if err != nil || len(got) > 3 {
			t.Fatalf("%d messages, %v", len(got), err)
		}
		if len(got) == 0 {
			break
		}
		drained += len(got)
		done(t, got...)
	}
	if drained < 2 {
		t.Error("nothing was prefetched")
	}
	send(t, c, "orders.x", make([]string, 5)...) // for others
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := open(t, connect(t, server), cfg)
	done(t, receive(t, second, 13-drained)...)
	consumer, err := c.JetStream().Consumer(t.Context(), cfg.Stream, cfg.Consumer)
	if err != nil {
		t.Fatal(err)
	}
	if info := consumer.CachedInfo(); info.Delivered.Consumer != 13 || info.NumRedelivered != 0 {
		t.Errorf("%d deliveries of 13 messages, %d again", info.Delivered.Consumer, info.NumRedelivered)
	}
}

func TestThePrefetchFollowsTheRate(t *testing.T) {
	t.Parallel()
	c := connect(t, startServer(t, t.TempDir()))
	tr := open(t, c, testConfig(t))
	bodies := make([]string, 5000)
	send(t, c, "orders.x", bodies...)
	prefetch := func() int {
		own := tr.(*trigger)
		return look(own, func() int { return own.prefetch.size })
	}
	if prefetch() != 0 {
		t.Errorf("it begins with %d", prefetch())
	}
	done(t, receive(t, tr, 5000)...)
	if prefetch() < 100 {
		t.Errorf("after 5000 fast messages it is %d", prefetch())
	}
	waitFor(t, "no prefetch when nothing is settled", func() bool { return prefetch() == 0 })
}
