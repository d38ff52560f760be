package natsjs

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/client"
	"github.com/drover-run/drover/triggers/natsjs/deadletters"
	"github.com/drover-run/drover/triggers/triggertest"
)

// testDead are the dead letters of testConfig.
var testDead = deadletters.Config{Stream: "ORDERS", DeadLetters: "ORDERS-DEAD"}

func openDead(t testing.TB, c *client.Connection, change func(*deadletters.Config)) triggers.DeadLetters {
	t.Helper()
	cfg := testDead
	if change != nil {
		change(&cfg)
	}
	d, err := deadletters.Open(t.Context(), c.JetStream(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close(context.Background()) })
	return d
}

// half publishes the copy of a dead letter, like a replay that is then killed.
func half(t testing.TB, c *client.Connection, l triggers.DeadLetter) {
	t.Helper()
	if _, err := c.JetStream().PublishMsg(t.Context(), deadletters.CopyOf(l, testDead, false), jetstream.WithExpectStream(testDead.Stream)); err != nil {
		t.Fatal(err)
	}
}

func TestDeadLetters(t *testing.T) {
	t.Parallel()
	triggertest.RunDeadLetters(t, func(t *testing.T) *triggertest.Graveyard {
		source, observer, _ := newSource(t, triggertest.Options{})
		return &triggertest.Graveyard{
			Source:   source,
			OpenDead: func(t testing.TB) triggers.DeadLetters { return openDead(t, observer, nil) },
			Half:     func(t testing.TB, _ triggers.DeadLetters, l triggers.DeadLetter) { half(t, observer, l) },
		}
	})
}

// rejectOne dead-letters a message with a sender's ID.
func rejectOne(t *testing.T, c *client.Connection, tr triggers.Trigger, body string) {
	t.Helper()
	s := c.NewSender()
	attributes := map[string]string{"Nats-Msg-Id": "own-" + body, "Nats-Expected-Stream": "ORDERS", "customer": "42"}
	if err := errors.Join(s.Send(t.Context(), &triggers.Message{Subject: "orders.new", Attributes: attributes, Body: []byte(body)}), s.Flush(t.Context())); err != nil {
		t.Fatal(err)
	}
	settle(t, receive(t, tr, 1)[0], triggers.Verdict{Kind: triggers.Reject, Reason: "no", Function: "f"})
}

func browseAll(t *testing.T, d triggers.DeadLetters) []triggers.DeadLetter {
	t.Helper()
	all, err := d.Browse(t.Context(), 100)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// The stream still knows the original ID of the message: it would drop a copy with that ID as a
// duplicate, and the dead letter would be lost.
func TestAReplayIsNoDuplicateOfItsMessage(t *testing.T) {
	c := connect(t, startServer(t, t.TempDir()))
	tr := open(t, c, testConfig(t))
	rejectOne(t, c, tr, "1")
	for range 2 {
		d := openDead(t, c, nil)
		all := browseAll(t, d)
		if len(all) != 1 {
			t.Fatalf("%d dead letters", len(all))
		}
		if err := d.Replay(t.Context(), all[0], time.Time{}); err != nil {
			t.Fatal(err)
		}
		again := receive(t, tr, 1)[0]
		m := again.Message
		if m.ID != "own-1" || len(m.Attributes) != 2 || m.Attributes["Nats-Msg-Id"] != "own-1" || m.Attributes["customer"] != "42" || m.Attempt != 1 {
			t.Errorf("%+v", m)
		}
		settle(t, again, triggers.Verdict{Kind: triggers.Reject, Reason: "no", Function: "f"})
	}
}

// After the stream's duplicate window only its messages can show whether a copy was sent.
func TestAKilledReplayLongAgo(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		half  bool
		done  bool // the copy was handled in the meantime
		later int  // messages that were sent and handled in the meantime
		want  error
	}{
		"the copy waits":                         {half: true},
		"the copy was handled":                   {half: true, done: true, want: triggers.ErrDoubtful},
		"never sent, and nothing since":          {want: triggers.ErrDoubtful},
		"never sent, and other messages handled": {later: 2, want: triggers.ErrDoubtful},
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, startServer(t, t.TempDir()))
			cfg := testConfig(t)
			cfg.Create = true
			if _, err := c.JetStream().CreateStream(t.Context(), jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}, Retention: jetstream.WorkQueuePolicy, Duplicates: time.Second}); err != nil {
				t.Fatal(err)
			}
			tr := open(t, c, cfg)
			rejectOne(t, c, tr, "1")
			d := openDead(t, c, nil)
			letter := browseAll(t, d)[0]
			if test.half {
				half(t, c, letter)
			}
			if test.done {
				done(t, receive(t, tr, 1)...)
			}
			for range test.later {
				send(t, c, "orders.other", "x")
				done(t, receive(t, tr, 1)...)
			}
			if err := tr.Close(t.Context()); err != nil { // now all is settled at the server
				t.Fatal(err)
			}
			err := d.Replay(t.Context(), letter, time.Now().Add(-time.Minute))
			if !errors.Is(err, test.want) || test.want == nil && err != nil {
				t.Fatalf("%v; want %v", err, test.want)
			}
			left := 0
			if test.want != nil {
				left = 1
			}
			if all := browseAll(t, openDead(t, c, nil)); len(all) != left {
				t.Errorf("%d dead letters are left, want %d", len(all), left)
			}
			tr = open(t, c, cfg)
			if test.want == nil {
				done(t, receive(t, tr, 1)...)
			}
			allAcknowledged(t, c, cfg)
			nothing(t, tr, 100*time.Millisecond)
		})
	}
}

