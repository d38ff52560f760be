package natsjs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers"
)

// A consumer with a finite max_deliver stops delivering a message after that many deliveries:
// neither a retry nor a restart brings it back. So an unsettled message is dead-lettered at its last
// delivery. If the daemon was killed during that delivery, the server's advisory reports the message.
// A scan of the stream finds it, too: a message of a work queue that is still in the stream, behind
// the acknowledgement floor, was given up.

const (
	// spentFirst is the time until the second scan of a stream, and spentEvery that between later
	// ones. A message counts as given up if two scans find it: its acknowledgement may be in transit.
	spentFirst = 2 * time.Second
	spentEvery = 30 * time.Second
	// maxSpent bounds the messages that one scan finds.
	maxSpent = 1000
)

// last returns the verdict to carry out: at the last delivery that the server allows, a
// Retry or a Release becomes a Reject.
func (l *leasedMessage) last(m *triggers.Message, v triggers.Verdict) triggers.Verdict {
	if v.Kind != triggers.Retry && v.Kind != triggers.Release {
		return v
	}
	l.t.mu.Lock()
	limit := l.t.maxDeliver
	l.t.mu.Unlock()
	if limit <= 0 || l.deliveries < uint64(limit) || l.stale() {
		return v
	}
	failures := m.Attempt - 1
	if v.Kind == triggers.Retry {
		failures++
	}
	reason := spentReason(l.t.cfg.Consumer, limit, failures)
	l.t.log.Error("message dead-lettered", "message", m.ID, "deliveries", l.deliveries, "failures", failures, "reason", reason)
	return triggers.Verdict{Kind: triggers.Reject, Reason: reason, Function: l.t.cfg.Function}
}

func spentReason(consumer string, limit, failures int) string {
	return fmt.Sprintf("max_deliver (%d) of consumer %s is used up, with failed attempts: %d; the server counts every delivery, also those that a restart cut short: set max_deliver to -1", limit, consumer, failures)
}

// watchSpent dead-letters messages that the server has given up. It returns when the trigger ends.
func (t *trigger) watchSpent(ctx context.Context) {
	given := make(chan uint64, maxSpent)
	subject := "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES." + t.cfg.Stream + "." + t.cfg.Consumer
	sub, err := t.conn.nc.Subscribe(subject, func(m *nats.Msg) {
		var advisory struct {
			Sequence uint64 `json:"stream_seq"`
		}
		if json.Unmarshal(m.Data, &advisory) == nil {
			select {
			case given <- advisory.Sequence:
			default: // a scan of the stream finds it
			}
		}
	})
	if err != nil {
		t.log.Warn("cannot subscribe to the server's advisories of messages that it has given up", "subject", subject, "error", err)
	} else {
		defer func() { _ = sub.Unsubscribe() }()
	}
	look := time.NewTimer(0)
	defer look.Stop()
	var before map[place]bool
	for {
		select {
		case <-ctx.Done():
			return
		case sequence := <-given:
			t.try(t.giveUp(ctx, sequence))
		case <-look.C:
			now, err := t.lookForSpent(ctx, before)
			t.try(err)
			look.Reset(spentEvery)
			if before == nil && len(now) > 0 {
				look.Reset(spentFirst)
			}
			before = now
		}
	}
}

func (t *trigger) try(err error) {
	if err != nil && t.ctx.Err() == nil {
		t.log.Warn("cannot dead-letter a message that the server has given up; will try again", "error", err)
	}
}

