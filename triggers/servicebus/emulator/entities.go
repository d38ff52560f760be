package emulator

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// The names that the service takes.
var (
	goodPath = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._/~-]{0,258}[A-Za-z0-9_])?$`)
	goodName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,48}[A-Za-z0-9_])?$`)
)

var (
	// ErrExists says that an entity of this name is there.
	ErrExists = errors.New("the entity exists already")
	// ErrNotFound says that it is not.
	ErrNotFound = errors.New("the entity does not exist")
)

// CreateQueue makes a queue.
func (e *Emulator) CreateQueue(path string, o QueueOptions) error {
	if !goodPath.MatchString(path) {
		return fmt.Errorf("%q is no name of a queue: letters, digits, . - _ ~ and /, at most 260", path)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	key := strings.ToLower(path)
	if e.queues[key] != nil || e.topics[key] != nil {
		return fmt.Errorf("%s: %w", path, ErrExists)
	}
	e.queues[key] = e.newQueue(path, o)
	return nil
}

// CreateTopic makes a topic.
func (e *Emulator) CreateTopic(path string) error {
	if !goodPath.MatchString(path) {
		return fmt.Errorf("%q is no name of a topic: letters, digits, . - _ ~ and /, at most 260", path)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	key := strings.ToLower(path)
	if e.queues[key] != nil || e.topics[key] != nil {
		return fmt.Errorf("%s: %w", path, ErrExists)
	}
	e.topics[key] = &topic{path: path, created: e.now(), subscriptions: make(map[string]*queue), scheduled: make(map[int64]*message)}
	return nil
}

// CreateSubscription makes a subscription, which gets all that the topic gets
// from now on: there are no filters.
func (e *Emulator) CreateSubscription(topicPath, name string, o QueueOptions) error {
	if !goodName.MatchString(name) {
		return fmt.Errorf("%q is no name of a subscription: letters, digits, . - and _, at most 50", name)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	t := e.topics[strings.ToLower(topicPath)]
	if t == nil {
		return fmt.Errorf("%s: %w", topicPath, ErrNotFound)
	}
	if t.subscriptions[strings.ToLower(name)] != nil {
		return fmt.Errorf("%s of %s: %w", name, topicPath, ErrExists)
	}
	q := e.newQueue(t.path+"/Subscriptions/"+name, o)
	t.subscriptions[strings.ToLower(name)] = q
	e.queues[strings.ToLower(q.path)] = q
	return nil
}

// Delete removes a queue, a topic with its subscriptions, or a subscription
// (topic/Subscriptions/name), and ends the links to it.
func (e *Emulator) Delete(path string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	key := strings.ToLower(strings.Trim(path, "/"))
	var gone []*queue
	if t := e.topics[key]; t != nil {
		delete(e.topics, key)
		for _, q := range t.subscriptions {
			gone = append(gone, q)
		}
	} else if q := e.queues[key]; q != nil {
		gone = append(gone, q)
		if parent, name, found := strings.Cut(key, "/subscriptions/"); found && e.topics[parent] != nil {
			delete(e.topics[parent].subscriptions, name)
		}
	} else {
		return fmt.Errorf("%s: %w", path, ErrNotFound)
	}
	for _, q := range gone {
		delete(e.queues, strings.ToLower(q.path))
		for _, l := range slices.Concat(q.receivers, q.accepting, q.dead.receivers) {
			l.detach(failure(condNotFound, "The messaging entity '%s' has been deleted.", q.path))
		}
	}
	return nil
}

// Counts are the messages of a queue or subscription, by state.
type Counts struct{ Active, Locked, Deferred, Scheduled, DeadLettered int }

// Counts returns what is in a queue, a subscription, or the dead letters of one.
func (e *Emulator) Counts(path string) (Counts, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	q, cond := e.find(path)
	if cond != nil {
		return Counts{}, fmt.Errorf("%s: %w", path, ErrNotFound)
	}
	out := Counts{Locked: len(q.locked), Deferred: len(q.deferred), Scheduled: len(q.scheduled)}
	for _, l := range q.lines {
		out.Active += len(l.entries)
	}
	if q.dead != nil {
		out.DeadLettered = len(q.dead.all())
	}
	return out, nil
}

// SetDisabled refuses senders and receivers of a queue or subscription from now
// on, or takes them again.
func (e *Emulator) SetDisabled(path string, disabled bool) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	q, cond := e.find(path)
	if cond != nil {
		return fmt.Errorf("%s: %w", path, ErrNotFound)
	}
	q.options.Disabled = disabled
	if disabled {
		for _, l := range slices.Concat(q.receivers, q.accepting) {
			l.detach(failure(condDisabled, "Messaging entity '%s' is currently disabled.", q.path))
		}
	}
	return nil
}
