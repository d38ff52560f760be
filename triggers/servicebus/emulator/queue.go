package emulator

import (
	"container/list"
	"slices"
	"sort"
	"time"
)

// QueueOptions are a queue's, or a subscription's. Zero values are the defaults
// given here, which are the service's.
type QueueOptions struct {
	LockDuration     time.Duration // one minute
	MaxDeliveryCount uint32        // 10
	DefaultTTL       time.Duration // none
	RequiresSession  bool
	// DeadLetterExpired moves what expired to the dead letters; else it is dropped.
	DeadLetterExpired bool
	ForwardTo         string
	ForwardDeadTo     string
	// Disabled refuses senders and receivers.
	Disabled bool
	// DuplicateWindow is for how long a message with the id of an earlier one is
	// dropped; 0: never.
	DuplicateWindow time.Duration
}

func (o QueueOptions) withDefaults() QueueOptions {
	if o.LockDuration == 0 {
		o.LockDuration = time.Minute
	}
	if o.MaxDeliveryCount == 0 {
		o.MaxDeliveryCount = 10
	}
	return o
}

// queue is a queue, a subscription, or the dead letters of one; e.mu guards it.
type queue struct {
	e       *Emulator
	path    string
	options QueueOptions
	dead    *queue // nil for dead letters themselves
	source  *queue // of dead letters
	created time.Time

	sequence int64
	// Messages that wait are in lines: one for each session, or, in a queue
	// without sessions, in the one with the empty name.
	lines     map[string]*line
	locked    map[uuid]*entry
	leases    list.List // of the locked, the one whose lock ends first in front
	sweeping  bool      // a timer is set for that one
	scheduled map[int64]*entry
	deferred  map[int64]*entry

	seen     map[string]time.Time // ids, where duplicates are dropped
	usage    Usage
	garbled  int // of the next messages
	untagged int

	receivers []*link // attached, the one that is served next first
	accepting []*link // that wait for a session
}

// line is the messages of a session in their order, and the session.
type line struct {
	id      string
	entries []*entry
	owner   *link // that holds the session
	until   time.Time
	state   []byte
	touched time.Time
}

// entry is a message in a queue.
type entry struct {
	message    *message
	q          *queue
	sequence   int64
	enqueued   time.Time
	expires    time.Time // zero: never
	deliveries uint32    // that failed
	session    string
	deferred   bool
	owner      *link // that delivered it; nil: a request did
	delivery   uint32
	token      uuid
	until      time.Time
	place      *list.Element // in leases
}

func (e *Emulator) newQueue(path string, o QueueOptions) *queue {
	make1 := func(path string, o QueueOptions) *queue {
		return &queue{
			e: e, path: path, options: o, created: e.now(), lines: make(map[string]*line), locked: make(map[uuid]*entry),
			scheduled: make(map[int64]*entry), deferred: make(map[int64]*entry), seen: make(map[string]time.Time),
		}
	}
	o = o.withDefaults()
	q := make1(path, o)
	q.dead = make1(path+"/$DeadLetterQueue", QueueOptions{LockDuration: o.LockDuration, MaxDeliveryCount: o.MaxDeliveryCount})
	q.dead.source = q
	return q
}

func (q *queue) line(id string) *line {
	l := q.lines[id]
	if l == nil {
		l = &line{id: id, touched: q.e.now()}
		q.lines[id] = l
	}
	return l
}

// The annotations and properties that the service sets or reads in several places.
const (
	scheduledTime = symbol("x-opt-scheduled-enqueue-time")
	messageState  = symbol("x-opt-message-state")
	lockedUntil   = symbol("x-opt-locked-until")
	lockToken     = symbol("x-opt-lock-token")

	deadLetterReason      = "DeadLetterReason"
	deadLetterDescription = "DeadLetterErrorDescription"
)

// put adds a message, ready now or at its scheduled time.
func (q *queue) put(m *message) (int64, *condition) {
	session, hasSession := m.session()
	if q.options.RequiresSession && !hasSession {
		return 0, failure(condNotAllowed, "The SessionId was not set on a message, and it cannot be sent to the entity. Entities that have session support enabled can only receive messages that have the SessionId set to a valid value.")
	}
	if q.options.ForwardTo != "" {
		return 0, q.e.send(q.options.ForwardTo, m, 1)
	}
	q.sequence++
	if m.id() == nil {
		m.properties = withField(m.properties, propertyMessageID, formatUUID(newUUID()))
	}
	if q.duplicate(m.id()) {
		return q.sequence, nil
	}
	x := &entry{message: m, q: q, sequence: q.sequence, session: session, deliveries: m.deliveries()}
	when, _ := m.annotations[scheduledTime].(time.Time)
	if when.After(q.e.now()) {
		q.scheduled[x.sequence] = x
		x.enqueued = when
		q.e.at(when, func() {
			if q.scheduled[x.sequence] == x {
				delete(q.scheduled, x.sequence)
				q.enqueue(x)
			}
		})
		return x.sequence, nil
	}
	q.enqueue(x)
	return x.sequence, nil
}

