package natsjs

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A stream that is deleted and recreated numbers its messages from 1 again, and so does a
// consumer. The server settles by number: the acknowledgement of an old message would settle a
// new one with the same number. So all state here belongs to one life of stream and consumer,
// and is dropped at its end. Settlements are sent only while the life is verified on the
// current connection. During an outage they are kept until it is verified again.

// life is when a stream and its consumer were created.
type life struct {
	stream, consumer time.Time
}

// verifyEvery is how often the life is verified while messages are in flight.
const verifyEvery = time.Second

// idle is the interval for verifying the life while nothing is in flight, and the time that the
// server keeps a request for messages. The embedded server is in this process: it loses no request,
// and reports a deleted consumer. With a thousand functions, a check every 30 seconds uses 3 % of a
// core.
func (c *Connection) idle() time.Duration {
	if c.embedded {
		return 3 * time.Minute
	}
	return 30 * time.Second
}

// unverified is the value of trigger.checked if the life must be verified on any connection.
const unverified = math.MaxUint64

// place identifies a message within a life. The time detects a store that lost its last
// messages in a crash and reuses their numbers.
type place struct {
	sequence uint64
	enqueued int64 // ns
}

// repeat is a settlement that may be sent again: its subject and its data.
type repeat struct {
	reply string
	said  []byte
}

// attach finds or creates the consumer. If it differs from the previous one, a new life begins.
func (t *trigger) attach(ctx context.Context) error {
	reconnects, highest := t.conn.nc.Stats().Reconnects, t.seen()
	stream, consumer, err := findConsumer(ctx, t.conn.js, t.cfg, t.log)
	if err != nil {
		return err
	}
	t.live(stream, consumer, reconnects, highest)
	return nil
}

// seen returns the highest sequence received so far.
func (t *trigger) seen() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.highest
}

// live adopts a consumer. The lookup was made at the given number of reconnects, when highest was
// the highest sequence received. Its response does not cover messages received later.
func (t *trigger) live(stream jetstream.Stream, consumer jetstream.Consumer, reconnects, highest uint64) {
	info, state := consumer.CachedInfo(), stream.CachedInfo()
	born := life{state.Created, info.Created}
	t.acks.sending.Lock() // no more acknowledgements of the old life are sent
	t.mu.Lock()
	var lost []*leasedMessage
	if t.life == nil || *t.life != born || state.State.LastSeq < highest {
		lost = t.drop()
		t.life, t.highest = &born, 0
	}
	anew := t.checked != reconnects || t.consumer == nil
	if anew || len(t.unsure) > 0 {
		t.delivered = 0
	}
	t.consumer, t.failed, t.checked, t.checkedAt = consumer, nil, reconnects, time.Now()
	t.follow(info.Config)
	if anew {
		t.gather(info)
	}
	unsure, later := t.unsure, t.later
	t.unsure, t.later = nil, nil
	for _, l := range unsure {
		t.admit(l)
	}
	signal(t.wakeReceive)
	t.mu.Unlock()
	t.acks.sending.Unlock()
	for _, l := range lost {
		l.Revoke()
	}
	for _, r := range later {
		if err := t.conn.nc.Publish(r.reply, r.said); err != nil {
			t.log.Warn("cannot settle a message after an outage; it will be delivered again", "error", err)
		}
	}
}

// drop deletes the state of a life that has ended, and returns its leases; t.mu is locked.
func (t *trigger) drop() (lost []*leasedMessage) {
	for l := t.leases.ring.next; l != &t.leases.ring; l = l.next {
		lost = append(lost, l)
	}
	for _, l := range lost {
		t.leases.remove(l)
	}
	acks := t.acks.dropAll()
	if t.life != nil {
		t.log.Warn("the stream or its consumer was recreated; state of the earlier one dropped",
			"in_flight", len(lost), "acknowledgements", acks, "settlements", len(t.later))
	}
	t.prefetched = queue{}
	t.weigh()
	t.later, t.last = nil, repeat{}
	t.life, t.strays, t.delivered, t.given = nil, nil, 0, nil
	return lost
}

