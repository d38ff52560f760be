package natsjs

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers/natsjs/client"
)

func TestAcknowledgementsThatTheConnectionRefuses(t *testing.T) {
	t.Parallel()
	b := startBroker(t, nil)
	c := dialBroker(t, client.Config{URLs: []string{b.url()}})
	cfg := testConfig(t)
	tr := open(t, c, cfg)
	send(t, c, "orders.x", "1", "2", "3")
	handling := receive(t, tr, 3)
	b.stop()
	waitState(t, c, "reconnecting")
	for c.Conn().Publish("junk", make([]byte, 1<<19)) == nil {
	}
	for c.Conn().Publish("junk", nil) == nil { // to the last byte
	}
	done(t, handling...)
	inner := tr.(*trigger)
	waitFor(t, "a refusal", inner.settler.acks.refused.Load)
	b.start(t)
	waitState(t, c, "connected")
	allAcknowledged(t, c, cfg)
}

// allAcknowledged waits until the server has processed the acknowledgements that it has received.
func allAcknowledged(t testing.TB, c *client.Connection, cfg Config) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		consumer, err := c.JetStream().Consumer(t.Context(), cfg.Stream, cfg.Consumer)
		if err != nil {
			t.Fatal(err)
		}
		i := consumer.CachedInfo()
		if i.NumAckPending == 0 && i.NumPending == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d unacknowledged, %d pending", i.NumAckPending, i.NumPending)
		}
	}
}

func TestCloseSendsWhatIsSettled(t *testing.T) {
	c := connect(t, startServer(t, t.TempDir()))
	cfg := testConfig(t)
	tr := open(t, c, cfg)
	send(t, c, "orders.x", "1", "2")
	handling := receive(t, tr, 2)
	inner := tr.(*trigger)
	inner.mu.Lock()
	inner.settler.acks.woken = true // as if the goroutine that sends were busy
	inner.mu.Unlock()
	done(t, handling...)
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	allAcknowledged(t, c, cfg)
}

// Acknowledgements wait until there are enough of them.
func TestAcknowledgementsAreSentTogether(t *testing.T) {
	t.Parallel()
	c := connect(t, startServer(t, t.TempDir()))
	cfg := testConfig(t)
	tr := open(t, c, cfg)
	send(t, c, "orders.x", "1", "2", "3")
	handling := receive(t, tr, 3)
	acks := tr.(*trigger).settler.acks
	acks.mu.Lock()
	acks.batch, acks.timed = 3, true // as if the delay had begun; it does not end
	acks.mu.Unlock()
	done(t, handling[:2]...)
	acks.mu.Lock()
	sent, woken := acks.sent, acks.woken
	acks.mu.Unlock()
	if sent > 0 || woken {
		t.Errorf("%d acknowledgements were sent, woken %v; want them to wait for a third", sent, woken)
	}
	done(t, handling[2])
	allAcknowledged(t, c, cfg)
}

// No acknowledgement waits if the server holds messages back for it.
func TestHowManyAcknowledgementsWait(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		stream     jetstream.StreamConfig
		ackPending int
		want       int
	}{
		"of drover's own consumers":           {jetstream.StreamConfig{Retention: jetstream.WorkQueuePolicy}, -1, ackBatch},
		"of a consumer by default":            {jetstream.StreamConfig{}, 1000, 62},
		"of a small max ack pending":          {jetstream.StreamConfig{}, 100, 6},
		"one at a time":                       {jetstream.StreamConfig{}, 1, 1},
		"of a full queue that refuses":        {jetstream.StreamConfig{Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew}, -1, 1},
		"of a stream that keeps its messages": {jetstream.StreamConfig{Discard: jetstream.DiscardNew}, -1, ackBatch},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAcks(new(binding))
			a.followSettings(test.stream, jetstream.ConsumerConfig{MaxAckPending: test.ackPending})
			if a.batch != test.want {
				t.Errorf("%d are sent at once, want %d", a.batch, test.want)
			}
		})
	}
}

// A request for messages takes along the acknowledgements that are due soon.
func TestAcknowledgementsAreSentWithARequest(t *testing.T) {
	a := newAcks(new(binding))
	a.ackWait.Store(int64(time.Hour))
	for _, test := range []struct {
		due  time.Duration
		sent int
	}{{time.Hour, 0}, {ackDelay / 4, 2}} {
		a.mu.Lock()
		a.queueAck(place{}, "reply")
		a.delay.Stop()
		a.timed, a.due = true, time.Now().Add(test.due)
		a.mu.Unlock()
		a.sendAlong()
		if a.sent != test.sent {
			t.Errorf("%d acknowledgements were sent, due in %v; want %d", a.sent, test.due, test.sent)
		}
	}
}
