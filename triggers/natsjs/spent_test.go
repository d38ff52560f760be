package natsjs

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/client"
)

// bounded creates a stream, and a consumer with a max_deliver.
func bounded(t *testing.T, c *client.Connection, cfg Config, most int) {
	t.Helper()
	_, first := c.JetStream().CreateStream(t.Context(), jetstream.StreamConfig{Name: cfg.Stream, Subjects: []string{cfg.Subject}, Retention: jetstream.WorkQueuePolicy})
	_, second := c.JetStream().CreateConsumer(t.Context(), cfg.Stream, jetstream.ConsumerConfig{Durable: cfg.Consumer, AckPolicy: jetstream.AckExplicitPolicy, AckWait: cfg.AckWait, MaxDeliver: most})
	if err := errors.Join(first, second); err != nil {
		t.Fatal(err)
	}
}

// waitDead waits for n dead letters.
func waitDead(t *testing.T, c *client.Connection, cfg Config, n int) []*jetstream.RawStreamMsg {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		if s, err := c.JetStream().Stream(t.Context(), cfg.DeadLetters); err == nil && s.CachedInfo().State.Msgs >= uint64(n) {
			return deadLetters(t, c, cfg.DeadLetters)
		}
		if time.Now().After(deadline) {
			t.Fatalf("there are not %d dead letters", n)
		}
	}
}

func wantSpent(t *testing.T, m *jetstream.RawStreamMsg, body string) {
	t.Helper()
	if reason := m.Header.Get("Drover-Error"); string(m.Data) != body || !strings.HasPrefix(reason, "max_deliver (") || m.Header.Get("Drover-Function") != "orders" {
		t.Errorf("dead letter %q of function %q: %s", m.Data, m.Header.Get("Drover-Function"), reason)
	}
}

// At the last delivery that the server allows a message is dead-lettered instead of released, since
// it would not be delivered again.
func TestTheLastDelivery(t *testing.T) {
	t.Parallel()
	for _, kind := range []triggers.Kind{triggers.Release, triggers.Retry} {
		t.Run(kind.String(), func(t *testing.T) {
			server := startServer(t, t.TempDir())
			c := connect(t, server)
			cfg := testConfig(t)
			cfg.MaxAttempts, cfg.Function = 2, "orders"
			bounded(t, c, cfg, 3)
			send(t, c, "orders.x", "slow")
			for range 3 { // as of a daemon that is restarted each time
				tr := open(t, c, cfg)
				settle(t, receive(t, tr, 1)[0], triggers.Verdict{Kind: kind})
				if err := tr.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			dead := waitDead(t, c, cfg, 1)
			wantSpent(t, dead[0], "slow")
			waitEmpty(t, c, cfg)
		})
	}
}

func waitEmpty(t *testing.T, c *client.Connection, cfg Config) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		s, err := c.JetStream().Stream(t.Context(), cfg.Stream)
		if err != nil {
			t.Fatal(err)
		}
		n := s.CachedInfo().State.Msgs
		if n == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d messages are left in the stream", n)
		}
	}
}

// crash ends a trigger like a kill -9 of its process.
func crash(t *testing.T, c *client.Connection, tr triggers.Trigger) {
	t.Helper()
	_ = c.Close()
	_ = tr.Close(t.Context())
}

// A daemon that is killed during the last delivery leaves a message that the server gives up. The
// next daemon finds it by the server's advisory, or, if none was received, in the stream.
func TestMessagesThatTheServerHasGivenUp(t *testing.T) {
	t.Parallel()
	for name, heard := range map[string]bool{"advisory": true, "nobody heard": false} {
		t.Run(name, func(t *testing.T) {
			server := startServer(t, t.TempDir())
			c := connect(t, server)
			cfg := testConfig(t)
			cfg.MaxAttempts, cfg.Function = 1, "orders"
			bounded(t, c, cfg, 2)
			send(t, c, "orders.x", "kills")
			for range 2 {
				own := connect(t, server)
				tr := open(t, own, cfg)
				receive(t, tr, 1)
				crash(t, own, tr)
			}
			if !heard {
				for deadline := time.Now().Add(patience); pending(t, c, cfg) > 0; { // given up
					if time.Now().After(deadline) {
						t.Fatal("the server does not give the message up")
					}
					if m, err := mustConsumer(t, c, cfg).Fetch(1, jetstream.FetchMaxWait(cfg.AckWait)); err == nil {
						for range m.Messages() {
							t.Fatal("it came again")
						}
					}
				}
			}
			tr := open(t, connect(t, server), cfg)
			if !heard {
				if at, err := tr.(triggers.Finder).Find(t.Context(), "ORDERS:1"); err != nil || at.Place != triggers.PlaceSpent || !strings.Contains(at.Note, "max_deliver") {
					t.Errorf("found at %q, note %q, error %v", at.Place, at.Note, err)
				}
			}
			receiving, stop := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				if got, err := tr.Receive(receiving, 1); err == nil {
					t.Errorf("%q came", got[0].Message.Body)
				}
			}()
			wantSpent(t, waitDead(t, c, cfg, 1)[0], "kills")
			waitEmpty(t, c, cfg)
			stop()
			<-ended
		})
	}
}

