package servicebus

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"go.uber.org/goleak"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus/emulator"
	"github.com/drover-run/drover/triggers/triggertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type bed struct {
	*emulator.Emulator
	address string
	t       testing.TB
}

func start(t testing.TB, o emulator.QueueOptions) *bed {
	t.Helper()
	b := &bed{t: t, Emulator: emulator.New(emulator.Options{MaxMessageSize: 2 << 20})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.address = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- b.Serve(l) }()
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
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
	c, err := azservicebus.NewClientFromConnectionString(b.ConnectionString(b.address), &azservicebus.ClientOptions{
		RetryOptions: azservicebus.RetryOptions{MaxRetries: 1, RetryDelay: 50 * time.Millisecond, MaxRetryDelay: 100 * time.Millisecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func (b *bed) open(t testing.TB) (triggers.Trigger, *azservicebus.Client) {
	t.Helper()
	c := b.client(t)
	tr, err := open(c, Config{Queue: "orders", Prefetch: PrefetchAuto, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tr.Close(context.Background()) })
	return tr, c
}

func (b *bed) send(t testing.TB, ms ...triggers.Message) {
	t.Helper()
	s, err := b.client(t).NewSender("orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range ms {
		out := &azservicebus.Message{Body: m.Body, ApplicationProperties: map[string]any{}}
		for name, value := range m.Attributes {
			out.ApplicationProperties[name] = value
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

func TestConformance(t *testing.T) {
	triggertest.Run(t, func(t *testing.T, o triggertest.Options) *triggertest.Source {
		if o.Ordered {
			t.Skip("sessions are not built yet")
		}
		b := start(t, emulator.QueueOptions{LockDuration: time.Second, MaxDeliveryCount: 1000})
		clients := map[triggers.Trigger]*azservicebus.Client{}
		return &triggertest.Source{
			Loan: time.Second,
			Open: func(t testing.TB) triggers.Trigger {
				tr, c := b.open(t)
				clients[tr] = c
				return tr
			},
			Send: func(t testing.TB, ms ...triggers.Message) { b.send(t, ms...) },
			Crash: func(t testing.TB, tr triggers.Trigger) {
				_ = clients[tr].Close(t.Context()) // first the connection: nothing more goes out
				_ = tr.Close(t.Context())
			},
			Dead: func(t testing.TB) []triggertest.Dead { return b.dead(t) },
		}
	})
}
