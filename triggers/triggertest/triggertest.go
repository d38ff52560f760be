// Package triggertest is the conformance suite of triggers. Each trigger passes it against
// its real server: a trigger's own test passes a Source to Run.
package triggertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
)

// Source is one empty queue at a real server, created for one test.
type Source struct {
	// Open returns one more trigger on the queue, as another instance would open it. The
	// source closes it at the end of the test, if the test did not.
	Open func(t testing.TB) triggers.Trigger
	// Send adds messages, in this order. It uses Body, Attributes and OrderingKey.
	Send func(t testing.TB, m ...triggers.Message)
	// Crash ends a trigger as kill -9 of its process would.
	Crash func(t testing.TB, trigger triggers.Trigger)
	// Dead returns the dead letters so far.
	Dead func(t testing.TB) []Dead
	// Lease is how long a lease lasts without a renewal. The suite waits for a few of
	// them, so it should be at most a second.
	Lease time.Duration
	// Settled waits until the source has no messages left, neither ready nor leased. If
	// it is nil, the suite waits until leases would have expired.
	Settled func(t testing.TB)
	// Reorders is set if the source redelivers released messages in its own order,
	// also those of one ordering key.
	Reorders bool

	// The limits of the source. NoAttributes: messages have only a body. MaxBody is the
	// largest body, in bytes; 0 is at least 1 MiB.
	NoAttributes bool
	MaxBody      int
}

// Dead is a dead letter.
type Dead struct {
	Body       []byte
	Attributes map[string]string // including those of the sender
	Reason     string
	Detail     string
	Attempts   int
	Function   string
}

// Options are the requirements of a test on its source.
type Options struct {
	// Ordered requires one message at a time for each ordering key.
	Ordered bool
	// NoPrefetch disables prefetching, if the source has such a setting.
	NoPrefetch bool
}

// patience bounds every wait for an expected event.
const patience = 3 * time.Minute

// Run runs the suite. open makes an empty queue for one test.
func Run(t *testing.T, open func(t *testing.T, o Options) *Source) {
	tests := []struct {
		name    string
		options Options
		run     func(t *testing.T, s *Source)
	}{
		{"delivery", Options{}, testDelivery},
		{"at most max", Options{}, testMax},
		{"redelivery after an expired lease", Options{}, testExpiredLease},
		{"retry after its delay", Options{}, testRetry},
		{"attempts survive a crash", Options{}, testAttemptsSurvive},
		{"release charges no attempt", Options{}, testRelease},
		{"release keeps earlier failures", Options{}, testReleaseAfterFailure},
		{"reject to the dead letters", Options{}, testReject},
		{"a long lease is renewed", Options{}, testKeepAlive},
		{"a lease is settled once", Options{}, testSettledOnce},
		{"stop while receiving", Options{}, testStopReceiving},
		{"close comes last", Options{}, testCloseLast},
		{"backlog", Options{}, testBacklog},
		{"ordering key", Options{Ordered: true}, testOrder},
		{"ordering key, many keys and batches", Options{Ordered: true}, testOrderOfMany},
		{"ordering key, many keys and batches, no prefetch", Options{Ordered: true, NoPrefetch: true}, testOrderOfMany},
		{"ordering key, a backlog after a pause", Options{Ordered: true}, testOrderAfterPause},
		{"ordering key, after a stop and a crash", Options{Ordered: true}, testOrderAfterStops},
		{"ordering key, retried", Options{Ordered: true}, testOrderRetried},
		{"ordering key, released", Options{Ordered: true}, testOrderReleased},
		{"bodies", Options{}, testBodies},
		{"header round trip", Options{}, testAttributes},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t, test.options)) })
	}
}

// expiryWait is the time after which a message with an expired lease is ready again.
func expiryWait(lease time.Duration) time.Duration { return lease + max(lease/4, 500*time.Millisecond) }

