package servicebus

import (
	"context"
	"errors"
	"fmt"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
)

// Sender sends messages to a queue or topic, many at a time, and counts those
// that the service has taken. It is used by one goroutine.
type Sender struct {
	client *azservicebus.Client
	sender *azservicebus.Sender
	entity string
	batch  *azservicebus.MessageBatch
	taken  int64
}

// NewSender returns a sender to a queue or topic.
func NewSender(connectionString, entity string) (*Sender, error) {
	client, err := azservicebus.NewClientFromConnectionString(connectionString, nil)
	if err != nil {
		return nil, fmt.Errorf("the connection string for %s: %w", entity, err)
	}
	sender, err := client.NewSender(entity, nil)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("sending to %s: %w", entity, err), client.Close(context.Background()))
	}
	return &Sender{client: client, sender: sender, entity: entity}, nil
}

// Send adds a message to those that are on their way; the error may be that of
// earlier ones.
func (s *Sender) Send(ctx context.Context, _ string, attributes map[string]string, body []byte) error {
	m := &azservicebus.Message{Body: body}
	if len(attributes) > 0 {
		m.ApplicationProperties = make(map[string]any, len(attributes))
		for name, value := range attributes {
			m.ApplicationProperties[name] = value
		}
	}
	for {
		if s.batch == nil {
			var err error
			if s.batch, err = s.sender.NewMessageBatch(ctx, nil); err != nil {
				return fmt.Errorf("sending to %s: %w", s.entity, explainSend(err))
			}
		}
		err := s.batch.AddMessage(m, nil)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, azservicebus.ErrMessageTooLarge) || s.batch.NumMessages() == 0:
			return fmt.Errorf("sending to %s a message of %d bytes: %w", s.entity, len(body), err)
		}
		if err := s.Flush(ctx); err != nil {
			return err
		}
	}
}

// Flush sends what is on its way, and returns when the service has it.
func (s *Sender) Flush(ctx context.Context) error {
	if s.batch == nil || s.batch.NumMessages() == 0 {
		return nil
	}
	if err := s.sender.SendMessageBatch(ctx, s.batch, nil); err != nil {
		return fmt.Errorf("sending to %s: %w", s.entity, explainSend(err))
	}
	s.taken += int64(s.batch.NumMessages())
	s.batch = nil
	return nil
}

// Taken returns how many messages the service has.
func (s *Sender) Taken() int64 { return s.taken }

// Close ends the connection; what was not flushed is not sent.
func (s *Sender) Close(ctx context.Context) error {
	if err := errors.Join(s.sender.Close(ctx), s.client.Close(ctx)); err != nil {
		return fmt.Errorf("closing the sender to %s: %w", s.entity, err)
	}
	return nil
}

// explainSend says what to do about an error.
func explainSend(err error) error {
	var e *azservicebus.Error
	if errors.As(err, &e) && e.Code == azservicebus.CodeUnauthorizedAccess {
		return fmt.Errorf("%w; the key or identity needs the right Send (Azure Service Bus Data Sender)", err)
	}
	return explain(err)
}
