package servicebus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus/convert"
	"github.com/drover-run/drover/triggers/servicebus/deadletters"
	"github.com/drover-run/drover/triggers/servicebus/emulator"
	"github.com/drover-run/drover/triggers/triggertest"
)

// openDead returns the dead letters of the queue orders; change may be nil.
func (b *bed) openDead(t testing.TB, change func(*deadletters.Config)) triggers.DeadLetters {
	t.Helper()
	cfg := deadletters.Config{Access: access(b.ConnectionString(b.address)), Queue: "orders"}
	if change != nil {
		change(&cfg)
	}
	d, err := deadletters.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close(context.Background()) })
	return d
}

// half sends the copy of a dead letter of the queue orders, like a replay that dies before it
// removes the dead letter.
func (b *bed) half(t testing.TB, dead triggers.DeadLetters, l triggers.DeadLetter, keepID bool) {
	t.Helper()
	if err := dead.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	client := b.client(t)
	r, err := client.NewReceiverForQueue("orders", &azservicebus.ReceiverOptions{SubQueue: azservicebus.SubQueueDeadLetter})
	if err != nil {
		t.Fatal(err)
	}
	s, err := client.NewSender("orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	for at := int64(0); ; {
		seen, err := r.PeekMessages(t.Context(), 100, &azservicebus.PeekMessagesOptions{FromSequenceNumber: &at})
		if err != nil || len(seen) == 0 {
			t.Fatalf("the dead letter %s is not there: %v", l.ID, err)
		}
		for _, m := range seen {
			if fmt.Sprint(*m.SequenceNumber) == l.ID {
				err := s.SendAMQPAnnotatedMessage(t.Context(), convert.ReplayCopy(m, convert.Identity(m), "killed", keepID), nil)
				if err = errors.Join(err, s.Close(t.Context()), r.Close(t.Context())); err != nil {
					t.Fatal(err)
				}
				return
			}
			at = *m.SequenceNumber + 1
		}
	}
}

func done(t *testing.T, ds ...*triggers.Delivery) {
	t.Helper()
	for _, d := range ds {
		settle(t, d, triggers.Done)
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(within); !is(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not so in time: %s", what)
		}
	}
}

func (b *bed) graveyard(s *triggertest.Source, keepIDs bool, change func(*deadletters.Config)) *triggertest.Graveyard {
	return &triggertest.Graveyard{
		Source:   s,
		OpenDead: func(t testing.TB) triggers.DeadLetters { return b.openDead(t, change) },
		Half:     func(t testing.TB, dead triggers.DeadLetters, l triggers.DeadLetter) { b.half(t, dead, l, keepIDs) },
	}
}

func TestDeadLetters(t *testing.T) {
	t.Parallel()
	triggertest.RunDeadLetters(t, func(t *testing.T) *triggertest.Graveyard {
		t.Parallel()
		b := start(t, emulator.QueueOptions{LockDuration: 30 * time.Second, MaxDeliveryCount: 1000})
		return b.graveyard(b.source(false), true, nil)
	})
}

// With duplicate detection, a copy with the message's own ID would be lost.
func TestDeadLettersWithDuplicateDetection(t *testing.T) {
	t.Parallel()
	triggertest.RunDeadLetters(t, func(t *testing.T) *triggertest.Graveyard {
		t.Parallel()
		b := start(t, emulator.QueueOptions{LockDuration: 30 * time.Second, MaxDeliveryCount: 1000, DuplicateWindow: 10 * time.Minute})
		return b.graveyard(b.source(false), false, nil)
	})
}

