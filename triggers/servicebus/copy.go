package servicebus

import (
	"context"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/drover-run/drover/triggers/servicebus/namespace"
)

// copySender sends scheduled copies back to the queue. It is safe for concurrent use.
type copySender struct {
	mu     sync.Mutex
	sender *azservicebus.Sender
	by     *azservicebus.Client // of sender
}

// schedule sends a copy. A client that differs from the last one gets its own sender.
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
