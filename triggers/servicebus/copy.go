package servicebus

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/drover-run/drover/triggers"
)

// retryByCopy schedules a copy and then completes the message. A crash between the two
// duplicates the message, and never loses it.
func (l *leasedMessage) retryByCopy(ctx context.Context, m *triggers.Message, delay time.Duration) error {
	at := time.Now().Add(delay).Truncate(time.Millisecond) // which is what AMQP keeps
	sending, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	if err := l.e.schedule(sending, l.copy(m.Attempt, at)); err != nil {
		return fmt.Errorf("scheduling message %s of %s for its next attempt: %w", m.ID, l.e.path(), explain(err, send))
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
	expires := expiryOf(l.received)
	if expires.IsZero() || expires.After(at) {
		return false
	}
	l.e.t.log.Warn("message expires before its retry is due; give it a longer time to live, or lower retry.max",
		"message", l.message.ID, "expires", expires, "retry_at", at)
	return true
}

// copy returns the message as it was sent, for an attempt at a time.
func (l *leasedMessage) copy(failures int, at time.Time) *azservicebus.AMQPAnnotatedMessage {
	out := copyOf(l.received)
	out.ApplicationProperties[failuresProperty] = failuresOfCopy(failures, at)
	if out.MessageAnnotations == nil {
		out.MessageAnnotations = make(map[any]any)
	}
	out.MessageAnnotations[scheduledAnnotation] = at
	if expires := expiryOf(l.received); !expires.IsZero() {
		live(out, expires.Sub(at))
	}
	return out
}

// The annotations of a message that matter here. All that begin with annotationPrefix
// are the service's, but for the keys of partitions.
const (
	annotationPrefix    = "x-opt-"
	scheduledAnnotation = "x-opt-scheduled-enqueue-time"
)

var partitionAnnotations = map[any]bool{"x-opt-partition-key": true, "x-opt-via-partition-key": true}

// copyOf is a message as it was sent, to be sent again: all sections of it, with the
// values and types that they had, but what the service adds, and its times of creation
// and end.
func copyOf(m *azservicebus.ReceivedMessage) *azservicebus.AMQPAnnotatedMessage {
	out := &azservicebus.AMQPAnnotatedMessage{
		Body: azservicebus.AMQPAnnotatedMessageBody{Data: [][]byte{m.Body}}, ApplicationProperties: sent(m.ApplicationProperties),
		Properties: new(azservicebus.AMQPAnnotatedMessageProperties), Header: &azservicebus.AMQPAnnotatedMessageHeader{Durable: true},
	}
	if out.ApplicationProperties == nil {
		out.ApplicationProperties = make(map[string]any)
	}
	if raw := m.RawAMQPMessage; raw != nil {
		out.Body, out.Footer = raw.Body, raw.Footer
		out.MessageAnnotations, out.DeliveryAnnotations = ofSender(raw.MessageAnnotations), ofSender(raw.DeliveryAnnotations)
		if raw.Properties != nil {
			*out.Properties = *raw.Properties
		}
		if raw.Header != nil {
			out.Header.Priority = raw.Header.Priority
		}
	}
	out.Properties.AbsoluteExpiryTime, out.Properties.CreationTime = nil, nil
	out.Properties.MessageID = idOf(m)
	if ttl := ttlOf(m); ttl > 0 {
		live(out, ttl)
	}
	return out
}

// live sets how long a copy lives from when it can be received. What the header has no
// room for is the difference of two times, as in what Azure's SDKs send.
func live(out *azservicebus.AMQPAnnotatedMessage, ttl time.Duration) {
	if ttl = max(ttl, time.Millisecond); ttl <= maxHeaderTTL {
		out.Header.TTL = ttl
		out.Properties.CreationTime, out.Properties.AbsoluteExpiryTime = nil, nil
		return
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	end := now.Add(ttl)
	out.Header.TTL, out.Properties.CreationTime, out.Properties.AbsoluteExpiryTime = maxHeaderTTL, &now, &end
}

// ofSender are the annotations that are none of the service's.
func ofSender(annotations map[any]any) (out map[any]any) {
	for name, value := range annotations {
		if s, ok := name.(string); ok && strings.HasPrefix(s, annotationPrefix) && !partitionAnnotations[name] {
			continue
		}
		if out == nil {
			out = make(map[any]any, len(annotations))
		}
		out[name] = value
	}
	return out
}

// schedule sends a copy back to the queue.
func (e *entity) schedule(ctx context.Context, m *azservicebus.AMQPAnnotatedMessage) error {
	client := e.link.Load().client
	e.sending.Lock()
	if e.copies == nil || e.copiesBy != client {
		s, err := openSender(ctx, client, e.queue)
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