// lookForSpent returns the messages of a work queue that the server seems to have given up, and
// dead-letters those that are also in before, the result of the previous scan.
func (t *trigger) lookForSpent(ctx context.Context, before map[place]bool) (map[place]bool, error) {
	t.mu.Lock()
	consumer, limit, sure := t.consumer, t.maxDeliver, t.verified()
	t.mu.Unlock()
	if consumer == nil || limit <= 0 || !sure {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*flushLimit)
	defer cancel()
	stream, err := t.conn.js.Stream(ctx, t.cfg.Stream)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", t.cfg.Stream, err)
	}
	info, err := consumer.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("consumer %s of stream %s: %w", t.cfg.Consumer, t.cfg.Stream, err)
	}
	filter := info.Config.FilterSubject
	if filter == "" {
		filter = ">"
	}
	found, end := make(map[place]bool), spentUpTo(stream.CachedInfo().Config, info)
	for next := stream.CachedInfo().State.FirstSeq; next <= end && len(found) < maxSpent; {
		m, err := stream.GetMsg(ctx, next, jetstream.WithGetMsgSubject(filter))
		if errors.Is(err, jetstream.ErrMsgNotFound) || err == nil && m.Sequence > end {
			break
		}
		if err != nil {
			return found, fmt.Errorf("reading stream %s at %d: %w", t.cfg.Stream, next, err)
		}
		next = m.Sequence + 1
		if p := (place{m.Sequence, m.Time.UnixNano()}); takes(info.Config, m.Subject) {
			found[p] = true
			if before[p] {
				if err := t.giveUp(ctx, m.Sequence); err != nil {
					return found, err
				}
			}
		}
	}
	return found, nil
}

// spentUpTo returns the sequence up to which all messages of a work queue are settled or given up;
// 0 if that is unknown.
func spentUpTo(stream jetstream.StreamConfig, info *jetstream.ConsumerInfo) uint64 {
	switch {
	case stream.Retention != jetstream.WorkQueuePolicy || info.Config.MaxDeliver <= 0:
		return 0
	case info.NumAckPending == 0:
		return info.Delivered.Stream
	}
	return info.AckFloor.Stream
}

// giveUp dead-letters a message that the server no longer delivers.
func (t *trigger) giveUp(ctx context.Context, sequence uint64) error {
	ctx, cancel := context.WithTimeout(ctx, flushLimit)
	defer cancel()
	stream, err := t.conn.js.Stream(ctx, t.cfg.Stream)
	if err != nil {
		return fmt.Errorf("stream %s: %w", t.cfg.Stream, err)
	}
	m, err := stream.GetMsg(ctx, sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading stream %s at %d: %w", t.cfg.Stream, sequence, err)
	}
	t.mu.Lock()
	own, limit := t.life, t.maxDeliver
	at := place{sequence, m.Time.UnixNano()}
	_, acknowledged := t.acks.again[at]
	skip := own == nil || !t.verified() || own.stream != stream.CachedInfo().Created || t.leases.has(at) || acknowledged || t.given[at]
	t.mu.Unlock()
	if skip { // if the message is in flight here, its verdict follows
		return nil
	}
	reply := fmt.Sprintf("$JS.ACK.%s.%s.%d.%d.%d.%d.0", t.cfg.Stream, t.cfg.Consumer, limit, sequence, sequence, at.enqueued)
	l, err := newLeasedMessage(t, &nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data, Reply: reply})
	if err != nil {
		return err
	}
	l.life = own
	failures := max(t.ledger.failures(ctx, sequence, m.Time, own.consumer), 0)
	l.message.Attempt = failures
	reason := spentReason(t.cfg.Consumer, limit, failures)
	if err := l.bury(ctx, &l.message, triggers.Verdict{Kind: triggers.Reject, Reason: reason, Function: t.cfg.Function}); err != nil {
		return err
	}
	t.mu.Lock()
	if t.given == nil {
		t.given = make(map[place]bool)
	}
	t.given[at] = true
	t.mu.Unlock()
	t.log.Error("message dead-lettered", "message", l.message.ID, "failures", failures, "reason", reason)
	return l.end([]byte("+TERM " + oneLine(reason, 200)))
}

// Notes implements triggers.Noter.
func (t *trigger) Notes() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.maxDeliver <= 0 {
		return nil
	}
	return []string{spentNote(t.cfg.Consumer, t.maxDeliver)}
}

func spentNote(consumer string, limit int) string {
	return fmt.Sprintf("max_deliver of its consumer %s is %d: the server delivers a message that many times, including after restarts and stops, and then never again; a message that is not done by then is dead-lettered", consumer, limit)
}
