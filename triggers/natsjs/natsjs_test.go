package natsjs

import (
	"context"
	"encoding/json"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/client"
	"github.com/drover-run/drover/triggers/natsjs/consumers"
	"github.com/drover-run/drover/triggers/natsjs/embedded"
	"github.com/drover-run/drover/triggers/triggertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 3 * time.Minute

// testLog writes warnings to the test's log until the test ends.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// lease is the ack wait of tests, longer than any delay by the scheduler.
const lease = 4 * time.Second

func startServer(t testing.TB, dir string) *embedded.Server {
	t.Helper()
	e, err := embedded.Start(t.Context(), embedded.Config{Dir: dir, Listen: "127.0.0.1:0", Sync: time.Minute, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return e
}

func connect(t testing.TB, e *embedded.Server) *client.Connection {
	t.Helper()
	c, err := client.ConnectInProcess(t.Context(), e, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func testConfig(t testing.TB) Config {
	return Config{
		Config: consumers.Config{
			Stream: "ORDERS", Subject: "orders.>", Consumer: "billing", Create: true, AckWait: lease, MaxAttempts: 5,
		},
		DeadLetters: "ORDERS-DEAD", Prefetch: PrefetchAuto, Log: testLog(t),
	}
}

func open(t testing.TB, c *client.Connection, cfg Config) triggers.Trigger {
	t.Helper()
	tr, err := Open(t.Context(), c, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tr.Close(context.Background()) })
	return tr
}

func send(t testing.TB, c *client.Connection, subject string, bodies ...string) {
	t.Helper()
	s := c.NewSender()
	for _, body := range bodies {
		if err := s.Send(t.Context(), &triggers.Message{Subject: subject, Body: []byte(body)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func receive(t testing.TB, tr triggers.Trigger, n int) []*triggers.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out []*triggers.Delivery
	for len(out) < n {
		got, err := tr.Receive(ctx, n-len(out))
		if err != nil {
			t.Fatalf("received %d of %d, then: %v", len(out), n, err)
		}
		out = append(out, got...)
	}
	return out
}

func nothing(t testing.TB, tr triggers.Trigger, wait time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	if got, err := tr.Receive(ctx, 1); err == nil {
		t.Errorf("%q came, attempt %d; nothing should", got[0].Message.Body, got[0].Message.Attempt)
	}
}

func settle(t testing.TB, d *triggers.Delivery, v triggers.Verdict) {
	t.Helper()
	if err := d.Settle(t.Context(), v); err != nil {
		t.Fatal(err)
	}
}

func done(t testing.TB, ds ...*triggers.Delivery) {
	t.Helper()
	for _, d := range ds {
		settle(t, d, triggers.Verdict{Kind: triggers.Done})
	}
}

// deadLetters reads the whole dead-letter stream.
func deadLetters(t testing.TB, c *client.Connection, stream string) (out []*jetstream.RawStreamMsg) {
	t.Helper()
	s, err := c.JetStream().Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	for sequence := s.CachedInfo().State.FirstSeq; sequence <= s.CachedInfo().State.LastSeq; sequence++ {
		m, err := s.GetMsg(t.Context(), sequence)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, m)
	}
	return out
}

func TestConformance(t *testing.T) {
	triggertest.Run(t, func(t *testing.T, o triggertest.Options) *triggertest.Source {
		t.Parallel() // each waits for leases to end, at its own server
		source, _, _ := newSource(t, o)
		return source
	})
}

// newSource is a stream for one test.
func newSource(t *testing.T, o triggertest.Options) (*triggertest.Source, *client.Connection, Config) {
	server := startServer(t, t.TempDir())
	observer := connect(t, server)
	cfg := testConfig(t)
	if o.Ordered {
		cfg.OrderingToken = 2
	}
	if o.NoPrefetch {
		cfg.Prefetch = 0
	}
	connections := map[triggers.Trigger]*client.Connection{}
	source := &triggertest.Source{
		Lease:   cfg.AckWait,
		Settled: func(t testing.TB) { allAcknowledged(t, observer, cfg) },
		Open: func(t testing.TB) triggers.Trigger {
			c := connect(t, server)
			tr := open(t, c, cfg)
			connections[tr] = c
			return tr
		},
		Send: func(t testing.TB, ms ...triggers.Message) {
			s := observer.NewSender()
			for _, m := range ms {
				key := m.OrderingKey
				if key == "" {
					key = "any"
				}
				if err := s.Send(t.Context(), &triggers.Message{Subject: "orders." + key, Attributes: m.Attributes, Body: m.Body}); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		},
		Crash: func(t testing.TB, tr triggers.Trigger) {
			_ = connections[tr].Close() // first the connection: nothing more goes out
			_ = tr.Close(t.Context())
		},
		Dead: func(t testing.TB) (out []triggertest.Dead) {
			for _, m := range deadLetters(t, observer, cfg.DeadLetters) {
				d := triggertest.Dead{Body: m.Data, Attributes: map[string]string{}, Reason: m.Header.Get("Drover-Error"), Function: m.Header.Get("Drover-Function")}
				for name := range m.Header {
					d.Attributes[name] = m.Header.Get(name)
				}
				d.Attempts, _ = strconv.Atoi(m.Header.Get("Drover-Attempts"))
				if text := m.Header.Get("Drover-Traceback"); text != "" {
					if err := json.Unmarshal([]byte(text), &d.Detail); err != nil {
						t.Errorf("the traceback is no JSON string: %v", err)
					}
				}
				out = append(out, d)
			}
			return out
		},
	}
	return source, observer, cfg
}

func TestParseReply(t *testing.T) {
	for reply, ok := range map[string]bool{
		"$JS.ACK.ORDERS.billing.3.7.9.1700000000000000000.5":                 true,
		"$JS.ACK.hub.ACCHASH.ORDERS.billing.3.7.9.1700000000000000000.5":     true,
		"$JS.ACK.hub.ACCHASH.ORDERS.billing.3.7.9.1700000000000000000.5.tok": true,
		"":                                 false,
		"_INBOX.x":                         false,
		"$JS.ACK.ORDERS.billing.3.7":       false,
		"$JS.ACK.ORDERS.billing.a.7.9.1.5": false,
	} {
		at, err := parseReply(reply)
		if (err == nil) != ok {
			t.Errorf("%q: %v", reply, err)
		}
		if want := (delivered{place{7, 1_700_000_000e9}, 3, 9}); ok && at != want {
			t.Errorf("%q is %+v, want %+v", reply, at, want)
		}
	}
}
