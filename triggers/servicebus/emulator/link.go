package emulator

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/go-amqp"
)

// maxDelivery bounds a message that comes in parts, whatever the limit to its size.
const maxDelivery = 128 << 20

// link is one way for messages: from the other side to a queue, topic or the
// management, or from a queue to it; e.mu guards it.
type link struct {
	s        *session
	name     string
	handle   uint32 // the same both ways
	fromPeer bool   // the other side sends
	path     string
	detached bool // we detached it
	deaf     bool // it gets nothing, and does not know

	// What the other side receives.
	queue   *queue
	session *line
	settled bool   // it is sent settled: receive and delete
	credit  uint32 // what may still be sent
	count   uint32 // what was
	drain   bool
	leased  map[uint32]*entry // by delivery id
	reply   string            // a target that answers are sent to
	answers [][]byte          // to it, that wait for credit
	asks    bool              // it receives answers
	waiting []any             // the attach that is to be answered when there is a session

	// What the other side sends.
	manage func(*amqp.Message) *amqp.Message // management; nil: it goes to path
	part   []byte
	partID uint32
	format uint32 // of that
	size   uint64 // of what came of the message, of which part has no more than the limit
	taken  uint32
}

// The places of the fields of attach.
const (
	attachName = iota
	attachHandle
	attachRole
	attachSndMode
	attachRcvMode
	attachSource
	attachTarget
	_
	_
	attachCount
	attachMaxSize
	_
	_
	attachProperties
)

const sessionFilter = "com.microsoft:session-filter"

func (s *session) attach(fields []any) *condition {
	l := &link{
		s: s, name: field[string](fields, attachName), handle: field[uint32](fields, attachHandle),
		fromPeer: !field[bool](fields, attachRole), leased: make(map[uint32]*entry),
	}
	if len(s.links) == maxHandles || s.links[l.handle] != nil {
		return failure(condNotAllowed, "the handle %d is in use, or one too many", l.handle)
	}
	s.links[l.handle] = l
	var cond *condition
	if l.fromPeer {
		cond = l.attachSender(fields)
	} else {
		cond = l.attachReceiver(fields)
	}
	if cond != nil {
		l.refuse(fields, cond)
	}
	return nil
}

// answerAttach is our side of an attach: the same, with the role turned.
func (l *link) answerAttach(fields []any, source, target any) {
	out := []any{l.name, l.handle, l.fromPeer, nil, nil, source, target, nil, nil, nil, l.limit()}
	for _, i := range []int{attachSndMode, attachRcvMode} {
		if i < len(fields) {
			out[i] = fields[i]
		}
	}
	if !l.fromPeer {
		out[attachCount] = uint32(0)
	}
	if l.session != nil {
		ticks := l.session.until.UTC().UnixNano()/100 + 621355968000000000 // since the year 1, in 100 ns
		out = append(out, nil, nil, map[any]any{symbol("com.microsoft:locked-until-utc"): ticks})
	}
	l.s.c.send(l.s.channel, opAttach, out, nil)
}

// envelope is what the service may add to a message, and a request to one, in bytes.
const envelope = 64 << 10

// limit is the largest message that the link carries; 0 is any.
func (l *link) limit() uint64 {
	size := l.s.c.e.options.MaxMessageSize
	switch {
	case l.asks:
		return 0
	case l.fromPeer && l.manage == nil:
		return size
	}
	return size + envelope
}

// refuse answers an attach and ends the link at once, as the standard asks.
func (l *link) refuse(fields []any, cond *condition) {
	l.answerAttach(fields, nil, nil)
	l.detach(cond)
}

// detach ends a link from our side.
func (l *link) detach(cond *condition) {
	l.gone()
	if l.detached {
		return
	}
	l.detached = true
	l.s.c.send(l.s.channel, opDetach, []any{l.handle, true, cond.value()}, nil)
}