// gone checks that all messages are settled, so that none is delivered again.
func (s *Source) gone(t *testing.T, tr triggers.Trigger) {
	t.Helper()
	wait := expiryWait(s.Lease)
	if s.Settled != nil {
		s.Settled(t)
		wait = 100 * time.Millisecond
	}
	nothing(t, tr, wait)
}

func text(bodies ...string) []triggers.Message {
	var out []triggers.Message
	for _, b := range bodies {
		out = append(out, triggers.Message{Body: []byte(b)})
	}
	return out
}

// receive waits for n messages.
func receive(t *testing.T, tr triggers.Trigger, n int) []*triggers.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out []*triggers.Delivery
	for len(out) < n {
		got, err := tr.Receive(ctx, n-len(out))
		if err != nil {
			t.Fatalf("received %d of %d messages, then: %v", len(out), n, err)
		}
		if len(got) == 0 {
			t.Fatal("Receive returned neither a message nor an error")
		}
		out = append(out, got...)
	}
	return out
}

// nothing checks that no message arrives for a while.
func nothing(t *testing.T, tr triggers.Trigger, wait time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	got, err := tr.Receive(ctx, 10)
	for _, d := range got {
		t.Errorf("message %q (attempt %d) came within %v; nothing should", d.Message.Body, d.Message.Attempt, wait)
	}
	if len(got) == 0 && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Receive: %v; want the context's error", err)
	}
}

func settle(t *testing.T, d *triggers.Delivery, v triggers.Verdict) {
	t.Helper()
	if err := d.Settle(t.Context(), v); err != nil {
		t.Fatalf("settling %q as %v: %v", d.Message.Body, v.Kind, err)
	}
}

func done(t *testing.T, ds ...*triggers.Delivery) {
	t.Helper()
	for _, d := range ds {
		settle(t, d, triggers.Verdict{Kind: triggers.Done})
	}
}

func wantAttempt(t *testing.T, d *triggers.Delivery, attempt int) {
	t.Helper()
	if d.Message.Attempt != attempt {
		t.Errorf("message %q has attempt %d, want %d", d.Message.Body, d.Message.Attempt, attempt)
	}
}

func testDelivery(t *testing.T, s *Source) {
	tr := s.Open(t)
	before := time.Now().Add(-time.Minute)
	var bodies []string
	for i := range 100 {
		bodies = append(bodies, fmt.Sprint("message ", i))
	}
	s.Send(t, text(bodies...)...)
	seen, ids := map[string]bool{}, map[string]bool{}
	for _, d := range receive(t, tr, len(bodies)) {
		m := d.Message
		seen[string(m.Body)], ids[m.ID] = true, true
		wantAttempt(t, d, 1)
		if m.Enqueued.Before(before) || m.Enqueued.After(time.Now().Add(time.Minute)) {
			t.Errorf("message %q was enqueued at %v", m.Body, m.Enqueued)
		}
		done(t, d)
	}
	if len(seen) != len(bodies) || len(ids) != len(bodies) {
		t.Errorf("%d bodies and %d ids of %d messages", len(seen), len(ids), len(bodies))
	}
	s.gone(t, tr)
}

func testMax(t *testing.T, s *Source) {
	tr := s.Open(t)
	s.Send(t, text("1", "2", "3", "4", "5")...)
	for left := 5; left > 0; {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		got, err := tr.Receive(ctx, 2)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if len(got) < 1 || len(got) > 2 {
			t.Fatalf("Receive(2) returned %d messages", len(got))
		}
		done(t, got...)
		left -= len(got)
	}
}

func testExpiredLease(t *testing.T, s *Source) {
	first := s.Open(t)
	s.Send(t, text("lost")...)
	receive(t, first, 1)
	s.Crash(t, first)
	second := s.Open(t)
	d := receive(t, second, 1)[0]
	wantAttempt(t, d, 1)
	done(t, d)
	s.gone(t, second)
}