func TestDeadLettersWithSessions(t *testing.T) {
	t.Parallel()
	triggertest.RunDeadLetters(t, func(t *testing.T) *triggertest.Graveyard {
		t.Parallel()
		b := start(t, emulator.QueueOptions{LockDuration: 30 * time.Second, MaxDeliveryCount: 1000, RequiresSession: true})
		s := b.source(true)
		send, n := s.Send, 0
		s.Send = func(t testing.TB, ms ...triggers.Message) {
			for i := range ms {
				n++
				ms[i].OrderingKey = fmt.Sprint("session ", n)
			}
			send(t, ms...)
		}
		g := b.graveyard(s, true, func(c *deadletters.Config) { c.Sessions = true })
		g.Doubtful, g.Reorders = true, true // any session may be the next one
		return g
	})
}

func subscribed(c *deadletters.Config) {
	c.Queue, c.Topic, c.Subscriptions = "", "events", []string{"billing"}
}

// topic creates a topic with subscriptions, and opens a trigger on each.
func (b *bed) topic(t testing.TB, subscriptions ...string) (out []*trigger) {
	t.Helper()
	if err := b.CreateTopic("events"); err != nil {
		t.Fatal(err)
	}
	for _, name := range subscriptions {
		if err := b.CreateSubscription("events", name, emulator.QueueOptions{LockDuration: 30 * time.Second, MaxDeliveryCount: 1000}); err != nil {
			t.Fatal(err)
		}
		out = append(out, b.open(t, func(c *Config) { c.Queue, c.Topic, c.Subscriptions = "", "events", []string{name} }))
	}
	return out
}

// A topic passes each message to all its subscriptions.
func TestDeadLettersOfATopic(t *testing.T) {
	b := start(t, emulator.QueueOptions{})
	trs := b.topic(t, "billing", "audit")
	b.sendTo(t, "events", triggers.Message{Body: []byte("1")})
	done(t, receive(t, trs[1], 1)...)
	settle(t, receive(t, trs[0], 1)[0], triggers.Reject)
	d := b.openDead(t, subscribed)
	all, err := d.Browse(t.Context(), 10)
	if err != nil || len(all) != 1 {
		t.Fatalf("%d, %v", len(all), err)
	}
	if err := d.Replay(t.Context(), all[0], time.Time{}); !errors.Is(err, triggers.ErrShared) || !strings.Contains(err.Error(), "topic events has 2 subscriptions") {
		t.Errorf("%v", err)
	}
	d = b.openDead(t, func(c *deadletters.Config) { subscribed(c); c.Shared = true })
	if all, err = d.Browse(t.Context(), 10); err != nil || len(all) != 1 {
		t.Fatalf("%d, %v", len(all), err)
	}
	if err := d.Replay(t.Context(), all[0], time.Time{}); err != nil {
		t.Fatal(err)
	}
	for _, tr := range trs {
		done(t, receive(t, tr, 1)...)
	}
	// Both are read by one function: no others would get it.
	b.sendTo(t, "events", triggers.Message{Body: []byte("2")})
	for _, tr := range trs {
		settle(t, receive(t, tr, 1)[0], triggers.Reject)
	}
	d = b.openDead(t, func(c *deadletters.Config) { subscribed(c); c.Subscriptions = []string{"billing", "audit"} })
	for _, id := range []string{"billing:2", "audit:1"} { // a page of each
		if all, err = d.Browse(t.Context(), 10); err != nil || len(all) != 1 || all[0].ID != id {
			t.Fatalf("%+v, %v", all, err)
		}
		if err := d.Remove(t.Context(), all[0]); err != nil {
			t.Fatal(err)
		}
	}
	if all, err = d.Browse(t.Context(), 10); err != nil || len(all) != 0 {
		t.Errorf("%+v, %v", all, err)
	}
}

