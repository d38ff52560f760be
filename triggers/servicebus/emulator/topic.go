package emulator

import (
	"strings"
	"time"
)

// topic hands copies of its messages to its subscriptions.
type topic struct {
	path          string
	created       time.Time
	subscriptions map[string]*queue // by lower-case name
	disabled      bool
	sequence      int64
	scheduled     map[int64]*message
}

// maxHops bounds forwarding.
const maxHops = 4

// send puts a message into a queue or a topic; e.mu is locked.
func (e *Emulator) send(path string, m *message, hops int) *condition {
	if hops > maxHops {
		return failure(condArgument, "Maximum transfer hop count of %d reached.", maxHops)
	}
	if t := e.topics[strings.ToLower(path)]; t != nil {
		_, cond := e.publish(t, m)
		return cond
	}
	q, cond := e.find(path)
	if cond != nil {
		return cond
	}
	_, cond = q.put(m)
	return cond
}

// publish hands copies of a message to a topic's subscriptions, at the time that
// it is scheduled for. It returns the message's number in the topic.
func (e *Emulator) publish(t *topic, m *message) (int64, *condition) {
	t.sequence++
	number := t.sequence
	when, _ := m.annotations[scheduledTime].(time.Time)
	if !when.After(e.now()) {
		for _, q := range t.subscriptions {
			if _, cond := q.put(m.clone()); cond != nil {
				return 0, cond
			}
		}
		return number, nil
	}
	t.scheduled[number] = m
	e.at(when, func() {
		if t.scheduled[number] != m {
			return // it was cancelled
		}
		delete(t.scheduled, number)
		for _, q := range t.subscriptions {
			if _, cond := q.put(m.clone()); cond != nil {
				e.options.Log.Error("a scheduled message was refused", "subscription", q.path, "error", cond)
			}
		}
	})
	return number, nil
}
