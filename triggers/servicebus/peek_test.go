package servicebus

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus/emulator"
	"github.com/drover-run/drover/triggers/triggertest"
)

func (b *bed) peeker(t testing.TB, change func(*PeekConfig)) triggers.Peeker {
	t.Helper()
	cfg := PeekConfig{Access: access(b.ConnectionString(b.address)), Queue: "orders", Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	if change != nil {
		change(&cfg)
	}
	p, err := OpenPeeker(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close(context.Background()) })
	return p
}

func TestPeek(t *testing.T) {
	t.Parallel()
	triggertest.RunPeek(t, func(t *testing.T) *triggertest.Peekable {
		b := start(t, emulator.QueueOptions{LockDuration: time.Second})
		return &triggertest.Peekable{Source: b.source(false), OpenPeeker: func(t testing.TB) triggers.Peeker { return b.peeker(t, nil) }}
	})
}

// The messages of all subscriptions are shown, one subscription after the other. Scheduled messages
// are not shown, nor those that no function can receive, which is logged.
func TestPeekSubscriptions(t *testing.T) {
	b := start(t, emulator.QueueOptions{})
	if err := b.CreateTopic("events"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "two"} {
		if err := b.CreateSubscription("events", name, emulator.QueueOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	b.sendTo(t, "events", triggers.Message{Body: []byte("a")}, triggers.Message{Body: []byte("b")})
	s, err := b.client(t).NewSender("events", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.ScheduleMessages(t.Context(), []*azservicebus.Message{{MessageID: to.Ptr("tomorrow")}}, time.Now().Add(time.Hour), nil); err != nil {
		t.Fatal(err)
	}
	if err := s.SendAMQPAnnotatedMessage(t.Context(), &azservicebus.AMQPAnnotatedMessage{
		Body: azservicebus.AMQPAnnotatedMessageBody{Value: int64(7)}, Properties: &azservicebus.AMQPAnnotatedMessageProperties{MessageID: "seven"}}, nil); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	p := b.peeker(t, func(c *PeekConfig) {
		c.Queue, c.Topic, c.Subscriptions = "", "events", []string{"one", "two"}
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
	})
	var bodies string
	for {
		got, err := p.Peek(t.Context(), 10)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) == 0 {
			break
		}
		for _, m := range got {
			bodies += string(m.Body)
		}
	}
	if bodies != "abab" {
		t.Errorf("it shows %q, want abab", bodies)
	}
	if strings.Count(log.String(), "message=seven") != 2 || !strings.Contains(log.String(), "AMQP value") {
		t.Errorf("the log is\n%s", log.String())
	}
}

func TestPeekErrors(t *testing.T) {
	b := start(t, emulator.QueueOptions{RequiresSession: true})
	if _, err := OpenPeeker(PeekConfig{Queue: "orders", Sessions: true}); err == nil || !strings.Contains(err.Error(), "orders has sessions") {
		t.Errorf("with sessions: %v", err)
	}
	p := b.peeker(t, func(c *PeekConfig) { c.Queue = "nowhere" })
	if _, err := p.Peek(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("a queue that is not there: %v", err)
	}
}
