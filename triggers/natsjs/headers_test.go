package natsjs

import (
	"slices"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/consumers"
	"github.com/drover-run/drover/triggers/natsjs/deadletters"
)

// All values of a repeated header are kept when a message is received, peeked, dead-lettered, and
// replayed.
func TestRepeatedHeaders(t *testing.T) {
	c := connect(t, startServer(t, t.TempDir()))
	cfg := testConfig(t)
	tr := open(t, c, cfg)
	s := c.NewSender()
	values := []string{"one", "", "two", "one"}
	sent := triggers.Message{Subject: "orders.x", Attributes: map[string]string{"Tag": "one", "Once": "1"}, Repeated: map[string][]string{"Tag": values}}
	if err := s.Send(t.Context(), &sent); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := func(where string, m *triggers.Message) {
		t.Helper()
		if !slices.Equal(m.Values("Tag"), values) || m.Attributes["Tag"] != "one" || !slices.Equal(m.Values("Once"), []string{"1"}) || m.Repeated["Once"] != nil {
			t.Errorf("%s: attributes %v, repeated %v", where, m.Attributes, m.Repeated)
		}
	}
	p, err := consumers.OpenPeeker(t.Context(), c.JetStream(), consumers.Config{Stream: cfg.Stream, Consumer: cfg.Consumer})
	if err != nil {
		t.Fatal(err)
	}
	peeked, err := p.Peek(t.Context(), 1)
	if err != nil || len(peeked) != 1 {
		t.Fatalf("peeked %d messages: %v", len(peeked), err)
	}
	want("peeked", &peeked[0])
	d := receive(t, tr, 1)[0]
	want("received", d.Message)
	settle(t, d, triggers.Verdict{Kind: triggers.Reject, Reason: "bad"})
	dead, err := deadletters.Open(t.Context(), c.JetStream(), deadletters.Config{Stream: cfg.Stream, DeadLetters: cfg.DeadLetters})
	if err != nil {
		t.Fatal(err)
	}
	letters, err := dead.Browse(t.Context(), 1)
	if err != nil || len(letters) != 1 {
		t.Fatalf("%d dead letters: %v", len(letters), err)
	}
	want("dead letter", &letters[0].Message)
	if err := dead.Replay(t.Context(), letters[0], time.Time{}); err != nil {
		t.Fatal(err)
	}
	d = receive(t, tr, 1)[0]
	want("replayed", d.Message)
	done(t, d)
}
