package natsjs

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A stream that is deleted and recreated counts its messages from 1 again, and so does a
// consumer. The server settles by number: an acknowledgement of an old message would end the
// new one that has its number. So all state here belongs to one life of stream and consumer,
// and is dropped when that ends. Settlements are sent only while the life is verified on this
// very connection; what comes up during an outage waits until it is verified again.

// life is when a stream and its consumer were created.
type life struct {
	stream, consumer time.Time
}

// verifyEvery is how often the life is verified while messages are in flight.
const verifyEvery = time.Second

// idle is how often the life is verified while nothing is in flight, and how long the server
// remembers a request for messages. The embedded server is in this process: it loses no request, and
// reports a consumer that is deleted. A thousand functions that ask it every 30 seconds take 3 % of a core.
func (c *Connection) idle() time.Duration {
	if c.embedded {
		return 3 * time.Minute
	}
	return 30 * time.Second
}

// unverified is in trigger.checked when the life has to be verified, whatever the connection.
const unverified = math.MaxUint64

// place identifies a message within a life. The time guards against a store that lost its
// last messages in a crash, and gives their numbers to others.
type place struct {
	sequence uint64
	enqueued int64 // ns
}

// repeat is a settlement that may be sent once more: where to, and what.
type repeat struct {
	reply string
	said  []byte
}

// attach finds the consumer, or creates it. A new life begins where it is not the one
// that was known.
func (t *trigger) attach(ctx context.Context) error {
	reconnects, highest := t.conn.nc.Stats().Reconnects, t.seen()
	stream, consumer, err := findConsumer(ctx, t.conn.js, t.cfg, t.log)
	if err != nil {
		return err
	}
	t.live(stream, consumer, reconnects, highest)
	return nil
}

// seen is the highest sequence that came so far.
func (t *trigger) seen() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.highest
}

// live takes over a consumer that was looked up while the connection had been made again
// so many times, and when highest had come: more may have come since, of which the
// answer knows nothing.
func (t *trigger) live(stream jetstream.Stream, consumer jetstream.Consumer, reconnects, highest uint64) {
	info, state := consumer.CachedInfo(), stream.CachedInfo()
	born := life{state.Created, info.Created}
	t.sending.Lock() // none of the old acknowledgements is sent from here on
	t.mu.Lock()
	var lost []*loan
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
	signal(t.wake)
	t.mu.Unlock()
	t.sending.Unlock()
	for _, l := range lost {
		l.Revoke()
	}
	for _, r := range later {
		if err := t.conn.nc.Publish(r.reply, r.said); err != nil {
			t.log.Warn("cannot settle a message after an outage; it will be delivered again", "error", err)
		}
	}
}

// drop forgets all that belongs to the life that has ended, and returns the loans of it; t.mu
// is held.
func (t *trigger) drop() (lost []*loan) {
	for l := t.alive.ring.next; l != &t.alive.ring; l = l.next {
		lost = append(lost, l)
	}
	for _, l := range lost {
		t.alive.remove(l)
	}
	acks := len(t.acked[0]) + len(t.acked[1])
	if t.life != nil {
		t.log.Warn("the stream or its consumer was recreated; state of the earlier one dropped",
			"in_flight", len(lost), "acknowledgements", acks, "settlements", len(t.later))
	}
	t.held = queue{}
	t.weigh()
	t.acked, t.sent, t.again, t.later, t.last = [2][]acked{}, 0, nil, nil, repeat{}
	t.life, t.strays, t.delivered, t.given = nil, nil, 0, nil
	return lost
}

// verified reports whether the life is known to be the one at the other end of the
// connection; t.mu is held.
func (t *trigger) verified() bool {
	return t.life != nil && t.conn.nc.IsConnected() && t.conn.nc.Stats().Reconnects == t.checked
}

// verify finds out whether stream and consumer are still those that were known, and
// follows changes of their settings. It is called by care alone.
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
		// Requests from before the outage may live or not: others take their place.
		t.askAgain()
	}
	t.live(stream, consumer, reconnects, highest)
	if anew {
		t.sendAgain()
		t.giveSigns(time.Now())
	}
}

func gone(err error) bool {
	return errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound)
}

// die ends the life: stream or consumer is gone.
func (t *trigger) die(err error) {
	t.sending.Lock()
	t.mu.Lock()
	lost := t.drop()
	t.fail(err)
	t.mu.Unlock()
	t.sending.Unlock()
	for _, l := range lost {
		l.Revoke()
	}
}

// due reports whether it is time to verify the life.
func (t *trigger) due() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.life == nil {
		return false
	}
	every := t.conn.idle()
	if t.alive.n > 0 || len(t.unsure) > 0 || !t.verified() {
		every = verifyEvery
	}
	return time.Since(t.checkedAt) >= every-verifyEvery/10
}

// send tells the server how a message ended, or that it is worked on. During an outage it is
// kept until the life is verified; of a life that has ended nothing is sent.
func (t *trigger) send(l *loan, said []byte) error {
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

// stale reports whether a loan is of a life that has ended.
func (l *loan) stale() bool {
	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	return l.life != l.t.life
}

// follow takes over what of a consumer's settings may change while it is used; t.mu is
// held.
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
