package servicebus

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/drover-run/drover/triggers"
)

// maxRenewals bounds the concurrent renewals: each takes a round trip.
const maxRenewals = 32

// keepLeases renews locks at half their time, and ends the delays of retries.
func (t *trigger) keepLeases() {
	for {
		var due []*leasedMessage
		now := time.Now()
		next := now.Add(time.Hour)
		t.mu.Lock()
		for l := range maps.Keys(t.leases) {
			at := l.renewAt
			switch {
			case l.lost:
				at = now.Add(time.Hour)
			case t.renewedEnough(l, now):
				at = l.lockEnds
			}
			if !l.retryAt.IsZero() && l.retryAt.Before(at) {
				at = l.retryAt
			}
			switch {
			case !at.After(now):
				due = append(due, l)
			case at.Before(next):
				next = at
			}
		}
		t.nextRenewal = next
		t.mu.Unlock()
		if len(due) > 0 {
			t.handleDue(due)
			continue
		}
		sleep := time.NewTimer(time.Until(next))
		select {
		case <-sleep.C:
		case <-t.added:
		case <-t.ctx.Done():
			sleep.Stop()
			return
		}
		sleep.Stop()
	}
}

// renewedEnough reports whether MaxLockRenewal is over: the lock is left to expire.
func (t *trigger) renewedEnough(l *leasedMessage, now time.Time) bool {
	return t.cfg.MaxLockRenewal > 0 && now.Sub(l.start) > t.cfg.MaxLockRenewal
}

// handleDue handles leases that are due, concurrently.
func (t *trigger) handleDue(due []*leasedMessage) {
	var all sync.WaitGroup
	defer all.Wait()
	room := make(chan struct{}, maxRenewals)
	for _, l := range due {
		room <- struct{}{}
		all.Go(func() {
			defer func() { <-room }()
			t.mu.Lock()
			over := !l.retryAt.IsZero() && !time.Now().Before(l.retryAt)
			failures := l.failures
			t.mu.Unlock()
			switch {
			case over:
				t.abandonForRetry(l, failures)
			case t.renewedEnough(l, time.Now()):
				t.revoke(l)
			default:
				t.renew(l)
			}
		})
	}
}

// abandonForRetry abandons a message whose delay is over.
func (t *trigger) abandonForRetry(l *leasedMessage, failures int) {
	m := l.message
	m.Attempt = failures
	err := l.end(t.ctx, &m, triggers.Verdict{Kind: triggers.Retry})
	if err == nil || t.ctx.Err() != nil {
		t.untrack(l)
		return
	}
	t.log.Warn("cannot abandon a message for its next attempt; will try until its lock ends", "message", m.ID, "error", err)
	t.mu.Lock()
	l.retryAt = time.Now().Add(time.Second)
	if l.lost {
		delete(t.leases, l)
	}
	t.mu.Unlock()
}

func (t *trigger) renew(l *leasedMessage) {
	ctx, cancel := context.WithTimeout(t.ctx, max(l.duration/2, time.Second))
	defer cancel()
	before := time.Now()
	err := l.e.link.Load().receiver.RenewMessageLock(ctx, &azservicebus.ReceivedMessage{LockToken: l.received.LockToken}, nil)
	switch {
	case lockLost(err):
		t.revoke(l)
		return
	case err != nil:
		t.log.Debug("cannot renew a lock; will try again", "message", l.message.ID, "error", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		l.renewAt = time.Now().Add(l.duration / 8)
		return
	}
	l.renewAt, l.lockEnds = before.Add(renewAfter(l.duration)), before.Add(l.duration)
}

// revoke ends a lease whose lock was lost. The service redelivers the message.
func (t *trigger) revoke(l *leasedMessage) {
	t.mu.Lock()
	_, here := t.leases[l]
	l.lost = true
	waits := !l.retryAt.IsZero()
	t.mu.Unlock()
	if !here {
		return // it was settled
	}
	t.log.Warn("lock lost before its message was settled; it will be redelivered", "message", l.message.ID)
	if waits { // for its next attempt: there is no handler to call, and nothing to abandon
		t.untrack(l)
	}
	l.Revoke()
}

// maxRenewal is the longest time between two renewals. A lock of five minutes needs one only
// every two and a half, but if the clocks differ, a lock may be shorter than it seems.
const maxRenewal = 10 * time.Second

func renewAfter(lock time.Duration) time.Duration { return min(lock/2, maxRenewal) }
