package broker

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/drover-run/drover/triggers/servicebus/emulator/codec"
)

// Controls creates, deletes and counts the entities of a namespace, and injects faults. Its methods
// take the namespace's lock, and are safe for concurrent use.
type Controls struct{ n *Namespace }

// NewControls returns the controls of a namespace.
func NewControls(n *Namespace) Controls { return Controls{n} }

// The names that the service accepts.
var (
	goodPath = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._/~-]{0,258}[A-Za-z0-9_])?$`)
	goodName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,48}[A-Za-z0-9_])?$`)
)

var (
	// ErrExists means that an entity with this name exists.
	ErrExists = errors.New("the entity exists already")
	// ErrNotFound means that the entity does not exist.
	ErrNotFound = errors.New("the entity does not exist")
)

// CreateQueue creates a queue.
func (c Controls) CreateQueue(path string, o QueueOptions) error {
	if !goodPath.MatchString(path) {
		return fmt.Errorf("%q is not a name of a queue: letters, digits, . - _ ~ and /, at most 260", path)
	}
	c.n.Lock()
	defer c.n.Unlock()
	key := strings.ToLower(path)
	if c.n.queues[key] != nil || c.n.topics[key] != nil {
		return fmt.Errorf("%s: %w", path, ErrExists)
	}
	c.n.queues[key] = c.n.newQueue(path, o)
	return nil
}

// CreateTopic creates a topic.
func (c Controls) CreateTopic(path string) error {
	if !goodPath.MatchString(path) {
		return fmt.Errorf("%q is not a name of a topic: letters, digits, . - _ ~ and /, at most 260", path)
	}
	c.n.Lock()
	defer c.n.Unlock()
	key := strings.ToLower(path)
	if c.n.queues[key] != nil || c.n.topics[key] != nil {
		return fmt.Errorf("%s: %w", path, ErrExists)
	}
	c.n.topics[key] = &Topic{clock: &c.n.clock, log: c.n.log, path: path, Created: c.n.clock.now(), subscriptions: make(map[string]*Queue), scheduled: make(map[int64]*codec.Message)}
	return nil
}

// CreateSubscription creates a subscription, which gets all later messages of the topic: there are
// no filters.
func (c Controls) CreateSubscription(topicPath, name string, o QueueOptions) error {
	if !goodName.MatchString(name) {
		return fmt.Errorf("%q is not a name of a subscription: letters, digits, . - and _, at most 50", name)
	}
	c.n.Lock()
	defer c.n.Unlock()
	t := c.n.topics[strings.ToLower(topicPath)]
	if t == nil {
		return fmt.Errorf("%s: %w", topicPath, ErrNotFound)
	}
	if t.subscriptions[strings.ToLower(name)] != nil {
		return fmt.Errorf("%s of %s: %w", name, topicPath, ErrExists)
	}
	q := c.n.newQueue(t.path+"/Subscriptions/"+name, o)
	t.subscriptions[strings.ToLower(name)] = q
	c.n.queues[strings.ToLower(q.Path)] = q
	return nil
}

// Delete removes a queue, a topic with its subscriptions, or a subscription
// (topic/Subscriptions/name), and ends the links to it.
func (c Controls) Delete(path string) error {
	c.n.Lock()
	defer c.n.Unlock()
	key := strings.ToLower(strings.Trim(path, "/"))
	var gone []*Queue
	if t := c.n.topics[key]; t != nil {
		delete(c.n.topics, key)
		for _, q := range t.subscriptions {
			gone = append(gone, q)
		}
	} else if q := c.n.queues[key]; q != nil {
		gone = append(gone, q)
		if parent, name, found := strings.Cut(key, "/subscriptions/"); found && c.n.topics[parent] != nil {
			delete(c.n.topics[parent].subscriptions, name)
		}
	} else {
		return fmt.Errorf("%s: %w", path, ErrNotFound)
	}
	for _, q := range gone {
		delete(c.n.queues, strings.ToLower(q.Path))
		cond := codec.Failure(codec.CondNotFound, "The messaging entity '%s' has been deleted.", q.Path)
		q.detachReceivers(cond)
		q.dead.detachReceivers(cond)
	}
	return nil
}

// Counts are the messages of a queue or subscription, by state.
type Counts struct{ Active, Locked, Deferred, Scheduled, DeadLettered int }

// Counts returns the number of messages of a queue, a subscription, or the dead letters of one.
func (c Controls) Counts(path string) (Counts, error) {
	c.n.Lock()
	defer c.n.Unlock()
	q, cond := c.n.Queue(path)
	if cond != nil {
		return Counts{}, fmt.Errorf("%s: %w", path, ErrNotFound)
	}
	out := Counts{Locked: len(q.locks.byToken), Deferred: len(q.deferred), Scheduled: len(q.scheduled)}
	for _, s := range q.sessions {
		out.Active += len(s.entries)
	}
	if q.dead != nil {
		out.DeadLettered = len(q.dead.entries())
	}
	return out, nil
}

// SetDisabled makes a queue or subscription refuse senders and receivers, or accept them again.
func (c Controls) SetDisabled(path string, disabled bool) error {
	c.n.Lock()
	defer c.n.Unlock()
	q, cond := c.n.Queue(path)
	if cond != nil {
		return fmt.Errorf("%s: %w", path, ErrNotFound)
	}
	q.Options.Disabled = disabled
	if disabled {
		q.detachReceivers(codec.Failure(codec.CondDisabled, "Messaging entity '%s' is currently disabled.", q.Path))
	}
	return nil
}

// DetachReceivers ends the links of an entity's receivers, as the service does after a long idle
// time.
func (c Controls) DetachReceivers(path string) error {
	return c.eachReceiver(path, func(r *Receiver) {
		r.link.Detach(codec.Failure(codec.CondDetachForced, "The link '%s' is force detached. Code: consumer. Details: AmqpMessageConsumer.IdleTimerExpired: Idle timeout: 00:10:00.", r.name))
	})
}

// Deafen stops deliveries to the receivers of an entity, without an error.
func (c Controls) Deafen(path string) error {
	return c.eachReceiver(path, func(r *Receiver) { r.deaf = true })
}

func (c Controls) eachReceiver(path string, do func(*Receiver)) error {
	return c.withQueue(path, func(q *Queue) {
		for _, r := range slices.Clone(q.receivers) {
			do(r)
		}
	})
}

// Garble makes the next n deliveries of an entity invalid AMQP messages.
func (c Controls) Garble(path string, n int) error {
	return c.withQueue(path, func(q *Queue) { q.garbled = n })
}

// WrongTags gives the next n deliveries of an entity a delivery tag that is not a lock token.
func (c Controls) WrongTags(path string, n int) error {
	return c.withQueue(path, func(q *Queue) { q.untagged = n })
}

// Usage returns the counts of an entity's messages.
func (c Controls) Usage(path string) (out Usage, err error) {
	err = c.withQueue(path, func(q *Queue) { out = q.usage })
	return out, err
}

func (c Controls) withQueue(path string, do func(*Queue)) error {
	c.n.Lock()
	defer c.n.Unlock()
	q, cond := c.n.Queue(path)
	if cond != nil {
		return cond
	}
	do(q)
	return nil
}
