package servicebus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/lease"
)

// maxCredit bounds the requested messages of one receiver; the SDK allows 5,000.
const maxCredit = 2000

// shared is shared by the entities of a trigger: the leased messages and the room for more.
type shared struct {
	cfg         Config
	log         *slog.Logger
	entityCount int

	ctx       context.Context // ends with the trigger
	stop      context.CancelFunc
	running   sync.WaitGroup
	inTransit atomic.Int64 // messages received and not yet prefetched

	mu       sync.Mutex
	keeper   *lease.Keeper[*leasedMessage]
	buffer   *lease.Buffer[*leasedMessage] // prefetched
	room     sync.Cond                     // there may be room for more messages
	draining bool                          // no more messages are requested
	failing  map[address]error             // of the entities that cannot be received from

	rate     triggers.Rate
	troubles triggers.Troubles
}

func newShared(cfg Config) *shared {
	t := &shared{cfg: cfg, log: cfg.Log.With("entity", cfg.paths()), entityCount: len(cfg.addresses()), failing: make(map[address]error)}
	t.room.L = &t.mu
	t.keeper, t.buffer = lease.NewKeeper[*leasedMessage](&t.mu), lease.NewBuffer[*leasedMessage](&t.mu)
	t.keeper.Record = cfg.Record
	t.buffer.Account, t.buffer.Request, t.buffer.Closed = cfg.Memory, t.room.Broadcast, errClosed
	cfg.Memory.OnFreed(t.buffer.Wake)
	t.ctx, t.stop = context.WithCancel(context.Background())
	return t
}

var errClosed = errors.New("the Service Bus trigger is closed")

// waiting returns the number of messages that a blocked Receive requests; t.mu is locked.
func (t *shared) waiting() int { return min(t.buffer.Waiting(), maxCredit) }

func (t *shared) roomChanged() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.room.Broadcast()
}

// fail makes the next Receive return err if no entity works; t.mu is not locked.
func (t *shared) fail(at address, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.failing[at]
	t.failing[at] = err
	if len(t.failing) < t.entityCount {
		if before == nil || before.Error() != err.Error() {
			t.log.Warn("cannot receive from one of several subscriptions; will try until it works", "subscription", at.subscription, "error", err)
		}
		return
	}
	t.buffer.Fail(err)
}

// works records that an entity works again.
func (t *shared) works(at address) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.failing, at)
}

// prefetchTarget returns the number of messages to prefetch; t.mu is locked.
func (t *shared) prefetchTarget() int {
	if t.draining {
		return 0
	}
	if t.cfg.Prefetch != PrefetchAuto {
		return min(t.cfg.Prefetch, maxCredit)
	}
	return min(t.rate.Ready(), maxCredit)
}

// untrack ends the renewal of a lease.
func (t *shared) untrack(l *leasedMessage) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keeper.Untrack(&l.Item)
	t.rate.Settled()
}

// Troubles implements triggers.Troubled.
func (t *shared) Troubles() []triggers.Trouble { return t.troubles.All() }

// noteDead reports a trouble if unreadable messages cannot be dead-lettered.
func (t *shared) noteDead(err error) {
	if err == nil {
		t.troubles.Clear(triggers.TroubleDeadLetters)
		return
	}
	t.troubles.Set(triggers.TroubleDeadLetters, fmt.Sprintf("messages that cannot be read cannot be moved to the dead letters: %v", err))
}
