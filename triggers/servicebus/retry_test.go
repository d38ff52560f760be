package servicebus

import (
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus/emulator"
)

func scheduled(n int) (out []*azservicebus.Message) {
	for range n {
		out = append(out, &azservicebus.Message{Body: []byte("later")})
	}
	return out
}

// A retry by a copy: the message is what it was, and nothing is held here.
func TestRetryByACopy(t *testing.T) {
	b := start(t, emulator.QueueOptions{MaxDeliveryCount: 2})
	tr := b.open(t, func(c *Config) { c.Scheduled, c.MaxAttempts = true, 5 })
	s, err := b.client(t).NewSender("orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	sent := &azservicebus.Message{
		Body: []byte("again"), MessageID: to.Ptr("id-1"), Subject: to.Ptr("subject"), CorrelationID: to.Ptr("cause"), ContentType: to.Ptr("text/plain"),
		ApplicationProperties: map[string]any{"n": int64(7)}, TimeToLive: to.Ptr(time.Hour), ReplyTo: to.Ptr("replies"),
	}
	if err := s.SendMessage(t.Context(), sent, nil); err != nil {
		t.Fatal(err)
	}
	const delay = 300 * time.Millisecond
	for attempt := 1; attempt <= 4; attempt++ {
		d := receive(t, tr, 1)[0]
		m := d.Message
		if m.Attempt != attempt || m.ID != "id-1" || m.Subject != "subject" || m.Attributes["n"] != "7" || len(m.Attributes) != 1 || string(m.Body) != "again" {
			t.Errorf("attempt %d: %+v", attempt, m)
		}
		r := tr.loanOf(d).received
		if *r.CorrelationID != "cause" || *r.ContentType != "text/plain" || *r.ReplyTo != "replies" || r.TimeToLive == nil || *r.TimeToLive > time.Hour || *r.TimeToLive < 50*time.Minute {
			t.Errorf("attempt %d: %+v", attempt, r)
		}
		if attempt == 4 {
			settle(t, d, triggers.Done)
			break
		}
		began := time.Now()
		if err := d.Settle(t.Context(), triggers.Verdict{Kind: triggers.Retry, Delay: delay}); err != nil {
			t.Fatal(err)
		}
		b.wantCounts(t, emulator.Counts{Scheduled: 1})
		if attempt == 2 { // a restart forgets nothing
			if err := tr.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			tr = b.open(t, func(c *Config) { c.Scheduled = true })
		}
		next := receive(t, tr, 1)[0]
		if took := time.Since(began); took < delay-50*time.Millisecond {
			t.Errorf("it came after %v", took)
		}
		settle(t, next, triggers.Release) // not an attempt
	}
	b.wantEmpty(t)
}

// loanOf finds the loan of a delivery.
func (t *trigger) loanOf(d *triggers.Delivery) *loan {
	t.mu.Lock()
	defer t.mu.Unlock()
	for l := range t.loans {
		if &l.Delivery == d {
			return l
		}
	}
	return nil
}

// A body that is no plain data would not be the same in a copy: it is held.
func TestACopyThatWouldDiffer(t *testing.T) {
	b := start(t, emulator.QueueOptions{})
	tr := b.open(t, func(c *Config) { c.Scheduled = true })
	s, err := b.client(t).NewSender("orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SendAMQPAnnotatedMessage(t.Context(), &azservicebus.AMQPAnnotatedMessage{Body: azservicebus.AMQPAnnotatedMessageBody{Value: "a text"}}, nil); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, tr, 1)[0].Settle(t.Context(), triggers.Verdict{Kind: triggers.Retry, Delay: 100 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	b.wantCounts(t, emulator.Counts{Locked: 1})
	d := receive(t, tr, 1)[0]
	if d.Message.Attempt != 2 || string(d.Message.Body) != "a text" {
		t.Errorf("%+v", d.Message)
	}
	settle(t, d, triggers.Done)
	b.wantEmpty(t)
}
