package storagequeue

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/drover-run/drover/triggers"
)

// maxRenewals is how many leases are renewed at once: each takes a round trip.
const maxRenewals = 32

// care renews leases at half their time, and gives back what is held without
// need, for others to take.
func (t *trigger) care() {
	for {
		renew, back, next := t.due(time.Now())
		if len(renew)+len(back) > 0 {
			atOnce(renew, t.renew)
			atOnce(back, t.giveBackUnseen)
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

// due are the loans to look at, and when the next one is.
func (t *trigger) due(now time.Time) (renew, back []*loan, next time.Time) {
	next = now.Add(time.Hour)
	t.mu.Lock()
	defer t.mu.Unlock()
	surplus := len(t.held) - t.waiting - t.prefetch()
	t.held = slices.DeleteFunc(t.held, func(l *loan) bool {
		if len(back) >= surplus || l.renewAt.After(now) {
			return false
		}
		l.renewAt = next // it is in hand
		back = append(back, l)
		return true
	})
	for l := range t.loans {
		switch {
		case l.lost:
		case !l.renewAt.After(now):
			renew = append(renew, l)
		case l.renewAt.Before(next):
			next = l.renewAt
		}
	}
	t.nextCare = next
	return renew, back, next
}

// atOnce does something for many loans at the same time.
func atOnce(ls []*loan, do func(*loan)) {
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

// giveBackUnseen gives back what was never handed out.
func (t *trigger) giveBackUnseen(l *loan) {
	if err := l.Delivery.Settle(t.asking, triggers.Verdict{Kind: triggers.Release}); err != nil {
		t.log.Debug("cannot give a message back that is not wanted; its lease ends", "message", l.message.ID, "error", err)
		t.forget(l)
	}
}

func (t *trigger) renew(l *loan) {
	l.asking.Lock()
	defer l.asking.Unlock()
	t.mu.Lock()
	_, here := t.loans[l]
	t.mu.Unlock()
	if !here {
		return // it was settled in the meantime
	}
	ctx, cancel := context.WithTimeout(t.asking, max(t.cfg.Lease/2, time.Second))
	defer cancel()
	before := time.Now()
	receipt, err := t.queue.hide(ctx, l.message.ID, l.receipt, t.cfg.Lease)
	switch {
	case stale(err):
		t.lose(l)
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

// lose notes that the service has lent a message again, or that it is gone.
func (t *trigger) lose(l *loan) {
	t.mu.Lock()
	l.lost = true
	ends := l.ends
	t.mu.Unlock()
	t.log.Warn("the lease of a message was lost before it was settled; it may run again", "message", l.message.ID)
	t.expect(ends)
	l.Revoke()
}

// forbiddenToUpdate says, once, what follows from a missing right.
func (t *trigger) forbiddenToUpdate(err error) {
	t.toldForbidden.Do(func() {
		t.troubles.Set(triggers.TroubleRights, fmt.Sprintf("leases cannot be renewed, nor messages be given back: what takes longer than the lease of %v runs again: %v", t.cfg.Lease, err))
		t.log.Warn("leases cannot be renewed, nor messages be given back: what takes longer than the lease runs again, and what failed comes again when its lease ends",
			"lease", t.cfg.Lease, "error", err)
	})
}