func testRetry(t *testing.T, s *Source) {
	tr := s.Open(t)
	s.Send(t, text("again")...)
	d := receive(t, tr, 1)[0]
	const delay = 600 * time.Millisecond
	start := time.Now()
	settle(t, d, triggers.Verdict{Kind: triggers.Retry, Delay: delay})
	d = receive(t, tr, 1)[0]
	// A source's clock may be coarser than this machine's.
	if waited := time.Since(start); waited < delay-50*time.Millisecond {
		t.Errorf("it came back after %v, want %v", waited, delay)
	}
	wantAttempt(t, d, 2)
	settle(t, d, triggers.Verdict{Kind: triggers.Retry})
	d = receive(t, tr, 1)[0]
	wantAttempt(t, d, 3)
	done(t, d)
	s.gone(t, tr)
}

func testAttemptsSurvive(t *testing.T, s *Source) {
	first := s.Open(t)
	s.Send(t, text("failing")...)
	settle(t, receive(t, first, 1)[0], triggers.Verdict{Kind: triggers.Retry})
	wantAttempt(t, receive(t, first, 1)[0], 2)
	s.Crash(t, first)
	d := receive(t, s.Open(t), 1)[0]
	wantAttempt(t, d, 2)
	done(t, d)
}

func testRelease(t *testing.T, s *Source) {
	first := s.Open(t)
	s.Send(t, text("released")...)
	for range 3 {
		d := receive(t, first, 1)[0]
		wantAttempt(t, d, 1)
		settle(t, d, triggers.Verdict{Kind: triggers.Release})
	}
	second := s.Open(t)
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	d := receive(t, second, 1)[0]
	wantAttempt(t, d, 1)
	done(t, d)
}

func testReleaseAfterFailure(t *testing.T, s *Source) {
	tr := s.Open(t)
	s.Send(t, text("failed once")...)
	settle(t, receive(t, tr, 1)[0], triggers.Verdict{Kind: triggers.Retry})
	for range 2 {
		d := receive(t, tr, 1)[0]
		wantAttempt(t, d, 2)
		settle(t, d, triggers.Verdict{Kind: triggers.Release})
	}
	d := receive(t, tr, 1)[0]
	wantAttempt(t, d, 2)
	done(t, d)
}

func testReject(t *testing.T, s *Source) {
	tr := s.Open(t)
	s.Send(t, triggers.Message{Body: []byte("bad\x00one"), Attributes: map[string]string{"Customer": "42"}})
	settle(t, receive(t, tr, 1)[0], triggers.Verdict{Kind: triggers.Retry})
	settle(t, receive(t, tr, 1)[0], triggers.Verdict{
		Kind: triggers.Reject, Reason: "no such customer", Detail: "line 1\nline 2", Function: "billing",
	})
	dead := s.Dead(t)
	if len(dead) != 1 {
		t.Fatalf("%d dead letters, want 1", len(dead))
	}
	d := dead[0]
	if string(d.Body) != "bad\x00one" || d.Attributes["Customer"] != "42" && !s.NoAttributes {
		t.Errorf("the dead letter has body %q and attributes %v", d.Body, d.Attributes)
	}
	if d.Reason != "no such customer" || d.Detail != "line 1\nline 2" || d.Attempts != 2 || d.Function != "billing" {
		t.Errorf("the dead letter says: reason %q, detail %q, attempts %d, function %q", d.Reason, d.Detail, d.Attempts, d.Function)
	}
	s.gone(t, tr)
}

func testKeepAlive(t *testing.T, s *Source) {
	tr := s.Open(t)
	s.Send(t, text("slow")...)
	d := receive(t, tr, 1)[0]
	nothing(t, tr, 2*s.Lease)
	nothing(t, s.Open(t), s.Lease/2)
	done(t, d)
	s.gone(t, tr)
}

