package natsjs

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/client"
	"github.com/drover-run/drover/triggers/natsjs/consumers"
	"github.com/drover-run/drover/triggers/triggertest"
)

func peekerOf(t testing.TB, c *client.Connection, cfg consumers.Config) triggers.Peeker {
	t.Helper()
	p, err := consumers.OpenPeeker(t.Context(), c.JetStream(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPeek(t *testing.T) {
	t.Parallel()
	for name, ordered := range map[string]bool{"unordered": false, "ordered": true} {
		t.Run(name, func(t *testing.T) {
			triggertest.RunPeek(t, func(t *testing.T) *triggertest.Peekable {
				source, observer, cfg := newSource(t, triggertest.Options{Ordered: ordered})
				if ordered {
					send := source.Send
					source.Send = func(t testing.TB, ms ...triggers.Message) {
						for i := range ms {
							ms[i].OrderingKey = strings.Repeat("k", 1+i%250)
						}
						send(t, ms...)
					}
				}
				return &triggertest.Peekable{Source: source, OpenPeeker: func(t testing.TB) triggers.Peeker { return peekerOf(t, observer, cfg.Config) }}
			})
		})
	}
}

// In a shared stream a consumer is shown only its own messages; before the consumer exists, those
// that its filter will match.
func TestPeekInASharedStream(t *testing.T) {
	c := connect(t, startServer(t, t.TempDir()))
	if _, err := c.JetStream().CreateStream(t.Context(), jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}}); err != nil {
		t.Fatal(err)
	}
	for name, subjects := range map[string][]string{"one": {"orders.a"}, "two": {"orders.b.*", "orders.c"}, "all": nil} {
		consumer := jetstream.ConsumerConfig{Durable: name, AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Minute, FilterSubjects: subjects}
		if _, err := c.JetStream().CreateConsumer(t.Context(), "ORDERS", consumer); err != nil {
			t.Fatal(err)
		}
	}
	for _, subject := range []string{"orders.a", "orders.b.x", "orders.c", "orders.d"} {
		send(t, c, subject, subject)
	}
	for _, test := range []struct{ consumer, subject, want string }{
		{"one", "", "orders.a"},
		{"two", "", "orders.b.x orders.c"},
		{"all", "", "orders.a orders.b.x orders.c orders.d"},
		{"none", "orders.d", "orders.d"},
		{"none", "", "orders.a orders.b.x orders.c orders.d"},
	} {
		p := peekerOf(t, c, consumers.Config{Stream: "ORDERS", Consumer: test.consumer, Subject: test.subject})
		got, err := p.Peek(t.Context(), 10)
		if err != nil {
			t.Fatal(err)
		}
		var bodies []string
		for _, m := range got {
			bodies = append(bodies, string(m.Body))
		}
		if strings.Join(bodies, " ") != test.want {
			t.Errorf("consumer %s is shown %q, want %q", test.consumer, bodies, test.want)
		}
	}
	if info, err := c.JetStream().Stream(t.Context(), "ORDERS"); err != nil || info.CachedInfo().State.Consumers != 3 {
		t.Errorf("a consumer was made: %+v, %v", info.CachedInfo().State, err)
	}
}

func TestPeekWithoutAStream(t *testing.T) {
	c := connect(t, startServer(t, t.TempDir()))
	if _, err := consumers.OpenPeeker(t.Context(), c.JetStream(), consumers.Config{Stream: "NONE", Consumer: "none"}); err == nil || !strings.Contains(err.Error(), "stream NONE does not exist") {
		t.Errorf("%v", err)
	}
}
