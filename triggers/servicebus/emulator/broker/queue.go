package broker

import (
	"slices"
	"sort"
	"strconv"
	"time"

	"github.com/drover-run/drover/triggers/servicebus/emulator/codec"
)

// Queue is a queue, a subscription, or the dead letters of one.
type Queue struct {
	Path    string
	Options QueueOptions
	Created time.Time

	n    *Namespace
	dead *Queue // nil for dead letters themselves

	sequence int64
	// Waiting messages are in sessions. Without sessions, they are in the session with the empty
	// ID.
	sessions  map[string]*Session
	locks     locks
	scheduled map[int64]*entry
	deferred  map[int64]*entry

	seen     map[string]time.Time // ids, where duplicates are dropped
	usage    Usage
	garbled  int // of the next messages
	untagged int

	receivers []*Receiver // attached, the one that is served next first
	accepting []*Receiver // that wait for a session
}

// Session has the waiting messages of a session, in order, and the session's state.
type Session struct {
	q       *Queue
	id      string
	entries []*entry
	owner   *Receiver // that holds the session
	until   time.Time
	state   []byte
	touched time.Time
}

func (n *Namespace) newQueue(path string, o QueueOptions) *Queue {
	make1 := func(path string, o QueueOptions) *Queue {
		q := &Queue{
			n: n, Path: path, Options: o, Created: n.clock.now(), sessions: make(map[string]*Session),
			scheduled: make(map[int64]*entry), deferred: make(map[int64]*entry), seen: make(map[string]time.Time),
		}
		q.locks = locks{clock: &n.clock, options: &q.Options, byToken: make(map[codec.UUID]*entry)}
		q.locks.lost = func(x *entry) {
			q.usage.Lost++
			q.release(x, true)
		}
		return q
	}
	o = o.withDefaults()
	q := make1(path, o)
	q.dead = make1(path+"/$DeadLetterQueue", QueueOptions{LockDuration: o.LockDuration, MaxDeliveryCount: o.MaxDeliveryCount})
	return q
}

// IsDead reports whether the queue has the dead letters of another.
func (q *Queue) IsDead() bool { return q.dead == nil }

// SetOptions changes the options.
func (q *Queue) SetOptions(o QueueOptions) { q.Options = o.withDefaults() }

// session returns a session, or, without sessions, the only one.
func (q *Queue) session(id string) *Session {
	if !q.Options.RequiresSession {
		id = ""
	}
	s := q.sessions[id]
	if s == nil {
		s = &Session{q: q, id: id, touched: q.n.clock.now()}
		q.sessions[id] = s
	}
	return s
}

// put adds a message, ready now or at its scheduled time. hops is the number of times that it
// was forwarded before.
func (q *Queue) put(m *codec.Message, hops int) (int64, *codec.Condition) {
	session, hasSession := m.Session()
	if q.Options.RequiresSession && !hasSession {
		return 0, codec.Failure(codec.CondNotAllowed, "The SessionId was not set on a message, and it cannot be sent to the entity. Entities that have session support enabled can only receive messages that have the SessionId set to a valid value.")
	}
	if q.Options.ForwardTo != "" {
		_, cond := q.n.forward(q.Options.ForwardTo, m, hops+1)
		return 0, cond
	}
	q.sequence++
	if m.ID() == nil {
		m.SetID(codec.NewUUID().String())
	}
	if q.isDuplicate(m.ID()) {
		return q.sequence, nil
	}
	x := &entry{message: m, sequence: q.sequence, session: session, deliveries: m.Deliveries()}
	when, _ := m.Annotations[codec.ScheduledTime].(time.Time)
	if when.After(q.n.clock.now()) {
		q.scheduled[x.sequence] = x
		x.scheduled, x.enqueued = true, when
		q.n.clock.at(when, func() {
			if q.scheduled[x.sequence] == x {
				delete(q.scheduled, x.sequence)
				x.scheduled = false
				q.enqueue(x)
			}
		})
		return x.sequence, nil
	}
	q.enqueue(x)
	return x.sequence, nil
}

// isDuplicate reports whether a message with the same ID was received recently.
func (q *Queue) isDuplicate(id any) bool {
	if q.Options.DuplicateWindow == 0 {
		return false
	}
	text := string(codec.AppendValue(nil, id)) // of any type
	now := q.n.clock.now()
	for old, at := range q.seen {
		if now.Sub(at) >= q.Options.DuplicateWindow {
			delete(q.seen, old)
		}
	}
	_, found := q.seen[text]
	q.seen[text] = now
	return found
}

// enqueue makes a new message ready.
func (q *Queue) enqueue(x *entry) {
	x.enqueued = q.n.clock.now()
	ttl := q.Options.DefaultTTL
	if own := x.message.TTL(x.enqueued); own > 0 && (ttl == 0 || own < ttl) {
		ttl = own
	}
	if ttl > 0 && !q.IsDead() { // dead letters do not expire
		x.expires = x.enqueued.Add(ttl)
		q.n.clock.at(x.expires, func() { q.expire(x) })
	}
	q.makeReady(x)
}

// makeReady inserts a message at its place among the waiting ones.
func (q *Queue) makeReady(x *entry) {
	if !x.expires.IsZero() && !q.n.clock.now().Before(x.expires) {
		q.buryOrDrop(x)
		return
	}
	s := q.session(x.session)
	i := sort.Search(len(s.entries), func(i int) bool { return s.entries[i].sequence > x.sequence })
	s.entries = slices.Insert(s.entries, i, x)
	q.pump()
}

