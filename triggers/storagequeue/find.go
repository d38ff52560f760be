package storagequeue

import (
	"context"

	"github.com/drover-run/drover/triggers"
)

// maxPeeked is the largest number of messages that the service shows: the ones at the front.
const maxPeeked = 32

// Find implements triggers.Finder. The service does not show hidden messages: those that
// another receiver has leased, or that wait for their retry.
func (t *trigger) Find(ctx context.Context, id string) (triggers.Found, error) {
	if found, has := t.own(id); has {
		return found, nil
	}
	seen, err := t.queue.peek(ctx, maxPeeked)
	if err != nil {
		return triggers.Found{}, err
	}
	for n, m := range seen {
		if deref(m.MessageID) != id {
			continue
		}
		failures, err := t.cfg.Ledger.failures(t.key, id)
		if err != nil {
			failures = -1
		}
		return triggers.Found{Place: triggers.PlaceReady, Ahead: int64(n), Failures: failures, Enqueued: deref(m.InsertionTime)}, nil
	}
	return triggers.Found{}, triggers.ErrNotFound
}

// own returns a message that this trigger has leased.
func (t *shared) own(id string) (found triggers.Found, has bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for l := range t.keeper.All() {
		if l.message.ID == id && !l.Lost() {
			return triggers.Found{Place: triggers.PlaceHeld, Ahead: -1, Failures: l.failures, Enqueued: l.message.Enqueued}, true
		}
	}
	return found, false
}