// gone takes a link out of its queue.
func (l *link) gone() {
	l.s.blocked = slices.DeleteFunc(l.s.blocked, func(t transfer) bool { return t.link == l })
	if l.s.c.claims == l {
		l.s.c.claims = nil
	}
	if l.queue != nil {
		q := l.queue
		l.queue = nil
		q.leave(l)
	}
}

func address(v any) string {
	_, fields := composite(v)
	return field[string](fields, 0)
}

// entityPath is the entity that an address names: a path, or a whole URI as the
// Python SDK sends.
func entityPath(address string) string {
	if _, rest, found := strings.Cut(address, "://"); found {
		_, address, _ = strings.Cut(rest, "/")
	}
	return strings.Trim(address, "/")
}

// terminus is a source or target in a reply: its address.
func terminus(code uint64, v any) described {
	return described{code: code, value: []any{address(v)}}
}

func (l *link) attachSender(fields []any) *condition {
	c := l.s.c
	l.path = entityPath(address(at(fields, attachTarget)))
	name := strings.ToLower(l.path)
	switch {
	case name == "$cbs":
		if c.claims != nil {
			return failure(condNotAllowed, "A link to connection '$cbs' node is already open.")
		}
		c.claims = l
		l.manage = c.putToken
	case strings.HasSuffix(name, "/$management"):
		q, cond := c.e.find(l.path[:len(l.path)-len("/$management")])
		switch {
		case cond == nil:
			l.manage = func(m *amqp.Message) *amqp.Message { return c.manage(q, m) }
		case c.e.topics[strings.TrimSuffix(name, "/$management")] != nil:
			topic := l.path[:len(l.path)-len("/$management")]
			l.manage = func(m *amqp.Message) *amqp.Message { return c.manageTopic(topic, m) }
		default:
			return cond
		}
	case c.e.topics[name] != nil:
		if c.e.topics[name].disabled {
			return failure(condDisabled, "Messaging entity '%s' is currently disabled.", l.path)
		}
	default:
		q, cond := c.e.find(l.path)
		if cond != nil {
			return cond
		}
		if q.options.Disabled {
			return failure(condDisabled, "Messaging entity '%s' is currently disabled.", l.path)
		}
		if q.source != nil || strings.Contains(name, "/subscriptions/") {
			return failure(condNotAllowed, "The entity '%s' takes no messages from senders.", l.path)
		}
	}
	if l.manage == nil && !c.rights.may(c.e, l.path, claimSend) {
		return failure(condUnauthorized, "Unauthorized access. 'Send' claim(s) are required to perform this operation. Resource: '%s'.", l.path)
	}
	l.answerAttach(fields, terminus(typeSource, at(fields, attachSource)), terminus(typeTarget, at(fields, attachTarget)))
	l.replenish()
	return nil
}

// replenish gives the other side credit to send.
func (l *link) replenish() {
	s := l.s
	s.c.send(s.channel, opFlow, []any{s.incoming, uint32(incomingWindow), s.outgoing, uint32(incomingWindow),
		l.handle, l.taken, uint32(senderCredit)}, nil)
}

