package broker

import (
	"slices"
	"time"

	"github.com/drover-run/drover/triggers/servicebus/emulator/codec"
)

// What can be requested of a queue apart from receiving, by its number or by a lock's token.

// RenewLocks renews locks, and returns when they end.
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

// maxPeek bounds the messages of one peek.
const maxPeek = 250

// Peek returns messages from a sequence number on, encoded: at most count, and as many as have
// at most maxSize bytes together, but at least one. With a session, only messages of it.
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

// entries is every message of the queue in the order of their numbers.
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

// DeferredMessage is a deferred message that was received by its number.
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

// SizeCounts are the counts of the admin API. Active includes locked and deferred messages.
type SizeCounts struct{ Active, Scheduled, Dead, Bytes int }

// SizeCounts counts the messages, and about how many bytes they take.
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

// HeldSession returns a session that is held over a link that is accepted; nil if there is none.
func (q *Queue) HeldSession(id string, accepts func(Link) bool) *Session {
	s := q.sessions[id]
	if s == nil || s.owner == nil || !accepts(s.owner.link) {
		return nil
	}
	return s
}

// RenewLock renews the session's lock, and returns when it ends.
func (s *Session) RenewLock() time.Time {
	s.until = s.q.locks.end()
	return s.until
}

// State is the session's state; nil if there is none.
func (s *Session) State() []byte { return s.state }

// SetState sets the session's state. An empty one is none.
func (s *Session) SetState(state []byte) {
	if s.state = state; len(state) == 0 {
		s.state = nil
	}
	s.touched = s.q.n.clock.now()
}

// ListSessions returns the ids of sessions, sorted: of those with a state that was changed after
// a time; from the year 9999 on, of those with messages or a state.
func (q *Queue) ListSessions(since time.Time) (ids []string) {
	for id, s := range q.sessions {
		if since.Year() >= 9999 && (len(s.entries) > 0 || s.state != nil) || s.state != nil && s.touched.After(since) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}
