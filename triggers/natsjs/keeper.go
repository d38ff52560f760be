package natsjs

import (
	"context"
	"encoding/json"
	"time"
)

const (
	// flushLimit bounds a round trip to the server.
	flushLimit = 10 * time.Second
	// rateOver is the number of settlements over which the rate is measured.
	rateOver = 256
	// ahead is the amount of work that PrefetchAuto prefetches: as many messages as are settled in
	// this time.
	ahead = 100 * time.Millisecond
	// maxPrefetch bounds PrefetchAuto.
	maxPrefetch = 4096
)

// keepLeases is the keeper, a goroutine beside Receive. It renews leases, verifies the life of
// stream and consumer, repeats acknowledgements after an outage, and sets the prefetch.
func (t *trigger) keepLeases(ctx context.Context) {
	ackWait := t.ackWait.Load()
	pace := func() time.Duration { return max(time.Duration(ackWait)/6, 10*time.Millisecond) }
	renewals := time.NewTicker(pace())
	defer renewals.Stop()
	silence := time.NewTicker(t.checkEvery())
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
		case now := <-renewals.C:
			t.clock.Store(now.UnixNano())
			t.renewDue(now.Add(-time.Duration(ackWait) / 3))
		case <-barriers.C:
			before = t.lowerPrefetch(before)
			if t.due() {
				t.verify(ctx)
			}
			t.acks.barrier(ctx)
			t.ledger.pay(ctx, t.log)
			t.ledger.clean(ctx, t.log)
			t.becomeIdle()
		case <-t.wakeUp:
			t.leaveIdle()
			t.verify(ctx)
		case <-t.idleEnded:
		case now := <-silence.C:
			t.checkConsumer(ctx, now)
		}
		if wait := t.ackWait.Load(); wait != ackWait {
			ackWait = wait
			if !resting {
				renewals.Reset(pace())
			}
			t.renewDue(time.Now().Add(-time.Duration(ackWait) / 3))
		}
		if rests := t.idle.Load(); rests != resting {
			resting = rests
			if rests {
				renewals.Reset(t.conn.idle())
				barriers.Reset(t.conn.idle())
			} else {
				renewals.Reset(pace())
				barriers.Reset(barrierEvery)
			}
		}
	}
}

// reconnected is called by the connection when it is up again.
func (t *trigger) reconnected() { signal(t.wakeUp) }

// becomeIdle makes the keeper wake rarely while it has nothing to do, so that a daemon with a
// thousand idle functions uses almost no CPU.
func (t *trigger) becomeIdle() {
	t.mu.Lock()
	defer t.mu.Unlock()
	busy := t.leases.n + len(t.unsure) + len(t.later) + t.acks.count()
	if t.cfg.Prefetch == PrefetchAuto {
		busy += t.prefetch
	}
	t.idle.Store(busy == 0 && t.verified())
}

// leaveIdle ends the idle mode of the keeper. It is called for each message.
func (t *trigger) leaveIdle() {
	if t.idle.Load() && t.idle.CompareAndSwap(true, false) {
		t.clock.Store(time.Now().UnixNano())
		signal(t.idleEnded)
	}
}

// renewDue renews the leases that were last renewed before a time.
func (t *trigger) renewDue(before time.Time) {
	t.mu.Lock()
	due := t.leases.renewBefore(before, time.Now())
	t.mu.Unlock()
	for _, l := range due {
		l.ending.Lock()
		if !l.over {
			if err := t.send(l, inProgress); err != nil {
				t.log.Debug("cannot renew a lease", "message", l.message.ID, "error", err)
			}
		}
		l.ending.Unlock()
	}
}

// raisePrefetch raises the prefetch as soon as messages are settled faster; t.mu is locked. A
// message that would wait longer than ahead is left to other instances.
func (t *trigger) raisePrefetch() {
	if t.settled%rateOver != 0 || t.cfg.Prefetch != PrefetchAuto || t.closed {
		return
	}
	now := time.Now()
	took := now.Sub(t.marked)
	t.marked = now
	t.prefetch = max(t.prefetch, int(min(rateOver*ahead/max(took, 1), maxPrefetch)))
}

// lowerPrefetch lowers the prefetch to the rate of the last second.
func (t *trigger) lowerPrefetch(before int64) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cfg.Prefetch == PrefetchAuto {
		t.prefetch = min(t.prefetch, int((t.settled-before)*int64(ahead)/int64(barrierEvery)))
	}
	return t.settled
}

// checkEvery returns the interval between checks for heartbeats. An embedded server sends none:
// its end is detected at once.
func (t *trigger) checkEvery() time.Duration {
	if t.conn.embedded {
		return t.conn.idle()
	}
	return heartbeat
}

// checkConsumer repeats the requests if heartbeats for them are missing.
func (t *trigger) checkConsumer(ctx context.Context, now time.Time) {
	t.mu.Lock()
	t.expire(now)
	silent := !t.conn.embedded && t.silent(time.Now()) // the tick may be late
	t.mu.Unlock()
	if !silent || !t.conn.nc.IsConnected() {
		return
	}
	t.verify(ctx)
	t.mu.Lock()
	silent = t.silent(time.Now()) // messages that arrived before the server's response are counted now
	t.mu.Unlock()
	if silent {
		t.requestAgain()
		signal(t.wakeReceive)
	}
}

// leaseList is a list of leases, ordered by the time of their last renewal, the oldest first.
type leaseList struct {
	ring leasedMessage
	n    int
}

func (a *leaseList) init() { a.ring.prev, a.ring.next = &a.ring, &a.ring }

func (a *leaseList) add(l *leasedMessage, now time.Time) {
	l.renewed = now
	l.prev, l.next = a.ring.prev, &a.ring
	l.prev.next, a.ring.prev = l, l
	a.n++
}

func (a *leaseList) remove(l *leasedMessage) {
	if l.next == nil {
		return
	}
	l.prev.next, l.next.prev = l.next, l.prev
	l.prev, l.next = nil, nil
	a.n--
}

func (a *leaseList) has(p place) bool {
	for l := a.ring.next; l != &a.ring; l = l.next {
		if l.Sequence == p.sequence && l.place() == p {
			return true
		}
	}
	return false
}

// renewBefore returns the leases last renewed before a time, and marks them as renewed.
func (a *leaseList) renewBefore(before, now time.Time) (due []*leasedMessage) {
	for l := a.ring.next; l != &a.ring && l.renewed.Before(before); l = l.next {
		due = append(due, l)
	}
	for _, l := range due {
		a.remove(l)
		a.add(l, now)
	}
	return due
}

// quote returns the last n bytes of a text as a JSON string.
func quote(text string, n int) string {
	if len(text) > n {
		text = "..." + text[len(text)-n:] // the end of a traceback is the most useful part
	}
	out, err := json.Marshal(text)
	if err != nil {
		return `""` // a string always has a JSON form
	}
	return string(out)
}