func (l *link) attachReceiver(fields []any) *condition {
	c := l.s.c
	source := at(fields, attachSource)
	l.path = entityPath(address(source))
	name := strings.ToLower(l.path)
	if name == "$cbs" || strings.HasSuffix(name, "/$management") {
		l.asks = true
		l.reply = address(at(fields, attachTarget))
		l.settled = true
		l.answerAttach(fields, terminus(typeSource, at(fields, attachSource)), terminus(typeTarget, at(fields, attachTarget)))
		return nil
	}
	q, cond := c.e.find(l.path)
	if cond != nil {
		return cond
	}
	if !c.rights.may(c.e, l.path, claimListen) {
		return failure(condUnauthorized, "Unauthorized access. 'Listen' claim(s) are required to perform this operation. Resource: '%s'.", l.path)
	}
	if q.options.Disabled {
		return failure(condDisabled, "Messaging entity '%s' is currently disabled.", l.path)
	}
	if cond := c.e.faults.refusal(); cond != nil {
		return cond
	}
	l.queue = q
	l.settled = field[uint8](fields, attachSndMode) == 1
	_, parts := composite(source)
	filters := field[map[any]any](parts, 7)
	filter, wants := filters[symbol(sessionFilter)]
	switch {
	case wants && !q.options.RequiresSession:
		return failure(condNotAllowed, "It is not possible for an entity that does not require sessions to create a session receiver. Entity: '%s'.", q.path)
	case !wants && q.options.RequiresSession:
		return failure(condNotAllowed, "It is not possible for an entity that requires sessions to create a non-sessionful message receiver. Entity: '%s'.", q.path)
	case !wants:
		l.answerAttach(fields, terminus(typeSource, at(fields, attachSource)), terminus(typeTarget, at(fields, attachTarget)))
		q.receivers = append(q.receivers, l)
		return nil
	}
	l.waiting = fields
	id, ok := filter.(string)
	if d, is := filter.(described); is {
		id, ok = d.value.(string)
	}
	if ok {
		s := q.line(id)
		if s.owner != nil {
			return failure(condSessionLocked, "The requested session '%s' cannot be accepted. It may be locked by another receiver.", id)
		}
		l.accept(s)
		return nil
	}
	// The next free one: as long as the other side asks for, or the service's minute.
	wait := time.Minute
	if m := field[map[any]any](fields, attachProperties); m != nil {
		if ms, ok := m[symbol("com.microsoft:timeout")].(uint32); ok {
			wait = time.Duration(ms) * time.Millisecond
		}
	}
	q.accepting = append(q.accepting, l)
	c.e.at(c.e.now().Add(wait), func() {
		if l.waiting != nil && l.queue != nil {
			l.refuse(fields, failure(condTimeout, "The operation did not complete within the allotted timeout of %v.", wait))
		}
	})
	q.pump()
	return nil
}

// accept gives a session to the link, and answers its attach.
func (l *link) accept(s *line) {
	fields := l.waiting
	l.waiting = nil
	q := l.queue
	q.hold(s, l)
	// The answer has the form of the question: the Go SDK takes only a described
	// name, the JavaScript SDK only a plain one.
	_, parts := composite(at(fields, attachSource))
	var name any = s.id
	if asked, is := field[map[any]any](parts, 7)[symbol(sessionFilter)].(described); is {
		asked.value = s.id
		name = asked
	}
	source := []any{address(at(fields, attachSource)), nil, nil, nil, nil, nil, nil, map[any]any{symbol(sessionFilter): name}}
	l.answerAttach(fields, described{code: typeSource, value: source}, terminus(typeTarget, at(fields, attachTarget)))
	q.receivers = append(q.receivers, l)
	q.pump()
}

func (l *link) canTake() bool {
	return l.credit > 0 && l.s.window > 0 && len(l.s.blocked) == 0 && l.waiting == nil && !l.detached && !l.deaf
}

// deliver locks a message and sends it to the other side.
func (l *link) deliver(x *entry) {
	var token uuid
	if !l.settled {
		l.queue.lock(x, l)
		token = x.token
	} else {
		token = newUUID()
	}
	data := x.encode()
	q := l.queue
	q.usage.Leased++
	if q.garbled > 0 {
		q.garbled--
		data = []byte("this is no message")
	}
	tag := wireTag(token)
	if q.untagged > 0 {
		q.untagged--
		tag = tag[:5]
	}
	x.delivery = l.transmit(tag, data)
	if !l.settled {
		l.leased[x.delivery] = x
	}
}

// transmit sends a message, in as many frames as it takes. Deliveries are numbered
// apart from frames, and without gaps: the JavaScript SDK checks.
func (l *link) transmit(tag, data []byte) (delivery uint32) {
	s := l.s
	delivery = s.deliveries
	s.deliveries++
	l.credit--
	l.count++
	const room = maxFrame - 512
	for first := true; first || len(data) > 0; first = false {
		n := min(len(data), room)
		fields := []any{l.handle, nil, nil, nil, nil, n < len(data)}
		if first {
			fields = []any{l.handle, delivery, tag, uint32(0), l.settled, n < len(data)}
		}
		s.blocked = append(s.blocked, transfer{l, fields, data[:n]})
		data = data[n:]
	}
	s.flush()
	return delivery
}

