package servicebus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"go.uber.org/goleak"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus/emulator"
	"github.com/drover-run/drover/triggers/triggertest"
)

// TestMain ignores goroutines that the SDK may leak. When two calls use a receiver without a link, such
// as a receive and a renewal after a lost connection, AMQPLinksImpl.Get of the SDK opens the link twice: it
// does not check again after taking its lock. The second link replaces the first, whose two claim renewers
// are never stopped; they end at their next renewal after the client is closed. A client that drover does
// not close is still detected, by the goroutines of its connection.
func TestMain(m *testing.M) {
	const renewer = "github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus/internal.(*Namespace).startNegotiateClaimRenewer.func3"
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(renewer))
}

type bed struct {
	*emulator.Emulator
	address  string
	listener net.Listener
	t        testing.TB
}

func start(t testing.TB, o emulator.QueueOptions) *bed {
	t.Helper()
	return startWith(t, emulator.Options{MaxMessageSize: 2 << 20}, o)
}

// startWith starts an emulator that has the queue orders.
func startWith(t testing.TB, options emulator.Options, o emulator.QueueOptions) *bed {
	t.Helper()
	b := &bed{t: t, Emulator: emulator.New(options)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.address = l.Addr().String()
	b.listener = l
	served := make(chan error, 1)
	go func() { served <- b.Serve(l) }()
	t.Cleanup(func() {
		if err := b.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if err := <-served; err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	if err := b.CreateQueue("orders", o); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bed) client(t testing.TB) *azservicebus.Client {
	t.Helper()
	c, err := azservicebus.NewClientFromConnectionString(b.ConnectionString(b.address), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func access(connection string) *Access {
	return &Access{ConnectionString: func() (string, error) { return connection, nil }}
}

// open returns a trigger on the queue orders; change may be nil.
func (b *bed) open(t testing.TB, change func(*Config)) *trigger {
	t.Helper()
	cfg := Config{Access: access(b.ConnectionString(b.address)), Queue: "orders", Prefetch: PrefetchAuto, MaxSessions: 4, SessionIdle: 5 * time.Second, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	if change != nil {
		change(&cfg)
	}
	tr, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tr.Close(context.Background()) })
	return tr.(*trigger)
}

// limited returns a connection string without the right Manage if the emulator has keys; otherwise
// it is cut off from the admin API.
func (b *bed) limited(t testing.TB) string {
	t.Helper()
	b.SetKeys(emulator.Key{Name: "all", Key: "k", Manage: true}, emulator.Key{Name: "listen", Key: "l1sten", Listen: true})
	return strings.NewReplacer("Name=all", "Name=listen", "Key=k;", "Key=l1sten;").Replace(b.ConnectionString(b.address))
}

func (b *bed) send(t testing.TB, ms ...triggers.Message) {
	t.Helper()
	b.sendTo(t, "orders", ms...)
}

func (b *bed) sendTo(t testing.TB, entity string, ms ...triggers.Message) {
	t.Helper()
	s, err := b.client(t).NewSender(entity, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range ms {
		out := &azservicebus.Message{Body: m.Body, ApplicationProperties: map[string]any{}}
		for name, value := range m.Attributes {
			out.ApplicationProperties[name] = value
		}
		if m.OrderingKey != "" {
			out.SessionID = &m.OrderingKey
		}
		if err := s.SendMessage(t.Context(), out, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func (b *bed) dead(t testing.TB) (out []triggertest.Dead) {
	t.Helper()
	r, err := b.client(t).NewReceiverForQueue("orders", &azservicebus.ReceiverOptions{SubQueue: azservicebus.SubQueueDeadLetter})
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.PeekMessages(t.Context(), 100, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range got {
		text := func(name string) string { s, _ := m.ApplicationProperties[name].(string); return s }
		attempts, _ := m.ApplicationProperties["Drover-Attempts"].(int64)
		d := triggertest.Dead{Body: m.Body, Attributes: map[string]string{}, Reason: *m.DeadLetterReason, Detail: text("Drover-Traceback"), Attempts: int(attempts), Function: text("Drover-Function")}
		for name := range m.ApplicationProperties {
			d.Attributes[name] = text(name)
		}
		out = append(out, d)
	}
	return out
}

// conformanceLock is the duration of locks in the suite, longer than delays by the scheduler.
const conformanceLock = 2 * time.Second

func TestConformance(t *testing.T) {
	t.Parallel()
	triggertest.Run(t, func(t *testing.T, o triggertest.Options) *triggertest.Source {
		t.Parallel() // each waits for locks to end, at its own emulator
		b := start(t, emulator.QueueOptions{LockDuration: conformanceLock, MaxDeliveryCount: 1000, RequiresSession: o.Ordered})
		s := b.source(o.Ordered)
		s.Lease = conformanceLock
		return s
	})
}

// The whole suite also with sessions: each message has its own session.
func TestConformanceWithSessions(t *testing.T) {
	t.Parallel()
	triggertest.Run(t, func(t *testing.T, o triggertest.Options) *triggertest.Source {
		t.Parallel()
		b := start(t, emulator.QueueOptions{LockDuration: conformanceLock, MaxDeliveryCount: 1000, RequiresSession: true})
		s := b.source(true)
		s.Lease = conformanceLock
		send, n := s.Send, 0
		s.Send = func(t testing.TB, ms ...triggers.Message) {
			for i := range ms {
				if ms[i].OrderingKey == "" {
					n++
					ms[i].OrderingKey = fmt.Sprint("session ", n)
				}
			}
			send(t, ms...)
		}
		return s
	})
}

func (b *bed) source(sessions bool) *triggertest.Source {
	return &triggertest.Source{
		Lease: time.Second,
		Open: func(t testing.TB) triggers.Trigger {
			return b.open(t, func(c *Config) { c.Sessions, c.MaxSessions = sessions, 128 })
		},
		Send: func(t testing.TB, ms ...triggers.Message) { b.send(t, ms...) },
		Crash: func(t testing.TB, tr triggers.Trigger) {
			_ = tr.(*trigger).entities[0].current.Load().client.Close(t.Context()) // first the connection: nothing more goes out
			_ = tr.Close(t.Context())
		},
		Dead: func(t testing.TB) []triggertest.Dead { return b.dead(t) },
	}
}
