package servicebus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus/namespace"
)

// Sender sends messages to a queue or topic in batches, and counts those that the service has
// accepted. It is used by one goroutine.
type Sender struct {
	client *azservicebus.Client
	sender *azservicebus.Sender
	entity string
	batch  *azservicebus.MessageBatch
	taken  int64
}

// NewSender returns a sender for a queue or topic.
func NewSender(access *Access, entity string) (*Sender, error) {
	client, err := access.Client()
	if err != nil {
		return nil, fmt.Errorf("sending to %s: %w", entity, err)
	}
	sender, err := client.NewSender(entity, nil)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("sending to %s: %w", entity, err), client.Close(context.Background()))
	}
	return &Sender{client: client, sender: sender, entity: entity}, nil
}

// Send adds a message to the current batch, and sends full batches. The error may be that of
// earlier messages. Send uses ID (if set), Body, Attributes, OrderingKey (the session) and
// Properties.
func (s *Sender) Send(ctx context.Context, out *triggers.Message) error {
	m, err := newMessage(out)
	if err != nil {
		return fmt.Errorf("sending to %s: %w", s.entity, err)
	}
	for {
		if s.batch == nil {
			var err error
			if s.batch, err = s.sender.NewMessageBatch(ctx, nil); err != nil {
				return fmt.Errorf("sending to %s: %w", s.entity, namespace.Explain(err, namespace.Send))
			}
		}
		err := s.batch.AddMessage(m, nil)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, azservicebus.ErrMessageTooLarge) || s.batch.NumMessages() == 0:
			if errors.Is(err, azservicebus.ErrMessageTooLarge) {
				err = fmt.Errorf("%w for the namespace: 256 KiB in the standard tier, 100 MB in the premium one", triggers.ErrTooLarge)
			}
			return fmt.Errorf("sending to %s a message of %d bytes: %w", s.entity, len(out.Body), err)
		}
		if err := s.Flush(ctx); err != nil {
			return err
		}
	}
}

// newMessage converts a message. The error is a triggers.ErrProperty.
func newMessage(out *triggers.Message) (*azservicebus.Message, error) {
	m := &azservicebus.Message{Body: out.Body}
	if out.ID != "" {
		m.MessageID = &out.ID
	}
	if out.OrderingKey != "" {
		m.SessionID = &out.OrderingKey
	}
	if len(out.Attributes) > 0 {
		m.ApplicationProperties = make(map[string]any, len(out.Attributes))
		for name, value := range out.Attributes {
			m.ApplicationProperties[name] = value
		}
	}
	known := out.Properties()
	for name, field := range map[string]**string{
		triggers.ContentType: &m.ContentType, triggers.CorrelationID: &m.CorrelationID, triggers.ReplyTo: &m.ReplyTo,
		triggers.ReplyToSession: &m.ReplyToSessionID, triggers.To: &m.To, triggers.PartitionKey: &m.PartitionKey, triggers.Subject: &m.Subject,
	} {
		if value, given := known[name]; given {
			*field = &value
		}
	}
	at, life, err := triggers.ReadSchedule(known)
	if err != nil {
		return nil, err
	}
	if !at.IsZero() {
		m.ScheduledEnqueueTime = &at
	}
	if life > 0 {
		m.TimeToLive = &life
	}
	return m, addTyped(m, known[triggers.ApplicationProperties])
}

// addTyped adds application properties that are not strings: a JSON object of numbers, booleans and
// nulls.
func addTyped(m *azservicebus.Message, text string) error {
	if text == "" {
		return nil
	}
	var all map[string]any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&all); err != nil {
		return fmt.Errorf("%w: %s is no JSON object: %w", triggers.ErrProperty, triggers.ApplicationProperties, err)
	}
	for name, value := range all {
		switch v := value.(type) {
		case json.Number:
			if n, err := v.Int64(); err == nil {
				value = n
			} else if value, err = v.Float64(); err != nil {
				return fmt.Errorf("%w: the application property %s is %s, which is not a 64-bit number", triggers.ErrProperty, name, v)
			}
		case map[string]any, []any:
			return fmt.Errorf("%w: the application property %s is an object or a list; Service Bus has texts, numbers and booleans", triggers.ErrProperty, name)
		}
		if m.ApplicationProperties == nil {
			m.ApplicationProperties = make(map[string]any, len(all))
		}
		m.ApplicationProperties[name] = value
	}
	return nil
}

// Flush sends pending messages, and returns when the service has accepted them. Messages that it
// could not send are dropped.
func (s *Sender) Flush(ctx context.Context) error {
	if s.batch == nil || s.batch.NumMessages() == 0 {
		return nil
	}
	batch := s.batch
	s.batch = nil
	if err := s.sender.SendMessageBatch(ctx, batch, nil); err != nil {
		return fmt.Errorf("sending to %s: %w", s.entity, namespace.Explain(err, namespace.Send))
	}
	s.taken += int64(batch.NumMessages())
	return nil
}

// ConfirmedCount returns the number of messages that the service has accepted.
func (s *Sender) ConfirmedCount() int64 { return s.taken }

// Close closes the connection. Messages that were not flushed are not sent.
func (s *Sender) Close(ctx context.Context) error {
	if err := errors.Join(s.sender.Close(ctx), s.client.Close(ctx)); err != nil {
		return fmt.Errorf("closing the sender to %s: %w", s.entity, err)
	}
	return nil
}