// wireTag is a lock token as a delivery tag: as .NET writes a GUID.
func wireTag(token uuid) []byte {
	tag := append([]byte(nil), token[:]...)
	tag[0], tag[1], tag[2], tag[3] = tag[3], tag[2], tag[1], tag[0]
	tag[4], tag[5], tag[6], tag[7] = tag[5], tag[4], tag[7], tag[6]
	return tag
}

// settle settles a delivery. One whose lock has ended is not in leased any more.
func (l *link) settle(x *entry, v verdict) *condition {
	if cond := l.s.c.e.faults.refusal(); cond != nil {
		return cond
	}
	return x.q.settle(x.token, v)
}

// answer confirms that a message is settled with the outcome that was asked for,
// as the Python SDK requires, or reports why it is not.
func (s *session) answer(id uint32, v verdict, cond *condition) {
	state := described{code: v.outcome, value: []any{}}
	if cond != nil {
		state = described{code: typeRejected, value: []any{cond.value()}}
	}
	s.c.send(s.channel, opDisposition, []any{false, id, id, true, state}, nil)
}

// transfer takes a message, or a part of one, from the other side.
func (l *link) transfer(f frame) {
	c := l.s.c
	if l.detached {
		return // it crossed our detach
	}
	if l.size == 0 {
		l.partID, l.format = field[uint32](f.fields, 1), field[uint32](f.fields, 3)
	}
	if l.size += uint64(len(f.payload)); l.size <= min(l.limit(), maxDelivery) {
		l.part = append(l.part, f.payload...)
	}
	aborted := field[bool](f.fields, 9)
	if more := field[bool](f.fields, 5); more && !aborted {
		return
	}
	data, id, size := l.part, l.partID, l.size
	l.part, l.size = nil, 0
	if aborted {
		return
	}
	if l.taken++; l.taken%(senderCredit/2) == 0 {
		l.replenish()
	}
	cond := c.e.faults.refusal()
	switch {
	case cond != nil:
	case uint64(len(data)) < size:
		cond = failure(condSize, "The received message (delivery-id:%d, size:%d bytes) exceeds the limit (%d bytes) currently allowed on the link.",
			id, size, min(l.limit(), maxDelivery))
	default:
		cond = l.take(data, l.format)
	}
	if !field[bool](f.fields, 4) {
		state := described{code: typeAccepted, value: []any{}}
		if cond != nil {
			state = described{code: typeRejected, value: []any{cond.value()}}
		}
		c.send(l.s.channel, opDisposition, []any{true, id, id, true, state}, nil)
	}
}

// batchFormat is the format of a message whose data sections are messages.
const batchFormat = 0x80013700

func (l *link) take(data []byte, format uint32) *condition {
	if l.manage != nil {
		m := new(amqp.Message)
		if err := m.UnmarshalBinary(data); err != nil {
			return failure(condDecode, "%v", err)
		}
		l.respond(m, l.manage(m))
		return nil
	}
	if format != batchFormat {
		return l.put(data)
	}
	batch := new(amqp.Message)
	if err := batch.UnmarshalBinary(data); err != nil {
		return failure(condDecode, "%v", err)
	}
	return l.put(batch.Data...)
}

// put sends encoded messages to the link's entity.
func (l *link) put(encoded ...[]byte) *condition {
	var messages []*message
	for _, data := range encoded {
		m, err := decodeMessage(data)
		if err != nil {
			return failure(condDecode, "%v", err)
		}
		if cond := m.tooManyProperties(); cond != nil {
			return cond
		}
		messages = append(messages, m)
	}
	for _, m := range messages {
		if cond := l.s.c.e.send(l.path, m, 0); cond != nil {
			return cond
		}
	}
	return nil
}

func itoa(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

func formatUUID(u uuid) string { return amqp.UUID(u).String() }
