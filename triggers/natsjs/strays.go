package natsjs

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers/natsjs/client"
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

// strays collects messages that were delivered before. binding.mu guards it.
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

// keep keeps a message until all have arrived; binding.mu is locked.
func (s *strays) keep(l *leasedMessage) {
	s.kept = append(s.kept, l)
	if l.Sequence <= s.horizon {
		s.arrived++
		signal(s.came)
	}
}

// gather starts the wait for messages that were delivered before, if any are missing; i.mu is locked.
func (i *intake) gather(info *jetstream.ConsumerInfo) {
	missing := i.countMissing(info)
	if i.cfg.OrderingToken == 0 || i.strays == nil && missing == 0 || i.ending {
		return
	}
	s := i.strays
	if s == nil {
		s = &strays{came: make(chan struct{}, 1)}
		i.strays = s
		i.running.Go(func() { i.awaitStrays(i.ctx, s) })
	}
	ackWait := time.Duration(i.ackWait.Load())
	s.horizon, s.due, s.idle = info.Delivered.Stream, time.Now().Add(ackWait), 0
	i.log.Info("waiting for messages that were delivered before, to keep the order", "messages", missing, "ack_wait", ackWait)
}

// countMissing returns the number of messages that were in flight at the time of info and have not
// arrived; i.mu is locked. Messages delivered after that time do not count as arrived.
func (i *intake) countMissing(info *jetstream.ConsumerInfo) int {
	missing := info.NumAckPending
	for l := range i.settler.leases.all() {
		if l.delivery <= info.Delivered.Consumer {
			missing--
		}
	}
	return max(missing, 0)
}

// awaitStrays ends the wait when no message is missing, or when none can still arrive.
func (i *intake) awaitStrays(ctx context.Context, s *strays) {
	pace := time.NewTicker(strayPace)
	defer pace.Stop()
	for !i.haveStraysArrived(ctx, s) {
		select {
		case <-s.came:
		case <-pace.C:
		case <-ctx.Done():
		}
	}
}

// haveStraysArrived requests the number of missing messages once, and reports whether the wait is
// over.
func (i *intake) haveStraysArrived(ctx context.Context, s *strays) bool {
	i.mu.Lock()
	consumer := i.consumer
	i.mu.Unlock()
	var info *jetstream.ConsumerInfo
	if consumer != nil {
		asking, cancel := context.WithTimeout(ctx, client.RequestLimit)
		defer cancel()
		info, _ = consumer.Info(asking) // nil without a response: the next call requests it again
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.strays != s:
		return true // the life of these messages has ended
	case ctx.Err() != nil:
		i.prefetchStrays(s) // Close releases them
		return true
	case info == nil || !i.isVerified():
		return false
	}
	missing := i.countMissing(info)
	if i.looking == 0 && (missing == 0 || s.isOver(time.Now())) {
		if missing > 0 {
			i.log.Warn("messages that were delivered before did not come again: they are in flight elsewhere, or wait for a longer delay; their order is not kept", "messages", missing)
		}
		i.prefetchStrays(s)
		return true
	}
	if n := s.next(missing, time.Now()); n > 0 && i.requests.outstanding() == 0 && !i.ending && i.consumer != nil {
		s.asked, s.before = n, s.arrived
		i.requests.pull(i.cfg.Memory.Within(maxAsked, n, 0))
	}
	return false
}

// isOver counts a response of the server, and reports whether further waiting is useless.
func (s *strays) isOver(now time.Time) bool {
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

// prefetchStrays ends the wait and prefetches the messages in order; i.mu is locked.
func (i *intake) prefetchStrays(s *strays) {
	i.strays = nil
	slices.SortFunc(s.kept, func(a, b *leasedMessage) int { return cmp.Compare(a.Sequence, b.Sequence) })
	for _, l := range s.kept {
		i.addPrefetched(l)
	}
	signal(i.wakeReceive)
}
