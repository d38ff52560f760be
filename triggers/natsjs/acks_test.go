package natsjs

import (
	"testing"
	"time"

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

// allAcknowledged waits until the server has worked the acknowledgements off
// that it has received.
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
