package natsjs

import (
	"context"
	"encoding/json"
	"time"
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

// care is a goroutine beside Receive: it keeps loans alive, verifies the life of stream
// and consumer, sends acknowledgements again after an outage, and sets the prefetch.
func (t *trigger) care(ctx context.Context) {
	ackWait := t.ackWait.Load()
	pace := func() time.Duration { return max(time.Duration(ackWait)/6, 10*time.Millisecond) }
	signs := time.NewTicker(pace())
	defer signs.Stop()
	silence := time.NewTicker(t.listenFor())
	defer silence.Stop()
	barriers := time.NewTicker(barrierEvery)
	defer barriers.Stop()
	var before int64
	resting := false
	t.clock.Store(time.Now().UnixNano())
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-signs.C:
			t.clock.Store(now.UnixNano())
			t.giveSigns(now.Add(-time.Duration(ackWait) / 3))
		case <-barriers.C:
			before = t.slowDown(before)
			if t.due() {
				t.verify(ctx)
			}
			t.barrier(ctx)
			t.ledger.pay(ctx, t.log)
			t.ledger.clean(ctx, t.log)
			t.rest()
		case <-t.nudge:
			t.stir()
			t.verify(ctx)
		case <-t.stirred:
		case now := <-silence.C:
			t.lookAround(ctx, now)
		}
		if wait := t.ackWait.Load(); wait != ackWait {
			ackWait = wait
			if !resting {
				signs.Reset(pace())
			}
			t.giveSigns(time.Now().Add(-time.Duration(ackWait) / 3))
		}
		if rests := t.resting.Load(); rests != resting {
			resting = rests
			if rests {
				signs.Reset(t.conn.idle())
				barriers.Reset(t.conn.idle())
			} else {
				signs.Reset(pace())
				barriers.Reset(barrierEvery)
			}
		}
	}
}

// rest has care wake seldom while it has nothing to do: a daemon with a
// thousand idle functions costs next to nothing.
func (t *trigger) rest() {
	t.mu.Lock()
	defer t.mu.Unlock()
	busy := t.alive.n + len(t.unsure) + len(t.later) + len(t.acked[0]) + len(t.acked[1])
	if t.cfg.Prefetch == PrefetchAuto {
		busy += t.prefetch
	}
	t.resting.Store(busy == 0 && t.verified())
}

// stir ends the rest of care. It is called for each message.
func (t *trigger) stir() {
	if t.resting.Load() && t.resting.CompareAndSwap(true, false) {
		t.clock.Store(time.Now().UnixNano())
		signal(t.stirred)
	}
}

// giveSigns tells the server that the messages are worked on whose last sign is
// from before a time.
func (t *trigger) giveSigns(before time.Time) {
	t.mu.Lock()
	due := t.alive.signed(before, time.Now())
	t.mu.Unlock()
	for _, l := range due {
		l.ending.Lock()
		if !l.over {
			if err := t.send(l, inProgress); err != nil {
				t.log.Debug("cannot keep a message alive", "message", l.message.ID, "error", err)
			}
		}
		l.ending.Unlock()
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

// listenFor is how often care checks that the server still sends heartbeats for requests.
// An embedded server sends no heartbeats: its end is noticed at once.
func (t *trigger) listenFor() time.Duration {
	if t.conn.embedded {
		return t.conn.idle()
	}
	return heartbeat
}

// lookAround makes the requests again when the server is silent about them.
func (t *trigger) lookAround(ctx context.Context, now time.Time) {
	t.mu.Lock()
	t.expire(now)
	silent := !t.conn.embedded && t.silent(time.Now()) // the tick may have waited for care
	t.mu.Unlock()
	if !silent || !t.conn.nc.IsConnected() {
		return
	}
	t.verify(ctx)
	t.mu.Lock()
	silent = t.silent(time.Now()) // what has arrived before the server's answer is known now
	t.mu.Unlock()
	if silent {
		t.askAgain()
		signal(t.wake)
	}
}

// alive is the list of loans that are not settled, the one whose last sign of
// life is the longest ago first.
type alive struct {
	ring loan
	n    int
}

func (a *alive) init() { a.ring.prev, a.ring.next = &a.ring, &a.ring }

func (a *alive) add(l *loan, now time.Time) {
	l.sign = now
	l.prev, l.next = a.ring.prev, &a.ring
	l.prev.next, a.ring.prev = l, l
	a.n++
}

func (a *alive) remove(l *loan) {
	if l.next == nil {
		return
	}
	l.prev.next, l.next.prev = l.next, l.prev
	l.prev, l.next = nil, nil
	a.n--
}

func (a *alive) has(p place) bool {
	for l := a.ring.next; l != &a.ring; l = l.next {
		if l.Sequence == p.sequence && l.place() == p {
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
