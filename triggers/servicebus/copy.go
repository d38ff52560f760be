package servicebus

import (
	"context"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/drover-run/drover/triggers/servicebus/convert"
	"github.com/drover-run/drover/triggers/servicebus/namespace"
)

// copyOf returns a copy of a message as it was sent, for an attempt at the given time.
func copyOf(m *azservicebus.ReceivedMessage, failures int, at time.Time) *azservicebus.AMQPAnnotatedMessage {
	out := convert.Copy(m)
	out.ApplicationProperties[convert.FailuresProperty] = convert.FailuresOfCopy(failures, at)
	if out.MessageAnnotations == nil {
		out.MessageAnnotations = make(map[any]any)
	}
	out.MessageAnnotations[convert.ScheduledAnnotation] = at
	if expires := convert.Expiry(m); !expires.IsZero() {
		convert.SetTTL(out, expires.Sub(at))
	}
	return out
}

// copySender sends scheduled copies back to the queue. It is safe for concurrent use.
type copySender struct {
	mu     sync.Mutex
	sender *azservicebus.Sender
	by     *azservicebus.Client // of sender
}

// schedule sends a copy. A client that differs from the last one gets a sender of its own.
func (c *copySender) schedule(ctx context.Context, client *azservicebus.Client, queue string, m *azservicebus.AMQPAnnotatedMessage) error {
	c.mu.Lock()
	if c.sender == nil || c.by != client {
		s, err := namespace.OpenSender(ctx, client, queue)
		if err != nil {
			c.mu.Unlock()
			return err
		}
		c.sender, c.by = s, client
	}
	s := c.sender
	c.mu.Unlock()
	return s.SendAMQPAnnotatedMessage(ctx, m, nil)
}