// expire expires a waiting message. A locked one expires when it is released.
func (q *Queue) expire(x *entry) {
	s := q.session(x.session)
	if i := slices.Index(s.entries, x); i >= 0 {
		s.entries = slices.Delete(s.entries, i, i+1)
		q.buryOrDrop(x)
	}
}

// pump delivers waiting messages to receivers whose links can take them.
func (q *Queue) pump() {
	if q.Options.RequiresSession {
		q.pumpSessions()
		return
	}
	s := q.session("")
	for len(s.entries) > 0 {
		i := slices.IndexFunc(q.receivers, (*Receiver).canTake)
		if i < 0 {
			return
		}
		to := q.receivers[i]
		q.receivers = append(slices.Delete(q.receivers, i, i+1), to) // the next one's turn
		x := s.entries[0]
		s.entries[0] = nil
		s.entries = s.entries[1:]
		to.deliver(x)
	}
}

func (q *Queue) pumpSessions() {
	for len(q.accepting) > 0 {
		s := q.freeSession()
		if s == nil {
			break
		}
		to := q.accepting[0]
		q.accepting = q.accepting[1:]
		to.hold(s)
	}
	for _, to := range q.receivers {
		if to.session == nil {
			continue
		}
		for len(to.session.entries) > 0 && to.canTake() {
			x := to.session.entries[0]
			to.session.entries = to.session.entries[1:]
			to.deliver(x)
		}
	}
}

// freeSession returns the next session with messages and without a receiver: the one whose last
// receiver left first.
func (q *Queue) freeSession() (best *Session) {
	for _, s := range q.sessions {
		if s.owner == nil && len(s.entries) > 0 && (best == nil || s.touched.Before(best.touched)) {
			best = s
		}
	}
	return best
}

// detachReceivers ends the links of all receivers, and of those that wait for a session.
func (q *Queue) detachReceivers(cond *codec.Condition) {
	for _, r := range slices.Concat(q.receivers, q.accepting) {
		r.link.Detach(cond)
	}
}

// Verdict is the way in which a lock ends.
type Verdict struct {
	Kind                string // one of the kinds below
	Reason, Description string // of a dead letter
	Properties          map[string]any
}

// The kinds of verdicts, with the service's own names and spelling.
const (
	Completed    = "completed"
	Abandoned    = "abandoned"
	DeadLettered = "suspended"
	Deferred     = "defered"
	Released     = "released" // without counting the delivery
)

// ErrLost is the error of a settlement or renewal if the lock has ended.
var ErrLost = codec.Failure(codec.CondMessageLost, "The lock supplied is invalid. Either the lock expired, or the message has already been removed from the queue.")

// Settle ends a lock. If it refuses the verdict, the message stays locked.
func (q *Queue) Settle(token codec.UUID, v Verdict) *codec.Condition {
	x := q.locks.byToken[token]
	if x == nil {
		return ErrLost
	}
	m := x.message
	switch {
	case v.Kind == DeadLettered:
		m = x.letter(v.Reason, v.Description, v.Properties, q.IsDead())
	case len(v.Properties) > 0:
		m = m.Clone()
		m.SetApplication(v.Properties)
	}
	if cond := m.CheckProperties(); cond != nil && m != x.message {
		return cond
	}
	if v.Kind == DeadLettered && !q.IsDead() {
		if cond := q.bury(m); cond != nil {
			return cond
		}
	}
	q.locks.remove(token)
	switch v.Kind {
	case Completed:
	case Abandoned:
		x.message = m
		q.release(x, true)
	case Released:
		q.usage.Released++
		q.release(x, false)
	case Deferred:
		x.message = m
		x.deferred = true
		q.deferred[x.sequence] = x
	case DeadLettered:
		if q.IsDead() { // a rejected dead letter stays
			x.message, x.deferred = m, false
			q.makeReady(x)
		}
	}
	return nil
}

// release makes a locked message ready again. charged counts a failed delivery.
func (q *Queue) release(x *entry, charged bool) {
	charged = charged && !q.IsDead() // the dead letters do not count
	if charged {
		x.deliveries++
	}
	if x.deferred {
		q.deferred[x.sequence] = x
		return
	}
	if charged && x.deliveries >= q.Options.MaxDeliveryCount {
		q.buryOrKeep(x, "MaxDeliveryCountExceeded", "Message could not be consumed after "+strconv.FormatUint(uint64(x.deliveries), 10)+" delivery attempts.")
		return
	}
	q.makeReady(x)
}

func (q *Queue) buryOrDrop(x *entry) {
	if q.Options.DeadLetterExpired {
		q.buryOrKeep(x, "TTLExpiredException", "The message expired and was dead lettered.")
	}
}

// buryOrKeep dead-letters a message that the queue itself gives up, regardless of the size of its
// properties. If the dead letters do not accept it, it stays, and does not expire again.
func (q *Queue) buryOrKeep(x *entry, reason, description string) {
	if cond := q.bury(x.letter(reason, description, nil, q.IsDead())); cond != nil {
		q.n.log.Warn("message stays in its queue: it cannot be dead-lettered", "queue", q.Path, "sequence_number", x.sequence, "error", cond)
		x.expires = time.Time{}
		q.makeReady(x)
	}
}

// bury puts a dead letter into the queue's dead letters.
func (q *Queue) bury(letter *codec.Message) *codec.Condition {
	if q.Options.ForwardDeadTo != "" {
		forwarded := letter.Clone()
		forwarded.Annotations[codec.Symbol("x-opt-deadletter-source")] = q.Path
		if _, cond := q.n.forward(q.Options.ForwardDeadTo, forwarded, 1); cond == nil {
			return nil
		}
	}
	_, cond := q.dead.put(letter, 0)
	return cond
}
