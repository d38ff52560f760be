package natsjs

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// To keep the order, messages that were delivered before and not settled must come first. There
// are such messages after a stop, a crash or an outage. The server redelivers them in arbitrary
// order, and delivers later messages before those whose ack wait is not over. So nothing is
// delivered until all of them have arrived. Then all messages are sorted by sequence.

const (
	// strayPace is the interval between requests for the number of messages in flight.
	strayPace = 100 * time.Millisecond
	// idleLooks is the number of responses in a row, after the ack wait, without progress after which
	// the missing messages count as in flight at another instance. Responses are counted, not
	// seconds, because a suspended machine gets none.
	idleLooks = 20
	// maxKept bounds the later messages that arrive before the ack wait is over. After the ack wait
	// there are none: the server redelivers first.
	maxKept = 512
)

// strays collects messages that were delivered before. trigger.mu guards it.
type strays struct {
	horizon uint64    // the highest sequence delivered before
	due     time.Time // when the ack wait of all these messages is over
	kept    []*leasedMessage
	came    chan struct{} // signals that one has arrived

	arrived int // number that has arrived
	asked   int // messages requested by the last request
	before  int // value of arrived at that request
	idle    int // responses without progress since the ack wait
	seen    int // value of arrived at the last response
}

// add keeps a message until all have arrived; t.mu is locked.
func (s *strays) add(l *leasedMessage) {
	s.kept = append(s.kept, l)
	if l.Sequence <= s.horizon {
		s.arrived++
		signal(s.came)
	}
}

// gather starts the wait for messages that were delivered before, if any are missing; t.mu is locked.
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

// missing returns the number of messages that were in flight at the time of info and have not
// arrived; t.mu is locked. Messages delivered after that time do not count as arrived.
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

// gathered requests the number of missing messages once, and reports whether the wait is over.
func (t *trigger) gathered(ctx context.Context, s *strays) bool {
	t.mu.Lock()
	consumer := t.consumer
	t.mu.Unlock()
	var info *jetstream.ConsumerInfo
	if consumer != nil {
		asking, cancel := context.WithTimeout(ctx, flushLimit)
		defer cancel()
		info, _ = consumer.Info(asking) // nil without a response: the next call requests it again
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.strays != s:
		return true // the life of these messages has ended
	case ctx.Err() != nil:
		t.handOut(s) // Close releases them
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
		_ = t.pull(t.cfg.Memory.Within(maxAsked, n, 0)) // the next Receive reports an error
	}
	return false
}

// over counts a response of the server, and reports whether further waiting is useless.
func (s *strays) over(now time.Time) bool {
	if s.arrived > s.seen || now.Before(s.due) {
		s.seen, s.idle = s.arrived, 0
		return false
	}
	s.idle++
	return s.idle > idleLooks
}

// next returns the number of messages to request. If the last request yielded only strays, it is
// twice that number. Otherwise it is one, because the request may yield a later message.
func (s *strays) next(missing int, now time.Time) int {
	if missing == 0 || now.Before(s.due) && len(s.kept)-s.arrived >= maxKept {
		return 0
	}
	if s.asked > 0 && s.arrived-s.before >= s.asked {
		return min(2*s.asked, missing)
	}
	return 1
}

// handOut ends the wait and prefetches the messages in order; t.mu is locked.
func (t *trigger) handOut(s *strays) {
	t.strays = nil
	slices.SortFunc(s.kept, func(a, b *leasedMessage) int { return cmp.Compare(a.Sequence, b.Sequence) })
	for _, l := range s.kept {
		t.addPrefetched(l)
	}
	signal(t.wakeReceive)
}