// Without the right Manage it is not known whether the service drops duplicates, nor which other
// subscriptions exist.
func TestDeadLettersWithoutManage(t *testing.T) {
	b := start(t, emulator.QueueOptions{LockDuration: time.Second, DuplicateWindow: time.Hour})
	b.SetKeys(emulator.Key{Name: "all", Key: "k", Manage: true}, emulator.Key{Name: "both", Key: "both", Listen: true, Send: true}, emulator.Key{Name: "listen", Key: "l1sten", Listen: true})
	tr := b.open(t, nil)
	topicTrigger := b.topic(t, "billing")[0]
	b.send(t, triggers.Message{Body: []byte("1")})
	first := receive(t, tr, 1)[0]
	settle(t, first, triggers.Reject)
	connection := func(name, key string) func(*deadletters.Config) {
		return func(c *deadletters.Config) {
			c.Access = access(strings.NewReplacer("Name=all", "Name="+name, "Key=k;", "Key="+key+";").Replace(b.ConnectionString(b.address)))
		}
	}
	d := b.openDead(t, connection("listen", "l1sten"))
	all, err := d.Browse(t.Context(), 10)
	if err != nil || len(all) != 1 {
		t.Fatalf("%d, %v", len(all), err)
	}
	if err := d.Replay(t.Context(), all[0], time.Time{}); err == nil || !strings.Contains(err.Error(), "Azure Service Bus Data Sender") {
		t.Errorf("%v", err)
	}
	if err := d.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	d = b.openDead(t, connection("both", "both"))
	if all, err = d.Browse(t.Context(), 10); err != nil || len(all) != 1 {
		t.Fatalf("%d, %v", len(all), err)
	}
	eventually(t, "it is replayed", func() bool { // the lock of the failed one ends
		err := d.Replay(t.Context(), all[0], time.Time{})
		if err != nil && !strings.Contains(err.Error(), "is locked: another receiver has it") {
			t.Fatal(err)
		}
		return err == nil
	})
	again := receive(t, tr, 1)[0]
	if again.Message.ID != first.Message.ID || again.Message.Origin.Native()["MessageId"] != first.Message.ID || len(again.Message.Attributes) != 0 {
		t.Errorf("%+v; it was %+v", again.Message, first.Message)
	}
	done(t, again)
	topic := b.openDead(t, func(c *deadletters.Config) { connection("both", "both")(c); subscribed(c) })
	b.sendTo(t, "events", triggers.Message{Body: []byte("2")})
	settle(t, receive(t, topicTrigger, 1)[0], triggers.Reject)
	if all, err = topic.Browse(t.Context(), 10); err != nil || len(all) != 1 {
		t.Fatalf("%d, %v", len(all), err)
	}
	if err := topic.Replay(t.Context(), all[0], time.Time{}); !errors.Is(err, triggers.ErrShared) || !strings.Contains(err.Error(), "Azure Service Bus Data Owner") {
		t.Errorf("%v", err)
	}
}

