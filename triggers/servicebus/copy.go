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

// retryByCopy schedules a copy and then completes the message. A crash between the two
// duplicates the message, and never loses it.
func (l *leasedMessage) retryByCopy(ctx context.Context, m *triggers.Message, delay time.Duration) error {
	at := time.Now().Add(delay).Truncate(time.Millisecond) // the resolution of AMQP
	sending, cancel := context.WithTimeout(ctx, namespace.SettleLimit)
	defer cancel()
	if err := l.e.schedule(sending, l.copy(m.Attempt, at)); err != nil {
		return fmt.Errorf("scheduling message %s of %s for its next attempt: %w", m.ID, l.e.path(), namespace.Explain(err, namespace.Send))
	}
	err := l.end(ctx, m, triggers.Verdict{Kind: triggers.Done})
	l.e.t.untrack(l)
	if err != nil {
		// The copy must not be sent again.
		l.e.t.log.Warn("a message was copied for its next attempt and could not be completed; it will run twice", "message", m.ID, "error", err)
	}
	return nil
}

// expiresBefore reports whether the message expires before a retry is due, and logs it.
func (l *leasedMessage) expiresBefore(at time.Time) bool {
	expires := convert.Expiry(l.received)
	if expires.IsZero() || expires.After(at) {
		return false
	}
	l.e.t.log.Warn("message expires before its retry is due; give it a longer time to live, or lower retry.max",
		"message", l.message.ID, "expires", expires, "retry_at", at)
	return true
}

// copy returns a copy of the message as it was sent, for an attempt at the given time.
func (l *leasedMessage) copy(failures int, at time.Time) *azservicebus.AMQPAnnotatedMessage {
	out := convert.Copy(l.received)
	out.ApplicationProperties[convert.FailuresProperty] = convert.FailuresOfCopy(failures, at)
	if out.MessageAnnotations == nil {
		out.MessageAnnotations = make(map[any]any)
	}
	out.MessageAnnotations[convert.ScheduledAnnotation] = at
	if expires := convert.Expiry(l.received); !expires.IsZero() {
		convert.SetTTL(out, expires.Sub(at))
	}
	return out
}

// schedule sends a copy back to the queue.
func (e *entity) schedule(ctx context.Context, m *azservicebus.AMQPAnnotatedMessage) error {
	client := e.link.Load().client
	e.sending.Lock()
	if e.copies == nil || e.copiesBy != client {
		s, err := namespace.OpenSender(ctx, client, e.queue)
		if err != nil {
			e.sending.Unlock()
			return err
		}
		e.copies, e.copiesBy = s, client
	}
	s := e.copies
	e.sending.Unlock()
	return s.SendAMQPAnnotatedMessage(ctx, m, nil)
}
