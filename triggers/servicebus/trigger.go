// Package servicebus receives from Azure Service Bus: queues, and subscriptions
// of topics, with and without sessions, by peek-lock.
//
// Attempts are counted in the message's property drover-failures, which is set when a message
// is abandoned, and in a scheduled copy. The service's own delivery count is higher: it also
// counts releases, lost locks and crashes, and its limit still applies.
//
// A trigger (this file) has one or more entities, which share its buffer of prefetched messages
// (shared.go). An entity is reached over links (entity.go), checked first (check.go, inspect.go),
// and received from (receive.go), or through its sessions (accept.go, session.go). The locks of
// messages are renewed (keeper.go), and they are settled (message.go, copy.go).
package servicebus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/lease"
	"github.com/drover-run/drover/triggers/servicebus/namespace"
)

const (
	// openLimit bounds the check of the entities at the start.
	openLimit = 30 * time.Second
	// unwantedAfter is how long the receivers continue after a Receive was cancelled, if no
	// other is called.
	unwantedAfter = time.Second
)

// Open returns a trigger, after checking that its entities exist and can be read.
func Open(ctx context.Context, cfg Config) (triggers.Trigger, error) {
	t, err := open(cfg)
	if err != nil {
		return nil, err
	}
	first, cancel := context.WithTimeout(ctx, openLimit)
	defer cancel()
	for _, e := range t.entities {
		if err := e.check(first); err != nil {
			return nil, errors.Join(err, t.Close(ctx))
		}
	}
	t.start()
	return t, nil
}

func open(cfg Config) (*trigger, error) {
	t := &trigger{shared: newShared(cfg)}
	t.keeper.Due, t.keeper.Handle, t.keeper.Lost = t.nextDue, t.handleDue, t.leaseLost
	for _, at := range cfg.addresses() {
		e := &entity{links: links{address: at, t: t.shared}}
		l, err := e.dial()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("receiving from %s: %w", e.path(), err), t.Close(context.Background()))
		}
		e.current.Store(l)
		t.entities = append(t.entities, e)
	}
	return t, nil
}

// start starts receiving.
func (t *trigger) start() {
	context.AfterFunc(t.ctx, t.roomChanged)
	t.running.Go(func() { t.keeper.Run(t.ctx) })
	t.running.Go(func() { lease.ReleaseLeft(t.ctx, t.cfg.Record, t.log, t.releaseLeft) })
	for _, e := range t.entities {
		if t.cfg.Sessions {
			for range max(t.cfg.MaxSessions, 1) {
				t.running.Go(e.holdSessions)
			}
			continue
		}
		r := newReceiver(e)
		t.receivers = append(t.receivers, r)
		t.running.Go(r.receiveLoop)
		t.running.Go(r.leaseLoop)
	}
}

type trigger struct {
	*shared
	entities  []*entity
	receivers []*receiver // of the entities; none with sessions
	unwanted  *time.Timer // calls pauseReceivers; guarded by mu
}

// releaseLeft abandons a message that was in flight when the daemon was killed.
func (t *trigger) releaseLeft(ctx context.Context, path, token string) error {
	for _, e := range t.entities {
		if e.path() == path {
			err := namespace.AbandonLeft(ctx, e.current.Load().receiver, token)
			if namespace.LockLost(err) {
				return lease.ErrLost
			}
			return err
		}
	}
	return lease.ErrLost
}

// Receive implements triggers.Trigger.
func (t *trigger) Receive(ctx context.Context, maximum int) ([]*triggers.Delivery, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.unwanted != nil {
		t.unwanted.Stop()
		t.unwanted = nil
	}
	out, err := t.buffer.Receive(ctx, maximum)
	if len(out) == 0 && ctx.Err() != nil && !t.buffer.IsClosed() {
		t.unwanted = time.AfterFunc(unwantedAfter, t.pauseReceivers)
	}
	t.room.Broadcast()
	return out, err
}

// Drain implements triggers.Drainer.
func (t *trigger) Drain(_ context.Context, maximum int) ([]*triggers.Delivery, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.draining = true
	return t.buffer.Drain(maximum), nil
}

// pauseReceivers stops the receivers until the next Receive, so that other instances get
// further messages.
func (t *trigger) pauseReceivers() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.receivers {
		if t.unwanted != nil && r.pause != nil {
			r.pause()
		}
	}
}

// Backlog implements triggers.Trigger. It returns the sum over the entities.
func (t *trigger) Backlog(ctx context.Context) (triggers.Backlog, error) {
	var all triggers.Backlog
	for i, e := range t.entities {
		b, err := e.backlog(ctx)
		if err != nil {
			return triggers.Backlog{}, err
		}
		all.Ready += b.Ready
		all.AtLeast = all.AtLeast || b.AtLeast
		if all.Oldest.IsZero() || !b.Oldest.IsZero() && b.Oldest.Before(all.Oldest) {
			all.Oldest = b.Oldest
		}
		switch {
		case b.More == nil:
			all.More = nil
		case i == 0:
			all.More = b.More
		case all.More != nil:
			all.More.Dead += b.More.Dead
			all.More.Scheduled += b.More.Scheduled
		}
	}
	return all, nil
}

// Holding implements triggers.Holder.
func (t *trigger) Holding() (n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for l := range t.keeper.All() {
		if !l.retryAt.IsZero() {
			n++
		}
	}
	for _, e := range t.entities {
		n += int64(e.sessions.retrying)
	}
	return n
}

// Close implements triggers.Trigger. A message that waits for its next attempt is abandoned
// early, with its failure recorded.
func (t *trigger) Close(ctx context.Context) error {
	t.mu.Lock()
	if !t.buffer.Close() {
		t.mu.Unlock()
		return nil
	}
	if t.unwanted != nil {
		t.unwanted.Stop()
	}
	t.mu.Unlock()
	t.stop()
	t.running.Wait()
	ctx, cancel := context.WithTimeout(ctx, closeLimit)
	defer cancel()
	t.mu.Lock()
	unseen := t.buffer.Rest()
	var waiting []*leasedMessage
	for l := range t.keeper.All() {
		if !l.retryAt.IsZero() {
			waiting = append(waiting, l)
		}
	}
	t.mu.Unlock()
	errs := make(chan error, len(unseen)+len(waiting)+len(t.entities))
	var all sync.WaitGroup
	for _, l := range unseen {
		all.Go(func() { errs <- l.Delivery.Settle(ctx, triggers.Verdict{Kind: triggers.Release}) })
	}
	for _, l := range waiting {
		all.Go(func() {
			m := l.message
			m.Attempt = l.failures
			errs <- l.end(ctx, &m, triggers.Verdict{Kind: triggers.Retry})
		})
	}
	all.Wait()
	for _, e := range t.entities {
		errs <- e.close(ctx)
	}
	close(errs)
	var out []error
	for err := range errs {
		out = append(out, err)
	}
	if err := errors.Join(out...); err != nil {
		return fmt.Errorf("closing the receiver of %s: %w", t.cfg.paths(), err)
	}
	return nil
}

// AttemptLimit implements triggers.Limited.
func (t *trigger) AttemptLimit() (limit int) {
	for _, e := range t.entities {
		if t.cfg.CountDeliveries && e.most > 0 && (limit == 0 || e.most < limit) {
			limit = e.most
		}
	}
	return limit
}
