package triggertest

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
)

// Peekable is one empty queue at a real server, whose messages can be peeked.
type Peekable struct {
	*Source
	// OpenPeeker returns one more Peeker, which is closed at the end of the test, if the
	// test did not.
	OpenPeeker func(t testing.TB) triggers.Peeker
	// Most is the largest number of messages that the source shows; 0 is no limit.
	Most int
	// HidesLeased is set if the source does not show leased messages.
	HidesLeased bool
}

// RunPeek runs the suite for Peekers. open makes an empty queue for one test.
func RunPeek(t *testing.T, open func(t *testing.T) *Peekable) {
	tests := []struct {
		name string
		run  func(t *testing.T, p *Peekable)
	}{
		{"none", testPeekNone},
		{"as they are received", testPeekSame},
		{"many, in order", testPeekMany},
		{"to peek takes none", testPeekTakesNone},
		{"what is settled is gone", testPeekSettled},
		{"bodies", testPeekBodies},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// peek returns all messages that are shown, in pages.
func peek(t *testing.T, p triggers.Peeker, page int) (out []triggers.Message) {
	t.Helper()
	for {
		got, err := p.Peek(t.Context(), page)
		if err != nil {
			t.Fatalf("after %d: %v", len(out), err)
		}
		if len(got) > page {
			t.Fatalf("Peek(%d) returned %d", page, len(got))
		}
		if len(got) == 0 {
			if again, err := p.Peek(t.Context(), page); err != nil || len(again) > 0 {
				t.Errorf("after the end Peek returned %d messages, %v", len(again), err)
			}
			return out
		}
		out = append(out, got...)
	}
}

func testPeekNone(t *testing.T, p *Peekable) {
	p.Open(t)
	if got := peek(t, p.OpenPeeker(t), 5); len(got) > 0 {
		t.Errorf("of an empty queue it shows %v", got)
	}
}

func testPeekSame(t *testing.T, p *Peekable) {
	tr := p.Open(t)
	m := triggers.Message{Body: []byte("one"), Attributes: map[string]string{"Customer": "42"}}
	if p.NoAttributes {
		m.Attributes = nil
	}
	p.Send(t, m)
	seen := peek(t, p.OpenPeeker(t), 1)
	if len(seen) != 1 {
		t.Fatalf("it shows %d messages, want 1", len(seen))
	}
	d := receive(t, tr, 1)[0]
	got, want := seen[0], d.Message
	if got.ID != want.ID || !bytes.Equal(got.Body, want.Body) || fmt.Sprint(got.Attributes) != fmt.Sprint(want.Attributes) || got.Subject != want.Subject ||
		got.OrderingKey != want.OrderingKey || got.Enqueued.Sub(want.Enqueued).Abs() > time.Second {
		t.Errorf("peeked %+v\nreceived %+v", got, *want)
	}
	done(t, d)
}

func testPeekMany(t *testing.T, p *Peekable) {
	p.Open(t)
	n := 300
	if p.Most > 0 {
		n = p.Most + 1
	}
	var bodies []string
	for i := range n {
		bodies = append(bodies, fmt.Sprint("message ", i))
	}
	p.Send(t, text(bodies...)...)
	want := n
	if p.Most > 0 {
		want = p.Most
	}
	for _, page := range []int{7, 1000} {
		seen := peek(t, p.OpenPeeker(t), page)
		if len(seen) != want {
			t.Fatalf("in pages of %d it shows %d messages, want %d", page, len(seen), want)
		}
		for i, m := range seen {
			if string(m.Body) != bodies[i] {
				t.Fatalf("in pages of %d message %d is %q, want %q", page, i, m.Body, bodies[i])
			}
		}
	}
}

// testPeekTakesNone checks that peeking takes no message from current or later receivers.
func testPeekTakesNone(t *testing.T, p *Peekable) {
	tr := p.Open(t)
	p.Send(t, text("1", "2", "3")...)
	leased := receive(t, tr, 1)[0]
	want := 3
	if p.HidesLeased {
		want = 2
	}
	for range 2 {
		if seen := peek(t, p.OpenPeeker(t), 10); len(seen) != want && !p.HidesLeased || len(seen) > want {
			t.Errorf("with one leased it shows %d messages, want %d", len(seen), want)
		}
	}
	done(t, leased)
	for _, d := range receive(t, tr, 2) {
		wantAttempt(t, d, 1)
		done(t, d)
	}
	p.gone(t, tr)
}

func testPeekSettled(t *testing.T, p *Peekable) {
	tr := p.Open(t)
	p.Send(t, text("1", "2")...)
	ds := receive(t, tr, 2)
	done(t, ds[0])
	settle(t, ds[1], triggers.Verdict{Kind: triggers.Reject, Reason: "no good"})
	if err := tr.Close(t.Context()); err != nil { // then the source has it all
		t.Fatal(err)
	}
	if seen := peek(t, p.OpenPeeker(t), 10); len(seen) > 0 {
		t.Errorf("both are settled, and it shows %v", seen)
	}
}

func testPeekBodies(t *testing.T, p *Peekable) {
	p.Open(t)
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	want := [][]byte{{}, every, []byte("käse ☃")}
	for _, body := range want {
		p.Send(t, triggers.Message{Body: body})
	}
	seen := peek(t, p.OpenPeeker(t), 10)
	if len(seen) != len(want) {
		t.Fatalf("it shows %d messages, want %d", len(seen), len(want))
	}
	for i, m := range seen {
		if !bytes.Equal(m.Body, want[i]) {
			t.Errorf("body %d is %q, want %q", i, m.Body, want[i])
		}
	}
}