// A stream that keeps its messages always shows it, however long ago the copy was sent.
func TestAKilledReplayToAStreamThatKeepsMessages(t *testing.T) {
	t.Parallel()
	for name, sent := range map[string]bool{"sent": true, "not sent": false} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, startServer(t, t.TempDir()))
			cfg := testConfig(t)
			if _, err := c.JetStream().CreateStream(t.Context(), jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}, Duplicates: time.Second}); err != nil {
				t.Fatal(err)
			}
			tr := open(t, c, cfg)
			rejectOne(t, c, tr, "1")
			d := openDead(t, c, nil)
			letter := browseAll(t, d)[0]
			if sent {
				half(t, c, letter)
				done(t, receive(t, tr, 1)...)
			}
			if err := d.Replay(t.Context(), letter, time.Now().Add(-time.Minute)); err != nil {
				t.Fatal(err)
			}
			if !sent {
				done(t, receive(t, tr, 1)...)
			}
			allAcknowledged(t, c, cfg)
			nothing(t, tr, 100*time.Millisecond)
			if all := browseAll(t, openDead(t, c, nil)); len(all) != 0 {
				t.Errorf("%d dead letters are left", len(all))
			}
		})
	}
}

// If each of several consumers of a stream gets every message, a replay reaches them all.
func TestAReplayThatOthersWouldGet(t *testing.T) {
	c := connect(t, startServer(t, t.TempDir()))
	cfg := testConfig(t)
	if _, err := c.JetStream().CreateStream(t.Context(), jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}}); err != nil {
		t.Fatal(err)
	}
	tr := open(t, c, cfg)
	other := cfg
	other.Consumer = "audit"
	open(t, c, other)
	rejectOne(t, c, tr, "1")
	d := openDead(t, c, nil)
	letter := browseAll(t, d)[0]
	if err := d.Replay(t.Context(), letter, time.Time{}); !errors.Is(err, triggers.ErrShared) || !strings.Contains(err.Error(), "stream ORDERS has 2 consumers") {
		t.Errorf("%v", err)
	}
	allAcknowledged(t, c, cfg)
	nothing(t, tr, 100*time.Millisecond)
	if err := openDead(t, c, func(c *deadletters.Config) { c.Shared = true }).Replay(t.Context(), letter, time.Time{}); err != nil {
		t.Fatal(err)
	}
	done(t, receive(t, tr, 1)...)
}

// A dead-letter stream may belong to several streams, and may contain messages from others.
func TestDeadLettersOfOthers(t *testing.T) {
	c := connect(t, startServer(t, t.TempDir()))
	tr := open(t, c, testConfig(t))
	rejectOne(t, c, tr, "1")
	letter := browseAll(t, openDead(t, c, nil))[0]
	foreign := letter.Own.(*jetstream.RawStreamMsg)
	foreign.Header.Set("Drover-Stream", "OTHER")
	foreign.Header.Set("Nats-Msg-Id", "another")
	m := deadletters.CopyOf(letter, testDead, false)
	m.Subject, m.Header = "ORDERS-DEAD.orders.x", foreign.Header
	if _, err := c.JetStream().PublishMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if _, err := c.JetStream().Publish(t.Context(), "ORDERS-DEAD.orders.by.hand", []byte("hand")); err != nil {
		t.Fatal(err)
	}
	d := openDead(t, c, nil)
	all := browseAll(t, d)
	if len(all) != 2 || all[1].Message.Subject != "orders.by.hand" || all[1].Reason != "" || all[1].Died.IsZero() || all[1].Message.Attempt != 0 {
		t.Fatalf("%+v", all)
	}
	if err := d.Replay(t.Context(), all[1], time.Time{}); err != nil {
		t.Fatal(err)
	}
	if again := receive(t, tr, 1)[0]; string(again.Message.Body) != "hand" || again.Message.ID != "ORDERS-DEAD:3" {
		t.Errorf("%+v", again.Message)
	}
}

func TestAReplayWithoutAStream(t *testing.T) {
	c := connect(t, startServer(t, t.TempDir()))
	cfg := testConfig(t)
	tr := open(t, c, cfg)
	rejectOne(t, c, tr, "1")
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.JetStream().DeleteStream(t.Context(), "ORDERS"); err != nil {
		t.Fatal(err)
	}
	d := openDead(t, c, nil)
	letter := browseAll(t, d)[0]
	if err := d.Replay(t.Context(), letter, time.Time{}); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("%v", err)
	}
	if _, err := c.JetStream().CreateStream(t.Context(), jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"other.>"}}); err != nil {
		t.Fatal(err)
	}
	if err := d.Replay(t.Context(), letter, time.Time{}); !errors.Is(err, client.ErrNoStream) {
		t.Errorf("%v", err)
	}
	if all := browseAll(t, openDead(t, c, nil)); len(all) != 1 {
		t.Errorf("%d dead letters are left", len(all))
	}
}