func testSettledOnce(t *testing.T, s *Source) {
	tr := s.Open(t)
	s.Send(t, text("once")...)
	d := receive(t, tr, 1)[0]
	done(t, d)
	if err := d.Settle(t.Context(), triggers.Verdict{Kind: triggers.Retry}); !errors.Is(err, triggers.ErrSettled) {
		t.Errorf("the second Settle: %v, want ErrSettled", err)
	}
	s.gone(t, tr)
}

func testStopReceiving(t *testing.T, s *Source) {
	tr := s.Open(t)
	s.Send(t, text("in flight")...)
	d := receive(t, tr, 1)[0]
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := tr.Receive(ctx, 10)
		ended <- err
	}()
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Receive: %v, want context.Canceled", err)
		}
	case <-time.After(patience):
		t.Fatal("Receive has not returned, although its context ended")
	}
	done(t, d) // the lease outlived the receive call
	s.Send(t, text("later")...)
	done(t, receive(t, tr, 1)...)
}

func testCloseLast(t *testing.T, s *Source) {
	first := s.Open(t)
	s.Send(t, text("1", "2", "3")...)
	done(t, receive(t, first, 3)...)
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.gone(t, s.Open(t))
}

func testBacklog(t *testing.T, s *Source) {
	tr := s.Open(t)
	start := time.Now()
	s.Send(t, text("1", "2", "3", "4")...)
	d := receive(t, tr, 1)[0]
	// Messages sent or prefetched a moment ago may be missing in the source's count, so
	// this polls until the count is right.
	deadline := time.Now().Add(patience)
	for {
		b, err := tr.Backlog(t.Context())
		if errors.Is(err, triggers.ErrUnknown) {
			t.Skip("the source does not report its backlog")
		}
		if err != nil {
			t.Fatal(err)
		}
		if b.Ready == 3 {
			if !b.Oldest.IsZero() && (b.Oldest.Before(start.Add(-time.Minute)) || b.Oldest.After(time.Now().Add(time.Minute))) {
				t.Errorf("the oldest is of %v", b.Oldest)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("backlog %d, want 3: four sent, one leased", b.Ready)
		}
	}
	done(t, d)
	done(t, receive(t, tr, 3)...)
	for {
		b, err := tr.Backlog(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if b.Ready == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("backlog %d of an empty queue", b.Ready)
		}
	}
}

func testBodies(t *testing.T, s *Source) {
	tr := s.Open(t)
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	size := 1 << 20
	if s.MaxBody > 0 {
		size = s.MaxBody
	}
	large := bytes.Repeat(every, size/len(every))
	want := [][]byte{{}, every, large, []byte("\r\n\x00"), []byte("käse ☃")}
	for _, body := range want {
		s.Send(t, triggers.Message{Body: body})
		d := receive(t, tr, 1)[0]
		if !bytes.Equal(d.Message.Body, body) {
			t.Errorf("a body of %d bytes came back as %d bytes, or other ones", len(body), len(d.Message.Body))
		}
		done(t, d)
	}
}

func testAttributes(t *testing.T, s *Source) {
	if s.NoAttributes {
		t.Skip("the source has no attributes")
	}
	tr := s.Open(t)
	want := map[string]string{
		"traceparent":  "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"Content-Type": "application/json; charset=utf-8",
		"empty":        "",
		"x-unicode":    "grüße ☃",
	}
	s.Send(t, triggers.Message{Body: []byte("with"), Attributes: want})
	d := receive(t, tr, 1)[0]
	for name, value := range want {
		if got, ok := d.Message.Attributes[name]; !ok || got != value {
			t.Errorf("attribute %s came back as %q (there: %v), want %q", name, got, ok, value)
		}
	}
	done(t, d)
	s.Send(t, triggers.Message{Body: []byte("without")})
	d = receive(t, tr, 1)[0]
	if len(d.Message.Attributes) != 0 {
		t.Errorf("a message without attributes came with %v", d.Message.Attributes)
	}
	done(t, d)
}
