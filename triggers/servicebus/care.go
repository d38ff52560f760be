package servicebus

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/drover-run/drover/triggers"
)

// maxRenewals is how many locks are renewed at once: each takes a round trip.
const maxRenewals = 32

// care renews locks at half their time, and ends the delays of retries.
func (t *trigger) care() {
	for {
		var due []*loan
		now := time.Now()
		next := now.Add(time.Hour)
		t.mu.Lock()
		for l := range maps.Keys(t.loans) {
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
		t.nextCare = next
		t.mu.Unlock()
		if len(due) > 0 {
			t.look(due)
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

// renewedEnough reports whether a lock is to be left to its end.
func (t *trigger) renewedEnough(l *loan, now time.Time) bool {
	return t.cfg.MaxLockRenewal > 0 && now.Sub(l.start) > t.cfg.MaxLockRenewal
}

// look does what is due, many at once.
func (t *trigger) look(due []*loan) {
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
				t.giveBack(l, failures)
			case t.renewedEnough(l, time.Now()):
				t.lose(l)
			default:
				t.renew(l)
			}
		})
	}
}

// giveBack abandons a message whose delay is over.
func (t *trigger) giveBack(l *loan, failures int) {
	m := l.message
	m.Attempt = failures
	err := l.end(t.ctx, &m, triggers.Verdict{Kind: triggers.Retry})
	if err == nil || t.ctx.Err() != nil {
		t.forget(l)
		return
	}
	t.log.Warn("cannot give a message back for its next attempt; will try until its lock ends", "message", m.ID, "error", err)
	t.mu.Lock()
	l.retryAt = time.Now().Add(time.Second)
	if l.lost {
		delete(t.loans, l)
	}
	t.mu.Unlock()
}

func (t *trigger) renew(l *loan) {
	ctx, cancel := context.WithTimeout(t.ctx, max(l.duration/2, time.Second))
	defer cancel()
	before := time.Now()
	err := l.e.link.Load().receiver.RenewMessageLock(ctx, &azservicebus.ReceivedMessage{LockToken: l.received.LockToken}, nil)
	switch {
	case lockLost(err):
		t.lose(l)
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

// lose notes that the service lends a message again.
func (t *trigger) lose(l *loan) {
	t.mu.Lock()
	_, here := t.loans[l]
	l.lost = true
	waits := !l.retryAt.IsZero()
	t.mu.Unlock()
	if !here {
		return // it was settled in the meantime
	}
	t.log.Warn("the lock of a message was lost before it was settled; it will run again", "message", l.message.ID)
	if waits { // for its next attempt: there is nobody to tell, and nothing to give back
		t.forget(l)
	}
	l.Revoke()
}

// maxRenewal is the longest time between two renewals. A lock of five minutes
// would need one every two and a half; but where the clocks do not agree, a lock
// may seem to be longer than it is.
const maxRenewal = 10 * time.Second

func renewAfter(lock time.Duration) time.Duration { return min(lock/2, maxRenewal) }
