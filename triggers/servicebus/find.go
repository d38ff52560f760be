package servicebus

import (
	"context"
	"fmt"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus/convert"
	"github.com/drover-run/drover/triggers/servicebus/namespace"
)

// maxSearched bounds the messages of an entity that a search reads.
const maxSearched = 1000

// Find implements triggers.Finder by peeking. Peeking does not distinguish locked messages,
// unless the service reports when their locks end. An entity with sessions can be searched only
// with a session.
func (t *trigger) Find(ctx context.Context, id string) (triggers.Found, error) {
	if t.cfg.Sessions {
		return triggers.Found{}, fmt.Errorf("%s has sessions: %w", t.cfg.paths(), triggers.ErrUnsearchable)
	}
	if found, has := t.own(id); has {
		return found, nil
	}
	for _, e := range t.entities {
		if found, err := e.find(ctx, id); err != nil || found.Place != "" {
			return found, err
		}
	}
	return triggers.Found{}, triggers.ErrNotFound
}

// own returns a message that this trigger has leased.
func (t *shared) own(id string) (found triggers.Found, has bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for l := range t.keeper.All() {
		if l.message.ID == id && !l.Lost() {
			return triggers.Found{Place: triggers.PlaceHeld, Ahead: -1, Failures: l.failures, Enqueued: l.message.Enqueued, Due: l.retryAt}, true
		}
	}
	return found, false
}

func (e *entity) find(ctx context.Context, id string) (triggers.Found, error) {
	from, ahead, page := int64(0), int64(0), 0
	for looked := 0; looked < maxSearched; {
		seen, err := namespace.PeekPage(ctx, e.current.Load().receiver, from, namespace.MaxPeek, &page)
		if err != nil {
			return triggers.Found{}, fmt.Errorf("searching for a message of %s: %w", e.path(), namespace.Explain(err, namespace.Listen))
		}
		for _, m := range seen {
			if convert.Text(convert.ID(m)) == id {
				return foundAs(m, ahead), nil
			}
			if m.State == azservicebus.MessageStateActive {
				ahead++
			}
			if m.SequenceNumber != nil {
				from = *m.SequenceNumber + 1
			}
		}
		if looked += len(seen); len(seen) == 0 {
			break
		}
	}
	return triggers.Found{}, nil
}

func foundAs(m *azservicebus.ReceivedMessage, ahead int64) triggers.Found {
	found := triggers.Found{Place: triggers.PlaceReady, Ahead: ahead, Doubtful: true, Failures: convert.Failures(m)}
	if m.EnqueuedTime != nil {
		found.Enqueued = *m.EnqueuedTime
	}
	if m.State != azservicebus.MessageStateActive { // scheduled or deferred
		found.Place, found.Ahead, found.Doubtful = triggers.PlaceLater, -1, false
		if m.ScheduledEnqueueTime != nil {
			found.Due = *m.ScheduledEnqueueTime
		}
	} else if m.LockedUntil != nil && m.LockedUntil.After(time.Now()) {
		found.Place, found.Ahead, found.Doubtful = triggers.PlaceLeased, -1, false
	}
	return found
}
