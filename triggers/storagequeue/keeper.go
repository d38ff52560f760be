package storagequeue

import (
	"context"
	"errors"
	"fmt"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/lease"
)

// handleDue is called when the lease of a message must be renewed. If the message is prefetched
// and no longer needed, handleDue releases it for other receivers.
func (t *trigger) handleDue(l *leasedMessage) {
	t.mu.Lock()
	surplus := t.buffer.Len() > t.buffer.Waiting()+t.prefetchTarget() && t.buffer.Remove(&l.Item)
	t.mu.Unlock()
	if surplus {
		t.abandonUnseen(l)
		return
	}
	t.keeper.Renew(t.asking, &l.Item, l.renew)
}

// abandonUnseen releases a message that Receive has not returned.
func (t *trigger) abandonUnseen(l *leasedMessage) {
	if err := l.Delivery.Settle(t.asking, triggers.Verdict{Kind: triggers.Release}); err != nil {
		t.log.Debug("cannot release a prefetched message; it will be redelivered when its lease expires", "message", l.message.ID, "error", err)
		t.untrack(l)
	}
}

var errUntracked = errors.New("the message was settled")

// renew hides the message for another lease.
func (l *leasedMessage) renew(ctx context.Context) error {
	t := l.t
	l.asking.Lock()
	defer l.asking.Unlock()
	t.mu.Lock()
	tracked := l.Tracked()
	t.mu.Unlock()
	if !tracked {
		return errUntracked
	}
	receipt, err := t.queue.hide(ctx, l.message.ID, l.receipt, t.cfg.Lease)
	switch {
	case stale(err):
		return lease.ErrLost
	case forbidden(err):
		t.forbiddenToUpdate(err)
	case err != nil:
		t.log.Debug("cannot renew a lease; will try again", "message", l.message.ID, "error", err)
	}
	if err == nil {
		l.receipt = receipt
	}
	return err
}

// leaseLost is called when the service has delivered a message to another receiver, or the
// message no longer exists.
func (t *trigger) leaseLost(l *leasedMessage) {
	t.log.Warn("lease expired before its message was settled; it may run again", "message", l.message.ID)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expectLocked(l.Expires())
}

// forbiddenToUpdate reports a missing right, once.
func (t *trigger) forbiddenToUpdate(err error) {
	t.forbiddenOnce.Do(func() {
		t.troubles.Set(triggers.TroubleRights, fmt.Sprintf("leases cannot be renewed, nor messages released: messages that take longer than the lease of %v run again: %v", t.cfg.Lease, err))
		t.log.Warn("leases cannot be renewed, nor messages released: messages that take longer than the lease run again, and failed ones are redelivered when their leases expire",
			"lease", t.cfg.Lease, "error", err)
	})
}