func mustConsumer(t *testing.T, c *client.Connection, cfg Config) jetstream.Consumer {
	t.Helper()
	consumer, err := c.JetStream().Consumer(t.Context(), cfg.Stream, cfg.Consumer)
	if err != nil {
		t.Fatal(err)
	}
	return consumer
}

// Messages that are done do not count as given up.
func TestDoneIsNotGivenUp(t *testing.T) {
	c := connect(t, startServer(t, t.TempDir()))
	cfg := testConfig(t)
	bounded(t, c, cfg, 9)
	tr := open(t, c, cfg).(*trigger)
	send(t, c, "orders.x", make([]string, 50)...)
	handling := receive(t, tr, 50)
	done(t, handling[10:40]...) // the first are in flight
	for _, settled := range []bool{false, true} {
		if settled {
			done(t, handling[:10]...)
			done(t, handling[40:]...)
			allAcknowledged(t, c, cfg)
			waitEmpty(t, c, cfg)
		}
		if spent, err := tr.keeper.spent.scan(t.Context(), nil); err != nil || len(spent) > 0 {
			t.Errorf("all done: %v; counted as given up: %v, error %v", settled, spent, err)
		}
	}
}

func TestABoundIsReportedAtTheStart(t *testing.T) {
	c := connect(t, startServer(t, t.TempDir()))
	cfg := testConfig(t)
	bounded(t, c, cfg, 9)
	var out strings.Builder
	cfg.Log = slog.New(slog.NewTextHandler(&out, nil))
	cfg.OrderingToken = 1
	tr := open(t, c, cfg)
	if notes := tr.(triggers.Noter).Notes(); len(notes) != 1 || !strings.Contains(notes[0], "max_deliver of its consumer billing is 9") {
		t.Errorf("notes: %q", notes)
	}
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "max_deliver also bounds restarts") {
		t.Errorf("the log has no warning: %s", out.String())
	}
}

// A consumer's settings may be changed while it is in use.
func TestAConsumerThatIsEdited(t *testing.T) {
	t.Parallel()
	server := startServer(t, t.TempDir())
	c := connect(t, server)
	cfg := testConfig(t)
	cfg.AckWait, cfg.Function = time.Minute, "orders"
	tr := open(t, c, cfg)
	send(t, c, "orders.x", "long", "last")
	held := receive(t, tr, 2)
	edited := mustConsumer(t, c, cfg).CachedInfo().Config
	edited.AckWait, edited.MaxDeliver = 4*time.Second, 1
	if _, err := c.JetStream().UpdateConsumer(t.Context(), cfg.Stream, edited); err != nil {
		t.Fatal(err)
	}
	own := tr.(*trigger)
	waitFor(t, "the changes", func() bool {
		return look(own, func() int { return own.maxDeliver }) == 1 && time.Duration(own.ackWait.Load()) == edited.AckWait
	})
	nothing(t, open(t, connect(t, server), editedConfig(cfg, edited)), edited.AckWait+2*time.Second) // it is kept alive at the new pace
	settle(t, held[1], triggers.Verdict{Kind: triggers.Retry})
	wantSpent(t, waitDead(t, c, cfg, 1)[0], "last")
	done(t, held[0])
	waitEmpty(t, c, cfg)
}

func editedConfig(cfg Config, edited jetstream.ConsumerConfig) Config {
	cfg.AckWait, cfg.MaxAttempts = edited.AckWait, 0
	return cfg
}
