package dispatch

import (
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
)

// The age of a message is counted when it is done or rejected, not when it is retried or released.
func TestAge(t *testing.T) {
	var s Stats
	now := time.Now()
	old := &triggers.Message{Enqueued: now.Add(-time.Minute)}
	for _, kind := range []triggers.Kind{triggers.Done, triggers.Retry, triggers.Reject, triggers.Release} {
		s.countSettled(old, kind, nil, time.Second, now)
	}
	s.countSettled(&triggers.Message{}, triggers.Done, nil, time.Second, now)                               // its source reports no time
	s.countSettled(&triggers.Message{Enqueued: now.Add(time.Second)}, triggers.Done, nil, time.Second, now) // the clocks differ
	got := s.ReadCounts()
	if n := got.Age.Count(); n != 3 {
		t.Errorf("%d ages, want 3", n)
	}
	if age := got.Age.Quantile(0.5); age < 58*time.Second || age > 62*time.Second {
		t.Errorf("the median is %v, want about a minute", age)
	}
	if low := got.Age.Quantile(0); low > time.Microsecond {
		t.Errorf("the age of a message from the future is %v", low)
	}
	if n := got.Latency.Count(); n != 5 {
		t.Errorf("%d latencies, want 5: all but the release", n)
	}
}

// BenchmarkSettled measures the cost of counting a message, without reading the clock.
func BenchmarkSettled(b *testing.B) {
	var s Stats
	now := time.Now()
	m := &triggers.Message{Enqueued: now.Add(-time.Second)}
	b.ReportAllocs()
	for b.Loop() {
		s.received.Add(1)
		s.countSettled(m, triggers.Done, nil, time.Millisecond, now)
	}
}

func TestReceiveHealth(t *testing.T) {
	var r receiveHealth
	at := func(seconds int) time.Time { return processStart.Add(time.Duration(seconds) * time.Second) }
	check := func(now, want int) {
		t.Helper()
		since := time.Time{}
		if want > 0 {
			since = at(want)
		}
		if got := r.failingSince(at(now)); !got.Equal(since) {
			t.Errorf("at %d s it fails since %v, want %v", now, got, since)
		}
	}
	check(1, 0)
	r.recordFailure(at(10))
	check(11, 10)
	r.recordTry(at(20))
	check(79, 10) // it waits, and may still fail
	check(80, 0)  // it has waited long enough: the source is reachable and empty
	r.recordFailure(at(85))
	check(86, 10) // another failure: the source was not reachable in between
	r.recordTry(at(90))
	r.recordSuccess()
	check(91, 0)
	if n := r.errors.Load(); n != 2 {
		t.Errorf("%d errors, want 2", n)
	}
}
