package natsjs

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Where order counts, messages that were delivered before, and were not settled, come first.
// There are some after a stop, a crash or an outage; the server delivers them again in an order of
// its own, and later ones before those whose ack wait is not over. So nothing is handed out
// until they are back; then all goes by its sequence.

const (
	// strayPace is how often one more message is asked for while strays are missing.
	strayPace = 100 * time.Millisecond
	// strayMargin is how long after its ack wait a message may take to come.
	strayMargin = 2 * time.Second
	// maxKept bounds the later messages that come meanwhile.
	maxKept = 512
)

// strays gathers messages that were delivered before. It is guarded by trigger.mu.
type strays struct {
	kept []*loan
	came chan struct{}
}

// add keeps a message until all are there; t.mu is held.
func (s *strays) add(l *loan) {
	s.kept = append(s.kept, l)
	if l.deliveries > 1 {
		signal(s.came)
	}
}

// gather begins to wait for strays, if there are any; t.mu is held.
func (t *trigger) gather(info *jetstream.ConsumerInfo) {
	missing := info.NumAckPending - t.alive.n
	if t.cfg.OrderingToken == 0 || t.strays != nil || missing <= 0 || t.closed {
		return
	}
	s := &strays{came: make(chan struct{}, 1)}
	t.strays = s
	atMost := time.Duration(t.ackWait.Load()) + strayMargin
	t.log.Info("waiting for messages that were delivered before, to keep the order", "messages", missing, "at_most", atMost)
	t.running.Go(func() { t.await(t.ctx, s, time.Now().Add(atMost)) })
}

// await hands out what was kept when no stray is missing, or when none can come any more.
func (t *trigger) await(ctx context.Context, s *strays, deadline time.Time) {
	pace := time.NewTicker(strayPace)
	defer pace.Stop()
	for ctx.Err() == nil && time.Now().Before(deadline) {
		t.mu.Lock()
		consumer, current := t.consumer, t.strays == s
		t.mu.Unlock()
		if !current {
			return // they are of a life that has ended
		}
		if consumer != nil && t.missing(ctx, s, consumer) == 0 {
			break
		}
		select {
		case <-s.came:
		case <-pace.C:
		case <-ctx.Done():
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.strays != s {
		return
	}
	t.strays = nil
	slices.SortFunc(s.kept, func(a, b *loan) int { return cmp.Compare(a.Sequence, b.Sequence) })
	for _, l := range s.kept {
		t.hold(l)
	}
	signal(t.wake)
}

// missing counts the strays that are not here, and asks for one more message if there are
// any; -1 is unknown.
func (t *trigger) missing(ctx context.Context, s *strays, consumer jetstream.Consumer) int {
	asking, cancel := context.WithTimeout(ctx, flushLimit)
	defer cancel()
	info, err := consumer.Info(asking)
	if err != nil {
		return -1
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	missing := max(info.NumAckPending-t.alive.n, 0)
	if missing > 0 && t.strays == s && t.consumer != nil && t.outstanding() == 0 && len(s.kept) < maxKept && t.verified() {
		_ = t.pull(1) // the next Receive reports what fails
	}
	return missing
}