// Messages that the service itself gave up, and those that other clients dead-lettered, are
// replayed unchanged.
func TestDeadLettersOfTheService(t *testing.T) {
	b := start(t, emulator.QueueOptions{LockDuration: time.Second, MaxDeliveryCount: 1})
	s, err := b.client(t).NewSender("orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	subject, kind, correlation := "new", "application/json", "c-1"
	err = s.SendAMQPAnnotatedMessage(t.Context(), &azservicebus.AMQPAnnotatedMessage{
		Body: azservicebus.AMQPAnnotatedMessageBody{Value: "a text"}, ApplicationProperties: map[string]any{"n": int32(7), "DeadLetterReason": "mine"},
		Properties: &azservicebus.AMQPAnnotatedMessageProperties{MessageID: "own", Subject: &subject, ContentType: &kind, CorrelationID: correlation},
		Header:     &azservicebus.AMQPAnnotatedMessageHeader{TTL: time.Hour},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := b.client(t).NewReceiverForQueue("orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	receiveOne := func() *azservicebus.ReceivedMessage {
		t.Helper()
		got, err := r.ReceiveMessages(t.Context(), 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		return got[0]
	}
	if err := r.AbandonMessage(t.Context(), receiveOne(), &azservicebus.AbandonMessageOptions{PropertiesToModify: map[string]any{convert.FailuresProperty: int64(3)}}); err != nil {
		t.Fatal(err)
	}
	d := b.openDead(t, nil)
	var l triggers.DeadLetter
	eventually(t, "it is dead", func() bool {
		all, err := b.openDead(t, nil).Browse(t.Context(), 10)
		if err != nil {
			t.Fatal(err)
		}
		return len(all) == 1
	})
	all, err := d.Browse(t.Context(), 10)
	if err != nil {
		t.Fatal(err)
	}
	l = all[0]
	if l.Reason != "MaxDeliveryCountExceeded" || l.Detail == "" || !l.Died.IsZero() || l.Function != "" || l.Message.Attempt != 0 ||
		string(l.Message.Body) != "a text" || len(l.Message.Attributes) != 1 || l.Message.Attributes["n"] != "7" || l.Message.Subject != "new" {
		t.Errorf("%+v", l)
	}
	if err := d.Replay(t.Context(), l, time.Time{}); err != nil {
		t.Fatal(err)
	}
	m := receiveOne()
	if m.MessageID != "own" || convert.Deref(m.Subject) != "new" || convert.Deref(m.ContentType) != kind || convert.Deref(m.CorrelationID) != correlation || convert.Deref(m.TimeToLive) != time.Hour ||
		m.RawAMQPMessage.Body.Value != "a text" || m.ApplicationProperties["n"] != int32(7) || convert.Failures(m) != 0 || m.ApplicationProperties["DeadLetterReason"] != nil {
		t.Errorf("%+v", m)
	}
	if err := r.CompleteMessage(t.Context(), m, nil); err != nil {
		t.Fatal(err)
	}
}

// A replayed message is complete, with the same types.
func TestAReplayHasAllOfItsMessage(t *testing.T) {
	b := start(t, emulator.QueueOptions{})
	tr := b.open(t, nil)
	s, err := b.client(t).NewSender("orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SendAMQPAnnotatedMessage(t.Context(), full(), nil); err != nil {
		t.Fatal(err)
	}
	settle(t, receive(t, tr, 1)[0], triggers.Reject)
	d := b.openDead(t, nil)
	all, err := d.Browse(t.Context(), 10)
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	if m := all[0].Message; m.ID != "77" || m.Properties()[triggers.ContentType] != "text/plain" || m.Properties()[triggers.ReplyTo] != "r" || m.Attributes["none"] != "null" {
		t.Errorf("%+v, %v", m, m.Properties())
	}
	if err := d.Replay(t.Context(), all[0], time.Time{}); err != nil {
		t.Fatal(err)
	}
	again := receive(t, tr, 1)[0]
	if again.Message.Attempt != 1 || again.Message.ID != "77" {
		t.Errorf("%+v", again.Message)
	}
	wantFull(t, tr.leaseOf(again).received.RawAMQPMessage)
	settle(t, again, triggers.Done)
}

// A replay of a dead letter far behind returns the earlier ones at its end.
func TestADeadLetterFarBehind(t *testing.T) {
	b := start(t, emulator.QueueOptions{LockDuration: 5 * time.Minute, MaxDeliveryCount: 1000})
	tr := b.open(t, nil)
	const n = 600
	var ms []triggers.Message
	for i := range n {
		ms = append(ms, triggers.Message{Body: fmt.Append(nil, i)})
	}
	b.send(t, ms...)
	for _, got := range receive(t, tr, n) {
		settle(t, got, triggers.Reject)
	}
	d := b.openDead(t, nil)
	var last triggers.DeadLetter
	for {
		page, err := d.Browse(t.Context(), 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		last = page[len(page)-1]
	}
	if err := d.Replay(t.Context(), last, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if counts, err := b.Counts("orders/$DeadLetterQueue"); err != nil || counts.Locked == 0 {
		t.Errorf("%+v, %v: how was it had?", counts, err)
	}
	if err := d.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if counts, err := b.Counts("orders/$DeadLetterQueue"); err != nil || counts.Locked != 0 || counts.Active != n-1 {
		t.Errorf("%+v, %v", counts, err)
	}
	done(t, receive(t, tr, 1)...)
}
