package natsjs

import (
	"context"
	"fmt"
	"time"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/convert"
	"github.com/drover-run/drover/triggers/natsjs/deadletters"
	"github.com/drover-run/drover/triggers/natsjs/ledger"
)

// settler settles leased messages: it counts failures, and copies rejected messages to the
// dead-letter stream. binding.mu guards its fields.
type settler struct {
	*binding
	ledger    *ledger.Ledger
	graveyard *deadletters.Graveyard
	acks      *acks
	prefetch  *prefetch // follows the rate of settlements
	leases    leaseList // all unsettled leases
	last      repeat    // the last settlement
}

// adjustVerdict returns the verdict to carry out: at the last delivery that the server allows, a
// Retry or a Release becomes a Reject.
func (s *settler) adjustVerdict(l *leasedMessage, m *triggers.Message, v triggers.Verdict) triggers.Verdict {
	if v.Kind != triggers.Retry && v.Kind != triggers.Release {
		return v
	}
	s.mu.Lock()
	limit := s.maxDeliver
	s.mu.Unlock()
	if limit <= 0 || l.deliveries < uint64(limit) || s.hasEnded(l.life) {
		return v
	}
	failures := m.Attempt - 1
	if v.Kind == triggers.Retry {
		failures++
	}
	reason := spentReason(s.cfg.Consumer, limit, failures)
	s.log.Error("message dead-lettered", "message", m.ID, "deliveries", l.deliveries, "failures", failures, "reason", reason)
	return triggers.Verdict{Kind: triggers.Reject, Reason: reason, Function: s.cfg.Function}
}

func spentReason(consumer string, limit, failures int) string {
	return fmt.Sprintf("max_deliver (%d) of consumer %s is used up, with failed attempts: %d; the server counts every delivery, also those that a restart cut short: set max_deliver to -1", limit, consumer, failures)
}

func (s *settler) carryOut(ctx context.Context, l *leasedMessage, m *triggers.Message, v triggers.Verdict) error {
	if v.Kind != triggers.Reject && s.hasEnded(l.life) {
		s.log.Warn("message settled after its stream or consumer was recreated; nothing to settle at the server",
			"message", m.ID, "verdict", v.Kind, "attempt", m.Attempt)
		return nil
	}
	switch v.Kind {
	case triggers.Done:
		return nil // untrack acknowledges it
	case triggers.Retry:
		s.recordFailures(ctx, l, m.Attempt)
		return l.sendReply(nakAfter(v.Delay), true)
	case triggers.Release:
		s.recordFailures(ctx, l, m.Attempt-1)
		return l.sendReply(s.releaseReply(), true)
	case triggers.Reject:
		return s.reject(ctx, l, m, v)
	}
	return fmt.Errorf("no such verdict: %d", v.Kind)
}

// reject copies a message to the dead-letter stream, and then ends it: a crash between the two loses
// nothing.
func (s *settler) reject(ctx context.Context, l *leasedMessage, m *triggers.Message, v triggers.Verdict) error {
	if err := s.bury(ctx, l, m, v); err != nil {
		return err
	}
	return l.sendReply([]byte("+TERM "+convert.OneLine(v.Reason, 200)), true)
}

// bury copies a message to the dead-letter stream. The ID of the copy includes the life of stream
// and consumer, because a new life reuses sequences.
func (s *settler) bury(ctx context.Context, l *leasedMessage, m *triggers.Message, v triggers.Verdict) error {
	id := fmt.Sprintf("drover.%s.%s.%d.%d.%d", s.cfg.Stream, s.cfg.Consumer, l.Sequence, l.life.stream.UnixNano(), l.life.consumer.UnixNano())
	return s.graveyard.Bury(ctx, deadletters.Rejected{Message: m, Headers: l.msg.Header, Sequence: l.Sequence, ID: id, Verdict: v})
}

func nakAfter(delay time.Duration) []byte {
	if delay <= 0 {
		return []byte("-NAK")
	}
	return fmt.Appendf(nil, `-NAK {"delay": %d}`, delay.Nanoseconds())
}

// releaseReply returns the command that releases a message. If the server may stop together with
// its client, the command has a delay, because the server stores only delayed releases.
func (s *settler) releaseReply() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		return release
	}
	return nakAfter(0)
}

// recordFailures writes the number of failures to the ledger if it has changed.
func (s *settler) recordFailures(ctx context.Context, l *leasedMessage, failures int) {
	if failures != l.recorded {
		s.ledger.Write(ctx, l.counted(), failures)
		l.recorded = failures
	}
}

// untrack ends the renewal of a settled lease.
func (s *settler) untrack(l *leasedMessage, kind triggers.Kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.life != s.life {
		return
	}
	if l.recorded > 0 && (kind == triggers.Done || kind == triggers.Reject) {
		s.ledger.MarkSettled(l.counted())
	}
	s.leases.remove(l)
	switch kind {
	case triggers.Done, triggers.Reject:
		s.last = repeat{l.msg.Reply, inProgress}
	case triggers.Release:
		s.last = repeat{l.msg.Reply, release}
	default: // repeating a retry would restart its delay
	}
	s.prefetch.countSettled()
	if kind == triggers.Done {
		s.acks.queueAck(l.place(), l.msg.Reply)
	}
}

// isKnown reports whether a redelivered message is already leased here, or settled; s.mu is locked.
// After an outage the server redelivers messages whose acknowledgement or renewal was lost.
func (s *settler) isKnown(l *leasedMessage) bool {
	if s.acks.wasResent(l.place()) {
		if err := s.conn.Conn().Publish(l.msg.Reply, ack); err != nil {
			s.log.Warn("cannot acknowledge again", "message", l.message.ID, "error", err)
		}
		return true
	}
	return s.leases.has(l.place())
}

// renewDue renews the leases that were last renewed before a time.
func (s *settler) renewDue(before time.Time) {
	s.mu.Lock()
	due := s.leases.renewBefore(before, time.Now())
	for _, l := range due {
		s.record(l)
	}
	s.mu.Unlock()
	for _, l := range due {
		if err := l.sendReply(inProgress, false); err != nil {
			s.log.Debug("cannot renew a lease", "message", l.message.ID, "error", err)
		}
	}
}

// record records a lease, or its renewal, for the next daemon; s.mu is locked. A release names a
// message and a delivery, and the server does not check that the delivery is the latest. So it is
// sent only while the message cannot have been delivered to another receiver: until the ack wait is
// over, and a sixth less for the time that the message took to arrive. An embedded server has no
// other receiver.
func (s *settler) record(l *leasedMessage) {
	if s.leases.record == nil {
		return
	}
	wait := time.Duration(s.ackWait.Load())
	if !s.conn.IsEmbedded() {
		wait -= wait / 6
	}
	s.leases.record.Hold(&l.entry, "", l.msg.Reply, time.Now().Add(wait))
}

// releaseLeft releases the messages that this daemon held when it was killed. It is called before the
// first Receive.
func (s *settler) releaseLeft() {
	s.mu.Lock()
	from, left, sure := s.leases.record, s.leases.record.Left(), s.isVerified()
	s.mu.Unlock()
	if len(left) == 0 || !sure {
		return
	}
	for _, e := range left {
		if err := s.conn.Conn().Publish(e.Token(), nakAfter(0)); err != nil {
			s.log.Debug("cannot release a message of the last run; it is redelivered when its lease expires", "delivery", e.Token(), "error", err)
			continue
		}
		from.Drop(e)
	}
	s.log.Info("messages released that were in flight when the daemon was killed", "count", len(left))
}
