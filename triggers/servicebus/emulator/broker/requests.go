package broker

import (
	"slices"
	"time"

	"github.com/drover-run/drover/triggers/servicebus/emulator/codec"
)

// Requests to a queue other than receiving, with a sequence number or a lock token.

// RenewLocks renews locks, and returns their new ends.
func (q *Queue) RenewLocks(tokens []codec.UUID) (until []time.Time, _ *codec.Condition) {
	for _, token := range tokens {
		x := q.locks.byToken[token]
		if x == nil {
			return nil, ErrLost
		}
		until = append(until, q.locks.renew(x))
	}
	return until, nil
}

// maxPeek limits the number of messages in one peek.
const maxPeek = 250

// Peek returns encoded messages from a sequence number on: at most count, and at most maxSize bytes
// together, but at least one. With a session, it returns only messages of that session.
func (q *Queue) Peek(from int64, count int, session *string, maxSize uint64) (found [][]byte) {
	size := uint64(0)
	for _, x := range q.entries() {
		if x.sequence < from || session != nil && x.session != *session {
			continue
		}
		data := x.encode()
		if size += uint64(len(data)); len(found) > 0 && size > maxSize || len(found) >= min(count, maxPeek) {
			break
		}
		found = append(found, data)
	}
	return found
}

// entries yields every message of the queue, ordered by sequence number.
func (q *Queue) entries() []*entry {
	var out []*entry
	for _, s := range q.sessions {
		out = append(out, s.entries...)
	}
	for _, x := range q.locks.byToken {
		out = append(out, x)
	}
	for _, m := range []map[int64]*entry{q.scheduled, q.deferred} {
		for _, x := range m {
			out = append(out, x)
		}
	}
	slices.SortFunc(out, func(a, b *entry) int { return int(a.sequence - b.sequence) })
	return out
}

// DeferredMessage is a deferred message that was received by its sequence number.
type DeferredMessage struct {
	Data  []byte
	Token codec.UUID // of its lock; zero without one
}

// ReceiveDeferred receives deferred messages, all or none. Without lock, it deletes them.
func (q *Queue) ReceiveDeferred(numbers []int64, lock bool) (out []DeferredMessage, _ *codec.Condition) {
	var found []*entry
	for _, n := range numbers {
		x := q.deferred[n]
		if x == nil {
			return nil, errNoMessage
		}
		found = append(found, x)
	}
	for _, x := range found {
		delete(q.deferred, x.sequence)
		if lock {
			q.locks.add(x, nil)
		}
		out = append(out, DeferredMessage{x.encode(), x.token})
	}
	return out, nil
}

// CancelScheduled removes scheduled messages, all or none.
func (q *Queue) CancelScheduled(numbers []int64) *codec.Condition {
	return cancel(q.scheduled, numbers)
}

// SizeCounts has the counts of the admin API. Active includes locked and deferred messages.
type SizeCounts struct{ Active, Scheduled, Dead, Bytes int }

// SizeCounts returns the number of messages, and their approximate size in bytes.
func (q *Queue) SizeCounts() (out SizeCounts) {
	for _, x := range q.entries() {
		out.Bytes += x.message.Size()
	}
	for _, s := range q.sessions {
		out.Active += len(s.entries)
	}
	out.Active += len(q.locks.byToken) + len(q.deferred)
	out.Scheduled = len(q.scheduled)
	if q.dead != nil {
		out.Dead = q.dead.SizeCounts().Active
	}
	return out
}

// HeldSession returns the session that is held over an accepted link; nil if there is none.
func (q *Queue) HeldSession(id string, accepts func(Link) bool) *Session {
	s := q.sessions[id]
	if s == nil || s.owner == nil || !accepts(s.owner.link) {
		return nil
	}
	return s
}

// RenewLock renews the session's lock, and returns its new end.
func (s *Session) RenewLock() time.Time {
	s.until = s.q.locks.end()
	return s.until
}

// State returns the session's state; nil if there is none.
func (s *Session) State() []byte { return s.state }

// SetState sets the session's state. An empty state removes it.
func (s *Session) SetState(state []byte) {
	if s.state = state; len(state) == 0 {
		s.state = nil
	}
	s.touched = s.q.n.clock.now()
}

// ListSessions returns sorted session IDs: of the sessions whose state changed after a time; from
// the year 9999 on, of those with messages or a state.
func (q *Queue) ListSessions(since time.Time) (ids []string) {
	for id, s := range q.sessions {
		if since.Year() >= 9999 && (len(s.entries) > 0 || s.state != nil) || s.state != nil && s.touched.After(since) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}
