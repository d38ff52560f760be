package emulator

import (
	"maps"
	"time"
)

func (q *queue) buryOrDrop(x *entry) {
	if q.options.DeadLetterExpired {
		q.buryOrKeep(x, "TTLExpiredException", "The message expired and was dead lettered.")
	}
}

// buryOrKeep is for what the queue itself decides on, whatever the size of the properties. A
// message that the dead letters do not take stays, and does not expire again.
func (q *queue) buryOrKeep(x *entry, reason, description string) {
	if cond := q.bury(x.letter(reason, description, nil)); cond != nil {
		q.e.options.Log.Warn("message stays in its queue: it cannot be dead-lettered", "queue", q.path, "sequence_number", x.sequence, "error", cond)
		x.expires = time.Time{}
		q.ready(x)
	}
}

// letter is the message as a dead letter.
func (x *entry) letter(reason, description string, properties map[string]any) *message {
	m := x.message.clone()
	set := maps.Clone(properties)
	if set == nil {
		set = make(map[string]any)
	}
	if reason != "" {
		set[deadLetterReason] = reason
	}
	if description != "" {
		set[deadLetterDescription] = description
	}
	m.setApplication(set)
	if x.q.dead != nil {
		m.annotations[symbol("x-opt-enqueue-sequence-number")] = x.sequence
		delete(m.annotations, scheduledTime)
	}
	m.setDeliveries(x.deliveries)
	return m
}

// bury puts a letter where the queue's dead letters go.
func (q *queue) bury(letter *message) *condition {
	if q.options.ForwardDeadTo != "" {
		forwarded := letter.clone()
		forwarded.annotations[symbol("x-opt-deadletter-source")] = q.path
		if cond := q.e.send(q.options.ForwardDeadTo, forwarded, 1); cond == nil {
			return nil
		}
	}
	_, cond := q.dead.put(letter)
	return cond
}