// verified reports whether the life was verified on the current connection; t.mu is locked.
func (t *trigger) verified() bool {
	return t.life != nil && t.conn.nc.IsConnected() && t.conn.nc.Stats().Reconnects == t.checked
}

// verify checks that stream and consumer were not recreated, and adopts changes of their
// settings. Only the keeper calls it.
func (t *trigger) verify(ctx context.Context) {
	if !t.conn.nc.IsConnected() {
		return
	}
	reconnects := t.conn.nc.Stats().Reconnects
	t.mu.Lock()
	highest := t.highest
	missing, anew := t.life == nil || t.consumer == nil, t.checked != reconnects
	t.mu.Unlock()
	if missing && !anew {
		return // the next Receive looks it up
	}
	ctx, cancel := context.WithTimeout(ctx, flushLimit)
	defer cancel()
	stream, err := t.conn.js.Stream(ctx, t.cfg.Stream)
	var consumer jetstream.Consumer
	if err == nil {
		consumer, err = stream.Consumer(ctx, t.cfg.Consumer)
	}
	switch {
	case gone(err):
		t.die(fmt.Errorf("consumer %s of stream %s: %w", t.cfg.Consumer, t.cfg.Stream, err))
		return
	case err != nil:
		t.log.Debug("cannot verify the consumer; will try again", "error", err)
		return
	}
	if anew {
		// Requests from before the outage may be lost: new ones replace them.
		t.requestAgain()
	}
	t.live(stream, consumer, reconnects, highest)
	if anew {
		t.acks.resend()
		t.renewDue(time.Now())
	}
}

func gone(err error) bool {
	return errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound)
}

// die ends the life: stream or consumer was deleted.
func (t *trigger) die(err error) {
	t.acks.sending.Lock()
	t.mu.Lock()
	lost := t.drop()
	t.fail(err)
	t.mu.Unlock()
	t.acks.sending.Unlock()
	for _, l := range lost {
		l.Revoke()
	}
}

// due reports whether the life must be verified now.
func (t *trigger) due() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.life == nil {
		return false
	}
	every := t.conn.idle()
	if t.leases.n > 0 || len(t.unsure) > 0 || !t.verified() {
		every = verifyEvery
	}
	return time.Since(t.checkedAt) >= every-verifyEvery/10
}

// send sends a settlement or a renewal. During an outage it is kept until the life is
// verified. If the life has ended, send does nothing.
func (t *trigger) send(l *leasedMessage, said []byte) error {
	t.mu.Lock()
	ended, sure := l.life != t.life, t.verified()
	if !ended && !sure {
		t.later = append(t.later, repeat{l.msg.Reply, said})
	}
	t.mu.Unlock()
	if ended || !sure {
		return nil
	}
	return t.conn.nc.Publish(l.msg.Reply, said)
}

// stale reports whether a lease is of a life that has ended.
func (l *leasedMessage) stale() bool {
	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	return l.life != l.t.life
}

// follow adopts the consumer's settings that may change during its use; t.mu is locked.
func (t *trigger) follow(c jetstream.ConsumerConfig) {
	wait := c.AckWait
	for _, w := range c.BackOff {
		wait = min(wait, w)
	}
	before := t.ackWait.Swap(int64(wait))
	edited := before != 0 && (time.Duration(before) != wait || t.maxDeliver != c.MaxDeliver)
	t.maxDeliver = c.MaxDeliver
	if c.MaxDeliver > 0 {
		t.watching.Do(func() { t.running.Go(func() { t.watchSpent(t.ctx) }) })
	}
	if !edited {
		return
	}
	attrs := []any{"ack_wait", wait, "max_deliver", c.MaxDeliver}
	if wrong := unfit(c, t.cfg); len(wrong) > 0 {
		t.log.Warn("the consumer was edited and is followed, but the next start will refuse it", append(attrs, "why", wrong)...)
		return
	}
	t.log.Info("the consumer was edited; its new settings are followed", attrs...)
}
