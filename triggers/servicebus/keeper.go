package servicebus

import (
	"context"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/lease"
	"github.com/drover-run/drover/triggers/servicebus/namespace"
)

// nextDue returns when the keeper handles a message next; t.mu is locked. After MaxLockRenewal
// the lock is no longer renewed and expires.
func (t *shared) nextDue(l *leasedMessage, now time.Time) (at time.Time) {
	switch {
	case l.Lost():
	case t.renewedEnough(l, now):
		at = l.Expires()
	default:
		at = l.RenewAt()
	}
	if !l.retryAt.IsZero() && (at.IsZero() || l.retryAt.Before(at)) {
		at = l.retryAt
	}
	return at
}

// renewedEnough reports whether MaxLockRenewal of a message is over.
func (t *shared) renewedEnough(l *leasedMessage, now time.Time) bool {
	return t.cfg.MaxLockRenewal > 0 && now.Sub(l.start) > t.cfg.MaxLockRenewal
}

// handleDue handles a message that is due: it retries it, or ends or renews its lock.
func (t *shared) handleDue(l *leasedMessage) {
	t.mu.Lock()
	retry := !l.retryAt.IsZero() && !time.Now().Before(l.retryAt)
	failures := l.failures
	t.mu.Unlock()
	switch {
	case retry:
		t.abandonForRetry(l, failures)
	case t.renewedEnough(l, time.Now()):
		t.keeper.Revoke(&l.Item)
	default:
		t.keeper.Renew(t.ctx, &l.Item, l.renew)
	}
}

// abandonForRetry abandons a message whose delay is over.
func (t *shared) abandonForRetry(l *leasedMessage, failures int) {
	m := l.message
	m.Attempt = failures
	err := l.end(t.ctx, &m, triggers.Verdict{Kind: triggers.Retry})
	if err == nil || t.ctx.Err() != nil {
		t.untrack(l)
		return
	}
	t.log.Warn("cannot abandon a message for its next attempt; will try until its lock ends", "message", m.ID, "error", err)
	t.mu.Lock()
	defer t.mu.Unlock()
	l.retryAt = time.Now().Add(time.Second)
	if l.Lost() {
		t.keeper.Untrack(&l.Item)
	}
}

// renew renews the lock by its token.
func (l *leasedMessage) renew(ctx context.Context) error {
	err := l.e.current.Load().receiver.RenewMessageLock(ctx, &azservicebus.ReceivedMessage{LockToken: l.received.LockToken}, nil)
	if namespace.LockLost(err) {
		return lease.ErrLost
	}
	if err != nil {
		l.e.t.log.Debug("cannot renew a lock; will try again", "message", l.message.ID, "error", err)
	}
	return err
}

// leaseLost is called when a lock was lost. The service redelivers the message.
func (t *shared) leaseLost(l *leasedMessage) {
	t.log.Warn("lock lost before its message was settled; it will be redelivered", "message", l.message.ID)
	t.mu.Lock()
	waits := !l.retryAt.IsZero()
	t.mu.Unlock()
	if waits { // it waits for its next attempt: there is nothing to abandon
		t.untrack(l)
	}
}
