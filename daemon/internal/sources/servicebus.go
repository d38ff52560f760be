package sources

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/dispatch"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/lease/record"
	"github.com/drover-run/drover/triggers/servicebus"
	"github.com/drover-run/drover/triggers/servicebus/deadletters"
)

// closeLimit bounds the closing of a sender or a peeker.
const closeLimit = 10 * time.Second

// bus is Azure Service Bus. A Set shares nothing of it: each trigger and sender has an AMQP
// connection of its own.
type bus struct{}

func (bus) sourceOf(t configs.Trigger) source {
	if t.ServiceBus == nil {
		return nil
	}
	return busSource{t.ServiceBus}
}

func (bus) outputOf(o configs.Output) output {
	if o.ServiceBus == nil {
		return nil
	}
	return busOutput{o.ServiceBus}
}

func (bus) connectionOf(c Config, name string) connection {
	if !c.Settings.Connections[name].ServiceBus() {
		return nil
	}
	return busConnection{c, name}
}

// busAccess returns the access to a Service Bus namespace that a connection describes.
func busAccess(name string, c configs.Connection) (*servicebus.Access, error) {
	out := &servicebus.Access{Namespace: c.Namespace, Endpoint: c.Endpoint}
	var err error
	if out.TLS, err = ownRoots(name, c); err != nil {
		return nil, err
	}
	if c.Namespace == "" {
		out.ConnectionString = c.ReadConnectionString
		return out, nil
	}
	out.Credential, err = azureCredential(name, c)
	return out, err
}

// busSender opens a sender to a queue or topic.
func busSender(access *servicebus.Access, entity string) dispatch.OpenSender {
	return func(context.Context) (dispatch.Sender, func() error, error) {
		s, err := servicebus.NewSender(access, entity)
		if err != nil {
			return nil, nil, err
		}
		return s, func() error {
			ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
			defer cancel()
			return s.Close(ctx)
		}, nil
	}
}

// busSource is the queue, or the subscriptions of a topic, of a function.
type busSource struct{ *configs.ServiceBusTrigger }

// entityName is the name of the queue or topic.
func (b busSource) entityName() string { return b.Queue + b.Topic } // one of them is empty

func (b busSource) messageTraits() Traits {
	e := dispatch.Entity{System: semconv.MessagingSystemServiceBus.Value.AsString(), Name: b.entityName(), Disposition: busDisposition}
	if len(b.Subscription) == 1 && b.Topic != "" {
		e.Attributes = append(e.Attributes, semconv.MessagingDestinationSubscriptionName(b.Subscription[0]))
	}
	return Traits{
		Entity: e, Target: Target{Connection: b.Connection, Address: b.entityName()},
		KeyedOrder: b.Sessions, SessionState: b.SessionState,
	}
}

// busDisposition returns the term of Service Bus for a verdict.
func busDisposition(kind triggers.Kind) attribute.KeyValue {
	switch kind {
	case triggers.Done:
		return semconv.MessagingServiceBusDispositionStatusComplete
	case triggers.Reject:
		return semconv.MessagingServiceBusDispositionStatusDeadLetter
	}
	return semconv.MessagingServiceBusDispositionStatusAbandon
}

func (b busSource) openTrigger(ctx context.Context, s *Set, t TriggerConfig) (triggers.Trigger, error) {
	access, err := busAccess(b.Connection, s.Settings.Connections[b.Connection])
	if err != nil {
		return nil, err
	}
	attempts := t.Settings.Retry.MaxAttempts
	if b.Unchecked {
		attempts = 0
	}
	return servicebus.Open(ctx, servicebus.Config{
		Access: access, Queue: b.Queue, Topic: b.Topic, Subscriptions: b.Subscription, Create: b.Create, Record: b.recordLocks(s, t),
		Sessions: b.Sessions, Together: t.Settings.Batch.Size, MaxSessions: b.MaxSessions, SessionIdle: b.SessionIdle.D(), SessionTurn: b.SessionTurn.D(),
		MaxLockRenewal: b.MaxLockRenewal.D(), MaxIdle: b.MaxIdle.D(), Prefetch: int(t.Settings.Prefetch),
		Scheduled: t.Settings.Retry.Mode == "scheduled", MaxAttempts: attempts, CountDeliveries: b.CountDeliveries, Memory: t.Memory, Log: t.Log,
	})
}

// recordLocks returns where the locks of messages are recorded. Those of sessions are not: they end with
// their links.
func (b busSource) recordLocks(s *Set, t TriggerConfig) *record.Source {
	if b.Sessions {
		return nil
	}
	return shareRecord(s, t).Source(fmt.Sprint("service bus ", b.Connection, " ", b.Queue, b.Topic, b.Subscription))
}

func (b busSource) openPeeker(ctx context.Context, c Config) (triggers.Peeker, func() error, error) {
	access, err := busAccess(b.Connection, c.Settings.Connections[b.Connection])
	if err != nil {
		return nil, nil, err
	}
	p, err := servicebus.OpenPeeker(servicebus.PeekConfig{
		Access: access, Queue: b.Queue, Topic: b.Topic, Subscriptions: b.Subscription, Sessions: b.Sessions, Log: c.Log,
	})
	if err != nil {
		return nil, nil, err
	}
	return p, func() error {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeLimit)
		defer cancel()
		return p.Close(closing)
	}, nil
}

func (b busSource) openDeadLetters(_ context.Context, c Config, shared bool) (triggers.DeadLetters, func() error, error) {
	access, err := busAccess(b.Connection, c.Settings.Connections[b.Connection])
	if err != nil {
		return nil, nil, err
	}
	d, err := deadletters.Open(deadletters.Config{
		Access: access, Queue: b.Queue, Topic: b.Topic, Subscriptions: b.Subscription, Sessions: b.Sessions, Shared: shared,
	})
	return d, func() error { return nil }, err
}

// busOutput is a queue or topic that results are sent to.
type busOutput struct{ *configs.ServiceBusOutput }

func (b busOutput) openOutput(_ context.Context, s *Set) (dispatch.OutputConfig, error) {
	access, err := busAccess(b.Connection, s.Settings.Connections[b.Connection])
	if err != nil {
		return dispatch.OutputConfig{}, err
	}
	entity := b.Queue + b.Topic // one of them is empty
	return dispatch.OutputConfig{
		Open: busSender(access, entity), Lanes: 1,
		Entity: dispatch.Entity{System: semconv.MessagingSystemServiceBus.Value.AsString(), Name: entity},
	}, nil
}

// busConnection is a namespace.
type busConnection struct {
	Config
	name string
}

func (busConnection) shareConnection(context.Context, *Set) error { return nil }

func (busConnection) acceptedParts() Accepts {
	return Accepts{Name: "Service Bus", Headers: true, Sessions: true, Property: func(string) bool { return true }}
}

func (b busConnection) openSender(ctx context.Context, to Target, _ SendOptions) (dispatch.Sender, func() error, error) {
	open, err := b.shareSender(ctx, nil, to)
	if err != nil {
		return nil, nil, err
	}
	return open(ctx)
}

func (b busConnection) shareSender(_ context.Context, _ *Set, to Target) (dispatch.OpenSender, error) {
	access, err := busAccess(b.name, b.Settings.Connections[b.name])
	if err != nil {
		return nil, err
	}
	return busSender(access, to.Address), nil
}
