package emulator

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
)

// A verdict whose properties do not fit is refused, as by the service: the message stays locked,
// and can be settled with fewer. A message that the queue itself dead-letters is never lost.
func TestAVerdictThatIsRefused(t *testing.T) {
	t.Parallel()
	b := start(t, Options{})
	b.queue("orders", QueueOptions{MaxDeliveryCount: 1})
	c := b.client()
	s := must[*azservicebus.Sender](t)(c.NewSender("orders", nil))
	full := func(n int) map[string]any { return map[string]any{"full": strings.Repeat("x", n)} }
	if err := s.SendMessage(b.soon(), &azservicebus.Message{ApplicationProperties: full(65 << 10)}, nil); err == nil {
		t.Error("65 KiB of properties were taken")
	}
	if err := s.SendMessage(b.soon(), &azservicebus.Message{ApplicationProperties: full(60 << 10)}, nil); err != nil {
		t.Fatal(err)
	}
	r := must[*azservicebus.Receiver](t)(c.NewReceiverForQueue("orders", nil))
	m := b.receive(r, 1)[0]
	more := map[string]any{"more": strings.Repeat("y", 8<<10)}
	// By its token alone, since the SDK takes a message that was refused over its link for settled.
	byToken := &azservicebus.ReceivedMessage{LockToken: m.LockToken}
	// The SDK retries for half a minute when a request is refused.
	brief, cancel := context.WithTimeout(b.soon(), time.Second)
	defer cancel()
	for name, err := range map[string]error{
		"over the link":  r.DeadLetterMessage(b.soon(), m, &azservicebus.DeadLetterOptions{PropertiesToModify: more}),
		"dead-lettering": r.DeadLetterMessage(brief, byToken, &azservicebus.DeadLetterOptions{PropertiesToModify: more}),
	} {
		if err == nil {
			t.Errorf("%s was not refused", name)
		}
	}
	b.wantCounts("orders", Counts{Locked: 1})
	if err := r.DeadLetterMessage(b.soon(), byToken, nil); err != nil {
		t.Error(err)
	}
	b.wantCounts("orders", Counts{DeadLettered: 1})

	if err := s.SendMessage(b.soon(), &azservicebus.Message{ApplicationProperties: full(65500)}, nil); err != nil {
		t.Fatal(err)
	}
	if err := r.AbandonMessage(b.soon(), b.receive(r, 1)[0], nil); err != nil {
		t.Error(err)
	}
	b.wantCounts("orders", Counts{DeadLettered: 2})
	dead := must[*azservicebus.Receiver](t)(c.NewReceiverForQueue("orders", &azservicebus.ReceiverOptions{SubQueue: azservicebus.SubQueueDeadLetter}))
	for _, want := range []int{60 << 10, 65500} {
		m := b.receive(dead, 1)[0]
		if text, _ := m.ApplicationProperties["full"].(string); len(text) != want {
			t.Errorf("%d characters, want %d", len(text), want)
		}
		if err := dead.CompleteMessage(b.soon(), m, nil); err != nil {
			t.Error(err)
		}
	}
}

// Without an expiry in its header, a message expires at its absolute expiry time.
func TestAnAbsoluteTimeOfExpiry(t *testing.T) {
	t.Parallel()
	b := start(t, Options{})
	b.queue("orders", QueueOptions{DeadLetterExpired: true})
	s := must[*azservicebus.Sender](t)(b.client().NewSender("orders", nil))
	now := b.clock.now().UTC()
	at := func(d time.Duration) *time.Time { at := now.Add(d); return &at }
	for name, m := range map[string]*azservicebus.AMQPAnnotatedMessage{
		"the end":           {Properties: &azservicebus.AMQPAnnotatedMessageProperties{AbsoluteExpiryTime: at(time.Hour)}},
		"a difference":      {Properties: &azservicebus.AMQPAnnotatedMessageProperties{CreationTime: at(-time.Hour), AbsoluteExpiryTime: at(0)}},
		"more than 49 days": {Header: &azservicebus.AMQPAnnotatedMessageHeader{TTL: (1<<32 - 1) * time.Millisecond}, Properties: &azservicebus.AMQPAnnotatedMessageProperties{CreationTime: at(0), AbsoluteExpiryTime: at(60 * 24 * time.Hour)}},
		"the header":        {Header: &azservicebus.AMQPAnnotatedMessageHeader{TTL: 3 * time.Hour}, Properties: &azservicebus.AMQPAnnotatedMessageProperties{AbsoluteExpiryTime: at(time.Minute)}},
	} {
		m.Body.Data = [][]byte{[]byte(name)}
		if err := s.SendAMQPAnnotatedMessage(b.soon(), m, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		ahead time.Duration
		want  Counts
	}{
		{0, Counts{Active: 4}}, {30 * time.Minute, Counts{Active: 4}}, {time.Hour, Counts{Active: 2, DeadLettered: 2}},
		{3 * time.Hour, Counts{Active: 1, DeadLettered: 3}}, {55 * 24 * time.Hour, Counts{Active: 1, DeadLettered: 3}}, {5 * 24 * time.Hour, Counts{DeadLettered: 4}},
	} {
		b.clock.advance(b.Emulator, step.ahead)
		b.wantCounts("orders", step.want)
	}
}

// A message is forwarded at most four times, and never in a circle.
func TestForwardingEnds(t *testing.T) {
	t.Parallel()
	b := start(t, Options{})
	for path, to := range map[string]string{"0": "1", "1": "2", "2": "3", "3": "4", "4": "", "longer": "0", "here": "there", "there": "here"} {
		b.queue(path, QueueOptions{ForwardTo: to})
	}
	c := b.client()
	b.send(c, "0", "x")
	b.wantCounts("4", Counts{Active: 1})
	for _, path := range []string{"longer", "here"} {
		s := must[*azservicebus.Sender](t)(c.NewSender(path, nil))
		if err := s.SendMessage(b.soon(), &azservicebus.Message{}, nil); err == nil || !strings.Contains(err.Error(), "hop count") {
			t.Errorf("%s: %v", path, err)
		}
	}
	b.wantCounts("4", Counts{Active: 1})
}
