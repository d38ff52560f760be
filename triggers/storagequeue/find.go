package storagequeue

import (
	"context"

	"github.com/drover-run/drover/triggers"
)

// maxPeeked is the most that the service shows: the first that could be had now.
const maxPeeked = 32

// Find implements triggers.Finder. What is hidden, since somebody has it, or it waits
// for its retry, the service does not show.
func (t *trigger) Find(ctx context.Context, id string) (triggers.Found, error) {
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
