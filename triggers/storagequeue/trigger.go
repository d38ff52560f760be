// Package storagequeue receives from Azure Storage queues. It takes short leases, and renews
// them while a message is handled.
//
// Attempts are counted in a Ledger, a file of this daemon. The service's own DequeueCount is
// higher: it also counts releases, expired leases and crashes. MaxDequeueCount bounds it.
//
// An Account connects to queues (access.go, reach.go, failure.go), and they are polled
// (poll.go). Messages are prefetched for Receive (this file), and share the state in shared.go;
// their leases are renewed and settled (message.go, poison.go).
package storagequeue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue/v2/queueerror"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/lease"
)

const (
	closeLimit = 10 * time.Second
	// openLimit bounds the check of the queue at the start.
	openLimit = 30 * time.Second
)

// Open returns a trigger, after checking that its queue exists.
func Open(ctx context.Context, cfg Config) (triggers.Trigger, error) { return open(ctx, cfg) }

func open(ctx context.Context, cfg Config) (*trigger, error) {
	common, err := newShared(cfg)
	if err != nil {
		return nil, err
	}
	t := &trigger{poller: newPoller(common)}
	first, cancel := context.WithTimeout(ctx, openLimit)
	defer cancel()
	if err := t.check(first); err != nil {
		return nil, err
	}
	t.ctx, t.stop = context.WithCancel(context.Background())
	t.running.Go(func() { t.keeper.Run(t.ctx) })
	t.running.Go(func() { t.releaseLeft(t.ctx, t.wake) })
	cfg.Account.mu.Lock()
	cfg.Account.wakers[t.queue] = t.wake
	cfg.Account.mu.Unlock()
	return t, nil
}

// check checks that the queue exists, or creates it if configured.
func (t *trigger) check(ctx context.Context) error {
	_, err := t.queue.peek(ctx, 1)
	switch {
	case queueerror.HasCode(err, queueerror.QueueNotFound) && t.cfg.Create:
		return t.queue.make(ctx)
	case forbidden(err):
		t.log.Debug("the queue cannot be peeked; the first receive will show whether it can be read", "error", err)
		return nil
	}
	return err
}

type trigger struct {
	*poller
	ctx  context.Context // ends with the trigger
	stop context.CancelFunc
}

// Receive implements triggers.Trigger.
func (t *trigger) Receive(ctx context.Context, maximum int) ([]*triggers.Delivery, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.paused = false
	out, err := t.buffer.Receive(ctx, maximum)
	if len(out) == 0 {
		t.paused = true
	}
	t.request()
	return out, err
}

// Drain implements triggers.Drainer.
func (t *trigger) Drain(_ context.Context, maximum int) ([]*triggers.Delivery, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.paused = true
	return t.buffer.Drain(maximum), nil
}

// Backlog implements triggers.Trigger. Up to 32 messages are counted exactly. Beyond that the
// service's count is approximate and includes hidden messages. Those leased here are
// subtracted; those of other instances, and those with a delay, are not.
func (t *trigger) Backlog(ctx context.Context) (triggers.Backlog, error) {
	seen, err := t.queue.peek(ctx, maxGet)
	if err != nil {
		return triggers.Backlog{}, err
	}
	out := triggers.Backlog{Ready: int64(len(seen))}
	for _, m := range seen {
		if at := deref(m.InsertionTime); out.Oldest.IsZero() || at.Before(out.Oldest) {
			out.Oldest = at
		}
	}
	if len(seen) < maxGet {
		return out, nil
	}
	all, err := t.queue.count(ctx)
	if err != nil {
		out.AtLeast = true
		return out, nil // a signature may allow peeking, but not counting
	}
	t.mu.Lock()
	ours := int64(t.keeper.Len())
	t.mu.Unlock()
	out.Ready = max(out.Ready, all-ours)
	return out, nil
}

// Close implements triggers.Trigger.
func (t *trigger) Close(ctx context.Context) error {
	t.mu.Lock()
	if !t.buffer.Close() {
		t.mu.Unlock()
		return nil
	}
	t.alarm.Stop()
	t.mu.Unlock()
	t.cfg.Account.mu.Lock()
	delete(t.cfg.Account.wakers, t.queue)
	t.cfg.Account.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, closeLimit)
	defer cancel()
	// The service may have carried out a cancelled get. Its messages would then stay hidden for
	// the duration of a lease.
	unhurried := context.AfterFunc(ctx, t.stopAsking)
	defer unhurried()
	t.stop()
	t.running.Wait()
	t.stopAsking()
	t.mu.Lock()
	unseen := t.buffer.Rest()
	t.mu.Unlock()
	errs := make(chan error, len(unseen))
	lease.Concurrently(unseen, func(l *leasedMessage) { errs <- l.Delivery.Settle(ctx, triggers.Verdict{Kind: triggers.Release}) })
	close(errs)
	var out []error
	for err := range errs {
		out = append(out, err)
	}
	if err := errors.Join(out...); err != nil {
		return fmt.Errorf("closing the receiver of %s: %w", t.cfg.Queue, err)
	}
	return nil
}
