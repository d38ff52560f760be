package servicebus

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/drover-run/drover/triggers"
)

// copyable reports whether a copy of the message would be the same.
func (l *loan) copyable() bool {
	raw := l.received.RawAMQPMessage
	return raw == nil || len(raw.Body.Data) == 1
}

// retryByCopy sends a copy for later and then completes the message: a crash
// between the two makes two of one, and never none.
func (l *loan) retryByCopy(ctx context.Context, m *triggers.Message, delay time.Duration) error {
	sending, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	if err := l.e.schedule(sending, l.copy(m.Attempt, time.Now().Add(delay))); err != nil {
		return fmt.Errorf("scheduling message %s of %s for its next attempt: %w", m.ID, l.e.path(), explain(err, send))
	}
	err := l.end(ctx, m, triggers.Verdict{Kind: triggers.Done})
	l.e.t.forget(l)
	if err != nil {
		// It must not be sent again.
		l.e.t.log.Warn("a message was copied for its next attempt and could not be completed; it will run twice", "message", m.ID, "error", err)
	}
	return nil
}

func (l *loan) copy(failures int, at time.Time) *azservicebus.Message {
	r := l.received
	out := &azservicebus.Message{
		Body: l.message.Body, ApplicationProperties: maps.Clone(r.ApplicationProperties), MessageID: &r.MessageID,
		ContentType: r.ContentType, CorrelationID: r.CorrelationID, PartitionKey: r.PartitionKey,
		ReplyTo: r.ReplyTo, ReplyToSessionID: r.ReplyToSessionID, Subject: r.Subject, To: r.To, ScheduledEnqueueTime: &at,
	}
	if out.ApplicationProperties == nil {
		out.ApplicationProperties = make(map[string]any)
	}
	out.ApplicationProperties[failuresProperty] = int64(failures)
	if r.TimeToLive != nil && r.ExpiresAt != nil {
		left := max(r.ExpiresAt.Sub(at), time.Millisecond)
		out.TimeToLive = &left
	}
	return out
}

// schedule sends a copy back to the queue.
func (e *entity) schedule(ctx context.Context, m *azservicebus.Message) error {
	client := e.link.Load().client
	e.sending.Lock()
	if e.copies == nil || e.copiesBy != client {
		s, err := client.NewSender(e.queue, nil)
		if err != nil {
			e.sending.Unlock()
			return err
		}
		e.copies, e.copiesBy = s, client
	}
	s := e.copies
	e.sending.Unlock()
	return s.SendMessage(ctx, m, nil)
}
