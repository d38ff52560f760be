package storagequeue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/lease"
)

// shared is shared by the leased messages of a trigger.
type shared struct {
	cfg    Config
	log    *slog.Logger
	queue  *reach
	poison *poisonQueue
	key    string // in the ledger

	asking     context.Context // of requests; Close lets gets finish before it ends
	stopAsking context.CancelFunc
	running    sync.WaitGroup

	forbiddenOnce sync.Once
	troubles      triggers.Troubles

	mu      sync.Mutex
	keeper  *lease.Keeper[*leasedMessage]
	buffer  *lease.Buffer[*leasedMessage] // prefetched
	done    map[string]struct{}           // done, but still to be deleted when redelivered
	rate    triggers.Rate
	visible func(time.Time) // is called with mu locked when a message will be visible at a time
}

func newShared(cfg Config) (*shared, error) {
	t := &shared{cfg: cfg, log: cfg.Log.With("queue", cfg.Queue), done: make(map[string]struct{})}
	t.keeper, t.buffer = lease.NewKeeper[*leasedMessage](&t.mu), lease.NewBuffer[*leasedMessage](&t.mu)
	t.keeper.Handle, t.keeper.Lost = t.handleDue, t.leaseLost
	t.buffer.Account, t.buffer.Closed = cfg.Memory, errClosed
	var err error
	if t.queue, err = cfg.Account.reach(cfg.Queue); err != nil {
		return nil, err
	}
	poison, err := cfg.Account.reach(cfg.PoisonQueue)
	if err != nil {
		return nil, err
	}
	t.poison = &poisonQueue{queue: poison, source: cfg.Queue, format: cfg.PoisonFormat, encoding: cfg.Encoding, reasons: cfg.Reasons, log: t.log, troubles: &t.troubles}
	t.key = t.queue.address()
	t.keeper.Record = cfg.Record.Source("storage queue " + t.key)
	t.asking, t.stopAsking = context.WithCancel(context.Background())
	return t, nil
}

var errClosed = errors.New("the storage queue trigger is closed")

// prefetchTarget returns the number of messages to prefetch; t.mu is locked.
func (t *shared) prefetchTarget() int {
	if t.cfg.Prefetch != PrefetchAuto {
		return t.cfg.Prefetch
	}
	return t.rate.Ready()
}

// untrack ends the renewal of a lease.
func (t *shared) untrack(l *leasedMessage) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keeper.Untrack(&l.Item)
	t.rate.Settled()
}

// releaseLeft makes the messages visible that this daemon held when it was killed. A receipt of an
// earlier delivery is refused, so no message is taken from another receiver.
func (t *shared) releaseLeft(ctx context.Context, wake func()) {
	n := lease.ReleaseLeft(ctx, t.keeper.Record, t.log, func(ctx context.Context, id, receipt string) error {
		_, err := t.queue.hide(ctx, id, receipt, 0)
		return lostIfStale(err)
	})
	if n > 0 {
		wake()
	}
}

// handleDue is called when the lease of a message must be renewed. If the message is prefetched
// and no longer needed, handleDue releases it for other receivers.
func (t *shared) handleDue(l *leasedMessage) {
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
func (t *shared) abandonUnseen(l *leasedMessage) {
	if err := l.Delivery.Settle(t.asking, triggers.Verdict{Kind: triggers.Release}); err != nil {
		t.log.Debug("cannot release a prefetched message; it will be redelivered when its lease expires", "message", l.message.ID, "error", err)
		t.untrack(l)
	}
}

// leaseLost is called when the service has delivered a message to another receiver, or the
// message no longer exists.
func (t *shared) leaseLost(l *leasedMessage) {
	t.log.Warn("lease expired before its message was settled; it may run again", "message", l.message.ID)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.visible(l.Expires())
}

// Troubles implements triggers.Troubled.
func (t *shared) Troubles() []triggers.Trouble { return t.troubles.All() }

// forbiddenToUpdate reports a missing right, once.
func (t *shared) forbiddenToUpdate(err error) {
	t.forbiddenOnce.Do(func() {
		t.troubles.Set(triggers.TroubleRights, fmt.Sprintf("leases cannot be renewed, nor messages released: messages that take longer than the lease of %v run again: %v", t.cfg.Lease, err))
		t.log.Warn("leases cannot be renewed, nor messages released: messages that take longer than the lease run again, and failed ones are redelivered when their leases expire",
			"lease", t.cfg.Lease, "error", err)
	})
}

// maxDone bounds the list of messages to be deleted when they are redelivered.
const maxDone = 1 << 14

// finished records that a message is done, although it could not be deleted.
func (t *shared) finished(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.done) == maxDone {
		clear(t.done)
	}
	t.done[id] = struct{}{}
}

// expect records when a message will be visible; t.mu is not locked.
func (t *shared) expect(at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.visible(at)
}
