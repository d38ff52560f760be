package broker

import (
	"log/slog"
	"time"

	"github.com/drover-run/drover/triggers/servicebus/emulator/codec"
)

// Topic sends copies of its messages to its subscriptions.
type Topic struct {
	Created  time.Time
	Disabled bool // it refuses senders

	clock         *clock
	log           *slog.Logger
	path          string
	subscriptions map[string]*Queue // by lower-case name
	sequence      int64
	scheduled     map[int64]*codec.Message
}

// Subscriptions returns the number of subscriptions.
func (t *Topic) Subscriptions() int { return len(t.subscriptions) }

// publish sends copies of a message to a topic's subscriptions, at its scheduled time. It returns
// the message's sequence number in the topic.
func (t *Topic) publish(m *codec.Message, hops int) (int64, *codec.Condition) {
	t.sequence++
	number := t.sequence
	when, _ := m.Annotations[codec.ScheduledTime].(time.Time)
	if !when.After(t.clock.now()) {
		for _, q := range t.subscriptions {
			if _, cond := q.put(m.Clone(), hops); cond != nil {
				return 0, cond
			}
		}
		return number, nil
	}
	t.scheduled[number] = m
	t.clock.at(when, func() {
		if t.scheduled[number] != m {
			return // it was cancelled
		}
		delete(t.scheduled, number)
		for _, q := range t.subscriptions {
			if _, cond := q.put(m.Clone(), hops); cond != nil {
				t.log.Error("a scheduled message was refused", "subscription", q.Path, "error", cond)
			}
		}
	})
	return number, nil
}

// CancelScheduled removes scheduled messages, all or none.
func (t *Topic) CancelScheduled(numbers []int64) *codec.Condition {
	return cancel(t.scheduled, numbers)
}

func cancel[T any](scheduled map[int64]T, numbers []int64) *codec.Condition {
	for _, n := range numbers {
		if _, found := scheduled[n]; !found {
			return errNoMessage
		}
	}
	for _, n := range numbers {
		delete(scheduled, n)
	}
	return nil
}

var errNoMessage = codec.Failure(codec.CondNoMessage, "The message could not be found.")
