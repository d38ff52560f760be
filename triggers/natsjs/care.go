package natsjs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// flushLimit bounds a round trip to the server.
	flushLimit = 10 * time.Second
	// rateOver is how many settlements the rate is measured over.
	rateOver = 256
	// ahead is the work that PrefetchAuto holds: what is settled in this time.
	ahead = 100 * time.Millisecond
	// maxPrefetch bounds what PrefetchAuto holds.
	maxPrefetch = 4096
)

// care is a goroutine beside Receive: it keeps loans alive, sends
// acknowledgements again after an outage, and sets the prefetch.
func (t *trigger) care(ctx context.Context) {
	signs := time.NewTicker(max(t.cfg.AckWait/6, 10*time.Millisecond))
	defer signs.Stop()
	barriers := time.NewTicker(barrierEvery)
	defer barriers.Stop()
	var before int64
	t.clock.Store(time.Now().UnixNano())
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-signs.C:
			t.clock.Store(now.UnixNano())
			t.giveSigns(now.Add(-t.cfg.AckWait / 3))
		case <-barriers.C:
			before = t.slowDown(before)
			t.barrier(ctx)
			t.ledger.clean(ctx, t.log)
		case <-t.nudge:
			t.sendAgain()
			t.giveSigns(time.Now())
		case <-t.lost:
			t.lookAround(ctx)
		}
	}
}

// giveSigns tells the server that the messages are worked on whose last sign is
// from before a time.
func (t *trigger) giveSigns(before time.Time) {
	t.mu.Lock()
	due := t.alive.signed(before, time.Now())
	t.mu.Unlock()
	for _, l := range due {
		if err := l.msg.InProgress(); err != nil && !errors.Is(err, jetstream.ErrMsgAlreadyAckd) {
			t.log.Debug("cannot keep a message alive", "message", l.message.ID, "error", err)
		}
	}
}

// speedUp raises the prefetch as soon as messages are settled faster; t.mu is
// held. What is held longer than ahead would better be another instance's.
func (t *trigger) speedUp() {
	if t.settled%rateOver != 0 || t.cfg.Prefetch != PrefetchAuto || t.closed {
		return
	}
	now := time.Now()
	took := now.Sub(t.marked)
	t.marked = now
	t.prefetch = max(t.prefetch, int(min(rateOver*ahead/max(took, 1), maxPrefetch)))
}

// slowDown lowers the prefetch to the rate of the last second.
func (t *trigger) slowDown(before int64) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cfg.Prefetch == PrefetchAuto {
		t.prefetch = min(t.prefetch, int((t.settled-before)*int64(ahead)/int64(barrierEvery)))
	}
	return t.settled
}

// lookAround finds out whether the consumer is still there, when it is silent.
func (t *trigger) lookAround(ctx context.Context) {
	t.mu.Lock()
	consumer := t.consumer
	t.mu.Unlock()
	if consumer == nil || !t.conn.nc.IsConnected() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, flushLimit)
	defer cancel()
	_, err := consumer.Info(ctx)
	if !errors.Is(err, jetstream.ErrConsumerNotFound) && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return
	}
	err = fmt.Errorf("consumer %s of stream %s: %w", t.cfg.Consumer, t.cfg.Stream, err)
	t.mu.Lock()
	var all []*pull
	for p := range t.pulls {
		all = append(all, p)
	}
	t.mu.Unlock()
	for _, p := range all {
		p.fail(err)
		p.end()
	}
}

// alive is the list of loans that are not settled, the one whose last sign of
// life is the longest ago first.
type alive struct{ ring loan }

func (a *alive) init() { a.ring.prev, a.ring.next = &a.ring, &a.ring }

func (a *alive) add(l *loan, now time.Time) {
	l.sign = now
	l.prev, l.next = a.ring.prev, &a.ring
	l.prev.next, a.ring.prev = l, l
}

func (a *alive) remove(l *loan) {
	if l.next == nil {
		return
	}
	l.prev.next, l.next.prev = l.next, l.prev
	l.prev, l.next = nil, nil
}

func (a *alive) has(sequence uint64) bool {
	for l := a.ring.next; l != &a.ring; l = l.next {
		if l.sequence == sequence {
			return true
		}
	}
	return false
}

// signed returns the loans whose last sign is from before a time, and signs them.
func (a *alive) signed(before, now time.Time) (due []*loan) {
	for l := a.ring.next; l != &a.ring && l.sign.Before(before); l = l.next {
		due = append(due, l)
	}
	for _, l := range due {
		a.remove(l)
		a.add(l, now)
	}
	return due
}

// quote is a text of at most n bytes as a JSON string.
func quote(text string, n int) string {
	if len(text) > n {
		text = "..." + text[len(text)-n:] // the end of a traceback tells most
	}
	out, err := json.Marshal(text)
	if err != nil {
		return `""` // a string always has a JSON form
	}
	return string(out)
}