// duplicate reports whether a message of the same id came lately.
func (q *queue) duplicate(id any) bool {
	if q.options.DuplicateWindow == 0 {
		return false
	}
	text := string(appendValue(nil, id)) // of any type
	now := q.e.now()
	for old, at := range q.seen {
		if now.Sub(at) >= q.options.DuplicateWindow {
			delete(q.seen, old)
		}
	}
	_, found := q.seen[text]
	q.seen[text] = now
	return found
}

// enqueue makes a message that is new ready.
func (q *queue) enqueue(x *entry) {
	x.enqueued = q.e.now()
	ttl := q.options.DefaultTTL
	if own := x.message.ttl(x.enqueued); own > 0 && (ttl == 0 || own < ttl) {
		ttl = own
	}
	if ttl > 0 && q.dead != nil { // dead letters do not expire
		x.expires = x.enqueued.Add(ttl)
		q.e.at(x.expires, func() { q.expire(x) })
	}
	q.ready(x)
}

// ready puts a message where it belongs among those that wait.
func (q *queue) ready(x *entry) {
	if !x.expires.IsZero() && !q.e.now().Before(x.expires) {
		q.buryOrDrop(x)
		return
	}
	l := q.line(q.lineOf(x))
	i := sort.Search(len(l.entries), func(i int) bool { return l.entries[i].sequence > x.sequence })
	l.entries = slices.Insert(l.entries, i, x)
	q.pump()
}

func (q *queue) lineOf(x *entry) string {
	if q.options.RequiresSession {
		return x.session
	}
	return ""
}

// unline takes a message out of those that wait; it reports whether it was there.
func (q *queue) unline(x *entry) bool {
	l := q.lines[q.lineOf(x)]
	if l == nil {
		return false
	}
	i := slices.Index(l.entries, x)
	if i < 0 {
		return false
	}
	l.entries = slices.Delete(l.entries, i, i+1)
	return true
}

func (q *queue) expire(x *entry) {
	if q.unline(x) { // a locked one expires when it is released
		q.buryOrDrop(x)
	}
}

// lock locks a message for a link, or for a request where that is nil.
func (q *queue) lock(x *entry, to *link) {
	x.token, x.owner, x.until = newUUID(), to, q.e.now().Add(q.options.LockDuration)
	q.locked[x.token] = x
	if !q.options.RequiresSession { // there the session is locked, not the message
		x.place = q.leases.PushBack(x)
		q.sweepLater()
	}
}

// renew moves the end of a lock.
func (q *queue) renew(x *entry) time.Time {
	x.until = q.e.now().Add(q.options.LockDuration)
	if x.place != nil {
		q.leases.MoveToBack(x.place)
	}
	return x.until
}

// unlock removes a message from the locked ones; nil if its lock has ended.
func (q *queue) unlock(token uuid) *entry {
	x := q.locked[token]
	if x == nil {
		return nil
	}
	delete(q.locked, token)
	if x.place != nil {
		q.leases.Remove(x.place)
		x.place = nil
	}
	if x.owner != nil {
		delete(x.owner.leased, x.delivery)
		x.owner = nil
	}
	return x
}

func (q *queue) sweepLater() {
	front := q.leases.Front()
	if front == nil || q.sweeping {
		return
	}
	q.sweeping = true
	q.e.at(front.Value.(*entry).until, func() {
		q.sweeping = false
		for front := q.leases.Front(); front != nil; front = q.leases.Front() {
			x := front.Value.(*entry)
			if q.e.now().Before(x.until) {
				break
			}
			q.usage.Lost++
			q.release(q.unlock(x.token), true)
		}
		q.sweepLater()
	})
}

