package storagequeue

import (
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
)

// rested is a trigger that polls once an hour, and was opened long ago.
func (a *account) rested(t *testing.T, queue string, lease time.Duration) *trigger {
	t.Helper()
	tr := a.open(t, queue, func(c *Config) { c.MaxPollInterval, c.Lease = time.Hour, lease })
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.opened = tr.opened.Add(-time.Hour)
	for tr.pause.NextBackOff() < time.Minute { // until the pause is long
	}
	return tr
}

// A message that was released with a delay is requested after the delay, regardless of the length
// of the pause.
func TestADelayedMessageIsExpected(t *testing.T) {
	t.Parallel()
	a := emulated(t)
	queue := a.newQueue(t)
	a.send(t, queue, "again")
	tr := a.rested(t, queue, time.Minute)
	d := receive(t, tr, 1)[0]
	tr.mu.Lock()
	for tr.pause.NextBackOff() < time.Minute { // until the pause is long
	}
	tr.mu.Unlock()
	before := time.Now()
	settle(t, d, triggers.Verdict{Kind: triggers.Retry, Delay: 2 * time.Second})
	d = receive(t, tr, 1)[0]
	if took := time.Since(before); took < 1900*time.Millisecond || took > 50*time.Second { // and not at the end of the pause
		t.Errorf("it came after %v; its delay was 2 s", took)
	}
	done(t, d)
}

// A daemon was killed with a leased message: the next one receives it when the lease ends,
// regardless of the length of the pause.
func TestTheFirstLeaseIsWatched(t *testing.T) {
	t.Parallel()
	a := emulated(t)
	queue := a.newQueue(t)
	a.send(t, queue, "interrupted")
	long := func(c *Config) { c.MaxPollInterval, c.Lease = time.Hour, 7*time.Second }
	first := a.open(t, queue, long)
	receive(t, first, 1)
	first.crash()
	before := time.Now()
	d := receive(t, a.open(t, queue, long), 1)[0]
	if took := time.Since(before); took < 6*time.Second {
		t.Errorf("it came after %v; the lease is 7 s", took)
	}
	done(t, d)
}

// An idle trigger sends one request per pause.
func TestAQueueAtRest(t *testing.T) {
	t.Parallel()
	a := emulated(t)
	queue := a.newQueue(t)
	tr := a.rested(t, queue, time.Second)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = tr.Receive(t.Context(), 500) // until the test ends
	}()
	eventually(t, "it rests", func() bool {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		return tr.gets == 0 && time.Until(tr.nextGet) > time.Minute
	})
	if n := a.Requests(); n > 6 { // make, peek, and the first gets
		t.Errorf("%d requests", n)
	}
	if err := tr.Close(t.Context()); err != nil {
		t.Error(err)
	}
	<-ended
}
