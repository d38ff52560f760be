package storagequeue

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/drover-run/drover/triggers"
)

// maxRenewals bounds the concurrent renewals: each takes a round trip.
const maxRenewals = 32

// keepLeases renews leases at half their time, and releases prefetched messages that are not
// needed, for other receivers.
func (t *trigger) keepLeases() {
	for {
		renew, back, next := t.due(time.Now())
		if len(renew)+len(back) > 0 {
			atOnce(renew, t.renew)
			atOnce(back, t.abandonUnseen)
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

// due returns the leases to renew or release now, and when the next one is due.
func (t *trigger) due(now time.Time) (renew, back []*leasedMessage, next time.Time) {
	next = now.Add(time.Hour)
	t.mu.Lock()
	defer t.mu.Unlock()
	surplus := len(t.prefetched) - t.waiting - t.prefetchTarget()
	t.prefetched = slices.DeleteFunc(t.prefetched, func(l *leasedMessage) bool {
		if len(back) >= surplus || l.renewAt.After(now) {
			return false
		}
		l.renewAt = next
		back = append(back, l)
		return true
	})
	for l := range t.leases {
		switch {
		case l.lost:
		case !l.renewAt.After(now):
			renew = append(renew, l)
		case l.renewAt.Before(next):
			next = l.renewAt
		}
	}
	t.nextRenewal = next
	return renew, back, next
}

// atOnce calls do for many leases concurrently.
func atOnce(ls []*leasedMessage, do func(*leasedMessage)) {
	var all sync.WaitGroup
	defer all.Wait()
	room := make(chan struct{}, maxRenewals)
	for _, l := range ls {
		room <- struct{}{}
		all.Go(func() {
			do(l)
			<-room
		})
	}
}

// abandonUnseen releases a message that Receive has not returned.
func (t *trigger) abandonUnseen(l *leasedMessage) {
	if err := l.Delivery.Settle(t.asking, triggers.Verdict{Kind: triggers.Release}); err != nil {
		t.log.Debug("cannot release a prefetched message; it will be redelivered when its lease expires", "message", l.message.ID, "error", err)
		t.untrack(l)
	}
}

func (t *trigger) renew(l *leasedMessage) {
	l.asking.Lock()
	defer l.asking.Unlock()
	t.mu.Lock()
	_, here := t.leases[l]
	t.mu.Unlock()
	if !here {
		return // it was settled
	}
	ctx, cancel := context.WithTimeout(t.asking, max(t.cfg.Lease/2, time.Second))
	defer cancel()
	before := time.Now()
	receipt, err := t.queue.hide(ctx, l.message.ID, l.receipt, t.cfg.Lease)
	switch {
	case stale(err):
		t.revoke(l)
		return
	case forbidden(err):
		t.forbiddenToUpdate(err)
	case err != nil:
		t.log.Debug("cannot renew a lease; will try again", "message", l.message.ID, "error", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		l.renewAt = time.Now().Add(max(t.cfg.Lease/8, 100*time.Millisecond))
		return
	}
	l.receipt = receipt
	l.renewAt, l.ends = before.Add(t.cfg.Lease/2), before.Add(t.cfg.Lease)
}

// revoke ends a lease that the service has given to another receiver, or whose message is gone.
func (t *trigger) revoke(l *leasedMessage) {
	t.mu.Lock()
	l.lost = true
	ends := l.ends
	t.mu.Unlock()
	t.log.Warn("lease expired before its message was settled; it may run again", "message", l.message.ID)
	t.expect(ends)
	l.Revoke()
}

// forbiddenToUpdate reports a missing right, once.
func (t *trigger) forbiddenToUpdate(err error) {
	t.forbiddenOnce.Do(func() {
		t.troubles.Set(triggers.TroubleRights, fmt.Sprintf("leases cannot be renewed, nor messages released: messages that take longer than the lease of %v run again: %v", t.cfg.Lease, err))
		t.log.Warn("leases cannot be renewed, nor messages released: messages that take longer than the lease run again, and failed ones are redelivered when their leases expire",
			"lease", t.cfg.Lease, "error", err)
	})
}
