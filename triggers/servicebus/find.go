package servicebus

import (
	"context"
	"fmt"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/drover-run/drover/triggers"
)

// maxSearched is how many messages of an entity are looked at for one.
const maxSearched = 1000

// Find implements triggers.Finder, by peeking: what is locked is shown, too. In
// entities with sessions nothing can be looked for without one.
func (t *trigger) Find(ctx context.Context, id string) (triggers.Found, error) {
	if t.cfg.Sessions {
		return triggers.Found{}, fmt.Errorf("with sessions: %w", triggers.ErrUnknown)
	}
	for _, e := range t.entities {
		if found, err := e.find(ctx, id); err != nil || found.Place != "" {
			return found, err
		}
	}
	return triggers.Found{}, triggers.ErrNotFound
}

func (e *entity) find(ctx context.Context, id string) (triggers.Found, error) {
	from, ahead := int64(0), int64(0)
	for range maxSearched / maxPeek {
		seen, err := e.link.Load().receiver.PeekMessages(ctx, maxPeek, &azservicebus.PeekMessagesOptions{FromSequenceNumber: &from})
		if err != nil {
			return triggers.Found{}, fmt.Errorf("looking for a message of %s: %w", e.path(), explain(err, listen))
		}
		for _, m := range seen {
			if m.MessageID == id {
				return e.foundAs(m, ahead), nil
			}
			if m.State == azservicebus.MessageStateActive {
				ahead++
			}
			if m.SequenceNumber != nil {
				from = *m.SequenceNumber + 1
			}
		}
		if len(seen) == 0 {
			break
		}
	}
	return triggers.Found{}, nil
}

func (e *entity) foundAs(m *azservicebus.ReceivedMessage, ahead int64) triggers.Found {
	found := triggers.Found{Place: triggers.PlaceReady, Ahead: ahead, Failures: failuresOf(m)}
	if m.EnqueuedTime != nil {
		found.Enqueued = *m.EnqueuedTime
	}
	if m.State == azservicebus.MessageStateScheduled {
		found.Place, found.Ahead = triggers.PlaceLater, -1
		if m.ScheduledEnqueueTime != nil {
			found.Due = *m.ScheduledEnqueueTime
		}
	}
	return found
}