// release makes a locked message ready again.
func (q *queue) release(x *entry, charged bool) {
	if charged && q.dead != nil { // the dead letters do not count
		x.deliveries++
	}
	if x.deferred {
		q.deferred[x.sequence] = x
		return
	}
	if charged && q.dead != nil && x.deliveries >= q.options.MaxDeliveryCount {
		q.buryOrKeep(x, "MaxDeliveryCountExceeded", "Message could not be consumed after "+itoa(x.deliveries)+" delivery attempts.")
		return
	}
	q.ready(x)
}

// verdict is how a loan ends.
type verdict struct {
	kind                string // completed, abandoned, suspended, defered (the service's spelling), released
	reason, description string
	properties          map[string]any
	outcome             uint64 // the AMQP type that it came as; 0: over a request
}

const (
	completed    = "completed"
	abandoned    = "abandoned"
	deadLettered = "suspended"
	deferred     = "defered"
	released     = "released"
)

var errLost = failure(condMessageLost, "The lock supplied is invalid. Either the lock expired, or the message has already been removed from the queue.")

// settle ends a loan. A verdict that is refused leaves the message locked.
func (q *queue) settle(token uuid, v verdict) *condition {
	x := q.locked[token]
	if x == nil {
		return errLost
	}
	m := x.message
	switch {
	case v.kind == deadLettered:
		m = x.letter(v.reason, v.description, v.properties)
	case len(v.properties) > 0:
		m = m.clone()
		m.setApplication(v.properties)
	}
	if cond := m.tooManyProperties(); cond != nil && m != x.message {
		return cond
	}
	if v.kind == deadLettered && q.dead != nil {
		if cond := q.bury(m); cond != nil {
			return cond
		}
	}
	q.unlock(token)
	switch v.kind {
	case completed:
	case abandoned:
		x.message = m
		q.release(x, true)
	case released:
		q.usage.Released++
		q.release(x, false)
	case deferred:
		x.message = m
		x.deferred = true
		q.deferred[x.sequence] = x
	case deadLettered:
		if q.dead == nil { // what is rejected once more stays
			x.message, x.deferred = m, false
			q.ready(x)
		}
	}
	return nil
}

// encode writes a message as it is now.
func (x *entry) encode() []byte {
	m := x.message
	m.setDeliveries(x.deliveries)
	m.annotations[symbol("x-opt-sequence-number")] = x.sequence
	m.annotations[symbol("x-opt-enqueued-time")] = x.enqueued
	delete(m.annotations, messageState)
	delete(m.annotations, lockedUntil)
	switch {
	case x.q.scheduled[x.sequence] == x:
		m.annotations[messageState] = int64(2)
	case x.deferred:
		m.annotations[messageState] = int64(1)
	}
	if x.q.locked[x.token] != x {
		return m.encode(nil)
	}
	m.annotations[lockedUntil] = x.until
	return m.encode(map[any]any{lockToken: x.token})
}

// pump delivers waiting messages to receivers with credit.
func (q *queue) pump() {
	if q.options.RequiresSession {
		q.pumpSessions()
		return
	}
	l := q.line("")
	for len(l.entries) > 0 {
		i := slices.IndexFunc(q.receivers, (*link).canTake)
		if i < 0 {
			return
		}
		to := q.receivers[i]
		q.receivers = append(slices.Delete(q.receivers, i, i+1), to) // the next one's turn
		x := l.entries[0]
		l.entries[0] = nil
		l.entries = l.entries[1:]
		to.deliver(x)
	}
}

// leave removes a receiver. Messages delivered over it stay locked until the
// lock ends; a session's messages come back at once.
func (q *queue) leave(l *link) {
	q.receivers = slices.DeleteFunc(q.receivers, func(o *link) bool { return o == l })
	q.accepting = slices.DeleteFunc(q.accepting, func(o *link) bool { return o == l })
	if l.session != nil && l.session.owner == l {
		l.session.owner = nil
		l.session.touched = q.e.now()
		for token, x := range q.locked {
			if x.owner == l {
				q.release(q.unlock(token), false)
			}
		}
	}
	for _, x := range l.leased {
		if x.owner == l {
			x.owner = nil
		}
	}
	l.session = nil
	q.pump()
}

// counts are the counts of the admin API.
func (q *queue) counts() (active, scheduled, dead, bytes int) {
	for _, x := range q.all() {
		bytes += x.message.size()
	}
	for _, l := range q.lines {
		active += len(l.entries)
	}
	active += len(q.locked) + len(q.deferred)
	if q.dead != nil {
		dead, _, _, _ = q.dead.counts()
	}
	return active, len(q.scheduled), dead, bytes
}
