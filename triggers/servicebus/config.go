package servicebus

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/lease/record"
	"github.com/drover-run/drover/triggers/servicebus/namespace"
)

// Access describes how to connect to a namespace.
type Access = namespace.Access

// Config is the configuration of a trigger. Either Queue, or Topic and Subscriptions, is set.
type Config struct {
	Access        *Access
	Queue         string
	Topic         string
	Subscriptions []string

	// Sessions handles the messages of each session one at a time, in order.
	Sessions bool
	// Together is how many messages of a session Receive may return together, for functions that take
	// batches; the contract is triggers.OrderedTogether. 0: one.
	Together int
	// MaxSessions bounds the sessions locked at a time, per entity; at least 1.
	MaxSessions int
	// SessionIdle is how long a session without messages stays locked while fewer than
	// MaxSessions are locked. SessionTurn is how long a session with messages stays locked while
	// other sessions may wait.
	SessionIdle, SessionTurn time.Duration

	// MaxLockRenewal is how long after its receipt a message's lock is renewed;
	// 0 is until it is settled.
	MaxLockRenewal time.Duration
	// MaxIdle is the time without a message after which a receiver is reopened; 0 is never.
	MaxIdle time.Duration
	// Prefetch is how many messages are locked beyond those that a Receive requests, or
	// PrefetchAuto. Sessions do not prefetch.
	Prefetch int
	// Memory bounds the prefetched bytes; nil is no bound.
	Memory *triggers.Account
	// Scheduled retries by a scheduled copy instead of holding the message. It is for
	// queues without sessions and without duplicate detection.
	Scheduled bool
	// Create creates missing entities.
	Create bool
	// MaxAttempts must be below the service's limit of deliveries, if that can be read; 0
	// disables the check.
	MaxAttempts int
	// CountDeliveries makes each delivery an attempt, as at the Azure Functions host.
	CountDeliveries bool
	// Record has the locks for the next daemon; nil, as with sessions, records none.
	Record *record.Source
	Log    *slog.Logger
}

// PrefetchAuto prefetches as many messages as are settled in a tenth of a second, as measured.
const PrefetchAuto = -1

// paths returns the paths of the entities, for logs and errors.
func (c Config) paths() string {
	if c.Queue != "" {
		return c.Queue
	}
	if len(c.Subscriptions) == 1 {
		return c.Topic + "/Subscriptions/" + c.Subscriptions[0]
	}
	return fmt.Sprintf("%s/Subscriptions/%v", c.Topic, c.Subscriptions)
}

// addresses returns where the entities are.
func (c Config) addresses() (out []address) {
	if c.Queue != "" {
		return []address{{queue: c.Queue}}
	}
	for _, name := range c.Subscriptions {
		out = append(out, address{topic: c.Topic, subscription: name})
	}
	return out
}

// address is where an entity is: a queue, or a subscription of a topic.
type address struct{ queue, topic, subscription string }

func (a address) path() string {
	if a.queue != "" {
		return a.queue
	}
	return a.topic + "/Subscriptions/" + a.subscription
}
