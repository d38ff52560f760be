package natsjs

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Where order counts, messages that were delivered before and were not settled come first.
// There are some after a stop, a crash or an outage. The server redelivers them in an order of
// its own, and it delivers later messages before those whose ack wait is not over. So nothing is
// delivered until all of them have arrived. Then all messages are ordered by sequence.

const (
	// strayPace is how often the server is asked how many messages are in flight.
	strayPace = 100 * time.Millisecond
	// idleLooks is how many answers in a row, after the ack wait, may show no progress. Then the
	// missing messages are in flight at another instance. Answers are counted, not seconds: a
	// machine that stands still gets none.
	idleLooks = 20
	// maxKept bounds the later messages that arrive before the ack wait is over. After it
	// none is drawn: the server delivers again first.
	maxKept = 512
)

// strays gathers messages that were delivered before. It is guarded by trigger.mu.
type strays struct {
	horizon uint64    // what was delivered before has at most this sequence
	due     time.Time // when the ack wait of all of them is over
	kept    []*leasedMessage
	came    chan struct{} // one of them arrived

	arrived int // how many of them did
	asked   int // messages, in the last request
	before  int // arrived at that time
	idle    int // answers since the ack wait without progress
	seen    int // arrived at the last answer
}

// add keeps a message until all have arrived; t.mu is locked.
func (s *strays) add(l *leasedMessage) {
	s.kept = append(s.kept, l)
	if l.Sequence <= s.horizon {
		s.arrived++
		signal(s.came)
	}
}

// gather begins to wait for messages that were delivered before, if there are any; t.mu is locked.
func (t *trigger) gather(info *jetstream.ConsumerInfo) {
	missing := t.missing(info)
	if t.cfg.OrderingToken == 0 || t.strays == nil && missing == 0 || t.ending {
		return
	}
	s := t.strays
	if s == nil {
		s = &strays{came: make(chan struct{}, 1)}
		t.strays = s
		t.running.Go(func() { t.await(t.ctx, s) })
	}
	ackWait := time.Duration(t.ackWait.Load())
	s.horizon, s.due, s.idle = info.Delivered.Stream, time.Now().Add(ackWait), 0
	t.log.Info("waiting for messages that were delivered before, to keep the order", "messages", missing, "ack_wait", ackWait)
}

// missing counts the messages that were in flight at the time of info and have not arrived;
// t.mu is locked. A message that was delivered after that time does not stand in for one of them.
func (t *trigger) missing(info *jetstream.ConsumerInfo) int {
	missing := info.NumAckPending
	for l := t.leases.ring.next; l != &t.leases.ring; l = l.next {
		if l.delivery <= info.Delivered.Consumer {
			missing--
		}
	}
	return max(missing, 0)
}

// await ends the wait when no message is missing, or when none can arrive any more.
func (t *trigger) await(ctx context.Context, s *strays) {
	pace := time.NewTicker(strayPace)
	defer pace.Stop()
	for !t.gathered(ctx, s) {
		select {
		case <-s.came:
		case <-pace.C:
		case <-ctx.Done():
		}
	}
}

// gathered looks once how many messages are missing, and reports whether the wait is over.
func (t *trigger) gathered(ctx context.Context, s *strays) bool {
	t.mu.Lock()
	consumer := t.consumer
	t.mu.Unlock()
	var info *jetstream.ConsumerInfo
	if consumer != nil {
		asking, cancel := context.WithTimeout(ctx, flushLimit)
		defer cancel()
		info, _ = consumer.Info(asking) // nil where the server does not answer: the next look asks again
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.strays != s:
		return true // they are of a life that has ended
	case ctx.Err() != nil:
		t.handOut(s) // for Close, which gives all back
		return true
	case info == nil || !t.verified():
		return false
	}
	missing := t.missing(info)
	if t.looking == 0 && (missing == 0 || s.over(time.Now())) {
		if missing > 0 {
			t.log.Warn("messages that were delivered before did not come again: they are in flight elsewhere, or wait for a longer delay; their order is not kept", "messages", missing)
		}
		t.handOut(s)
		return true
	}
	if n := s.next(missing, time.Now()); n > 0 && t.outstanding() == 0 && !t.ending && t.consumer != nil {
		s.asked, s.before = n, s.arrived
		_ = t.pull(t.cfg.Memory.Within(maxAsked, n, 0)) // the next Receive reports what fails
	}
	return false
}

// over counts an answer of the server, and reports whether the wait is in vain.
func (s *strays) over(now time.Time) bool {
	if s.arrived > s.seen || now.Before(s.due) {
		s.seen, s.idle = s.arrived, 0
		return false
	}
	s.idle++
	return s.idle > idleLooks
}

// next is how many messages to ask for. Where a request brought none but strays the next is
// for twice as many; else it is for one, since it may bring a later message.
func (s *strays) next(missing int, now time.Time) int {
	if missing == 0 || now.Before(s.due) && len(s.kept)-s.arrived >= maxKept {
		return 0
	}
	if s.asked > 0 && s.arrived-s.before >= s.asked {
		return min(2*s.asked, missing)
	}
	return 1
}

// handOut ends the wait; t.mu is locked.
func (t *trigger) handOut(s *strays) {
	t.strays = nil
	slices.SortFunc(s.kept, func(a, b *leasedMessage) int { return cmp.Compare(a.Sequence, b.Sequence) })
	for _, l := range s.kept {
		t.addPrefetched(l)
	}
	signal(t.wakeReceive)
}
