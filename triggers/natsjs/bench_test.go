package natsjs

import (
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/client"
	"github.com/drover-run/drover/triggers/natsjs/consumers"
)

// BenchmarkReceive reads and acknowledges through the trigger, and with nats.go alone: the trigger
// causes the difference in allocations.
func BenchmarkReceive(b *testing.B) {
	setUp := func(b *testing.B) (*client.Connection, Config) {
		c := connect(b, startServer(b, b.TempDir()))
		cfg := testConfig(b)
		s := c.NewSender()
		if _, _, err := consumers.Open(b.Context(), c.JetStream(), cfg.Config, cfg.Log); err != nil {
			b.Fatal(err)
		}
		body := make([]byte, 128)
		for range b.N {
			if err := s.Send(b.Context(), &triggers.Message{Subject: "orders.x", Body: body}); err != nil {
				b.Fatal(err)
			}
		}
		if err := s.Flush(b.Context()); err != nil {
			b.Fatal(err)
		}
		return c, cfg
	}
	b.Run("trigger", func(b *testing.B) {
		c, cfg := setUp(b)
		cfg.Prefetch = 2000
		tr := open(b, c, cfg)
		b.ReportAllocs()
		b.ResetTimer()
		for left := b.N; left > 0; {
			got, err := tr.Receive(b.Context(), min(left, 2000))
			if err != nil {
				b.Fatal(err)
			}
			for _, d := range got {
				if err := d.Settle(b.Context(), triggers.Verdict{Kind: triggers.Done}); err != nil {
					b.Fatal(err)
				}
			}
			left -= len(got)
		}
		if err := c.Conn().Flush(); err != nil {
			b.Fatal(err)
		}
	})
	b.Run("nats.go", func(b *testing.B) {
		c, cfg := setUp(b)
		consumer, err := c.JetStream().Consumer(b.Context(), cfg.Stream, cfg.Consumer)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		b.ResetTimer()
		var all sync.WaitGroup
		all.Add(b.N)
		consuming, err := consumer.Consume(func(m jetstream.Msg) {
			if err := m.Ack(); err != nil {
				b.Error(err)
			}
			all.Done()
		}, jetstream.PullMaxMessages(2000))
		if err != nil {
			b.Fatal(err)
		}
		all.Wait()
		if err := c.Conn().Flush(); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		consuming.Stop()
		<-consuming.Closed()
	})
}
