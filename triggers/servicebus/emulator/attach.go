package emulator

import (
	"strings"
	"time"

	"github.com/Azure/go-amqp"

	"github.com/drover-run/drover/triggers/servicebus/emulator/broker"
	"github.com/drover-run/drover/triggers/servicebus/emulator/codec"
)

// The indices of the fields of attach.
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

func (s *session) attach(fields []any) *codec.Condition {
	l := &link{
		s: s, name: codec.Field[string](fields, attachName), handle: codec.Field[uint32](fields, attachHandle),
		fromPeer: !codec.Field[bool](fields, attachRole),
	}
	if len(s.links) == maxHandles || s.links[l.handle] != nil {
		return codec.Failure(codec.CondNotAllowed, "the handle %d is in use, or one too many", l.handle)
	}
	s.links[l.handle] = l
	var cond *codec.Condition
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

// answerAttach returns the answer to an attach: the same fields with the opposite role. With a
// session it contains the end of the session's lock.
func (l *link) answerAttach(fields []any, source, target any, until ...time.Time) {
	out := []any{l.name, l.handle, l.fromPeer, nil, nil, source, target, nil, nil, nil, l.limit()}
	for _, i := range []int{attachSndMode, attachRcvMode} {
		if i < len(fields) {
			out[i] = fields[i]
		}
	}
	if !l.fromPeer {
		out[attachCount] = uint32(0)
	}
	for _, at := range until {
		ticks := at.UTC().UnixNano()/100 + 621355968000000000 // since the year 1, in 100 ns
		out = append(out, nil, nil, map[any]any{codec.Symbol("com.microsoft:locked-until-utc"): ticks})
	}
	l.s.c.send(l.s.channel, codec.OpAttach, out, nil)
}

// refuse answers an attach and ends the link at once, as the standard requires.
func (l *link) refuse(fields []any, cond *codec.Condition) {
	l.answerAttach(fields, nil, nil)
	l.Detach(cond)
}

func address(v any) string {
	_, fields := codec.Composite(v)
	return codec.Field[string](fields, 0)
}

// entityPath returns the entity that an address names: a path, or a whole URI, which the Python SDK
// sends.
func entityPath(address string) string {
	if _, rest, found := strings.Cut(address, "://"); found {
		_, address, _ = strings.Cut(rest, "/")
	}
	return strings.Trim(address, "/")
}

// terminus returns a source or target for a reply, with its address.
func terminus(code uint64, v any) codec.Described {
	return codec.Described{Code: code, Value: []any{address(v)}}
}

func (l *link) attachSender(fields []any) *codec.Condition {
	c := l.s.c
	l.path = entityPath(address(codec.At(fields, attachTarget)))
	name := strings.ToLower(l.path)
	switch {
	case name == "$cbs":
		if c.hasClaims {
			return codec.Failure(codec.CondNotAllowed, "A link to connection '$cbs' node is already open.")
		}
		l.claims, c.hasClaims = true, true
		l.manage = c.putToken
	case strings.HasSuffix(name, "/$management"):
		entity := l.path[:len(l.path)-len("/$management")]
		q, cond := c.namespace.Queue(entity)
		switch {
		case cond == nil:
			l.manage = func(m *amqp.Message) *amqp.Message { return c.manageQueue(q, m) }
		case c.namespace.Topic(entity) != nil:
			l.manage = func(m *amqp.Message) *amqp.Message { return c.manageTopic(entity, m) }
		default:
			return cond
		}
	case c.namespace.Topic(name) != nil:
		if c.namespace.Topic(name).Disabled {
			return codec.Failure(codec.CondDisabled, "Messaging entity '%s' is currently disabled.", l.path)
		}
	default:
		q, cond := c.namespace.Queue(l.path)
		if cond != nil {
			return cond
		}
		if q.Options.Disabled {
			return codec.Failure(codec.CondDisabled, "Messaging entity '%s' is currently disabled.", l.path)
		}
		if q.IsDead() || strings.Contains(name, "/subscriptions/") {
			return codec.Failure(codec.CondNotAllowed, "The entity '%s' takes no messages from senders.", l.path)
		}
	}
	if l.manage == nil && !c.allows(c.rights, l.path, claimSend) {
		return codec.Failure(codec.CondUnauthorized, "Unauthorized access. 'Send' claim(s) are required to perform this operation. Resource: '%s'.", l.path)
	}
	l.answerAttach(fields, terminus(codec.TypeSource, codec.At(fields, attachSource)), terminus(codec.TypeTarget, codec.At(fields, attachTarget)))
	l.replenish()
	return nil
}

func (l *link) attachReceiver(fields []any) *codec.Condition {
	c := l.s.c
	source := codec.At(fields, attachSource)
	l.path = entityPath(address(source))
	name := strings.ToLower(l.path)
	if name == "$cbs" || strings.HasSuffix(name, "/$management") {
		l.asks = true
		l.reply = address(codec.At(fields, attachTarget))
		l.settled = true
		l.answerAttach(fields, terminus(codec.TypeSource, codec.At(fields, attachSource)), terminus(codec.TypeTarget, codec.At(fields, attachTarget)))
		return nil
	}
	q, cond := c.namespace.Queue(l.path)
	if cond != nil {
		return cond
	}
	if !c.allows(c.rights, l.path, claimListen) {
		return codec.Failure(codec.CondUnauthorized, "Unauthorized access. 'Listen' claim(s) are required to perform this operation. Resource: '%s'.", l.path)
	}
	if q.Options.Disabled {
		return codec.Failure(codec.CondDisabled, "Messaging entity '%s' is currently disabled.", l.path)
	}
	if cond := c.faults.refusal(); cond != nil {
		return cond
	}
	l.settled = codec.Field[uint8](fields, attachSndMode) == 1
	_, parts := codec.Composite(source)
	filters := codec.Field[map[any]any](parts, 7)
	filter, wants := filters[codec.Symbol(sessionFilter)]
	switch {
	case wants && !q.Options.RequiresSession:
		return codec.Failure(codec.CondNotAllowed, "It is not possible for an entity that does not require sessions to create a session receiver. Entity: '%s'.", q.Path)
	case !wants && q.Options.RequiresSession:
		return codec.Failure(codec.CondNotAllowed, "It is not possible for an entity that requires sessions to create a non-sessionful message receiver. Entity: '%s'.", q.Path)
	case !wants:
		l.answerAttach(fields, terminus(codec.TypeSource, codec.At(fields, attachSource)), terminus(codec.TypeTarget, codec.At(fields, attachTarget)))
		l.receiver = broker.NewReceiver(q, l, l.name, l.settled)
		l.receiver.Attach()
		return nil
	}
	l.receiver = broker.NewReceiver(q, l, l.name, l.settled)
	l.waiting = fields
	id, ok := filter.(string)
	if d, is := filter.(codec.Described); is {
		id, ok = d.Value.(string)
	}
	if ok {
		return l.receiver.AttachTo(id)
	}
	// The next free session is awaited as long as the client asks for, or for the service's minute.
	wait := time.Minute
	if m := codec.Field[map[any]any](fields, attachProperties); m != nil {
		if ms, ok := m[codec.Symbol("com.microsoft:timeout")].(uint32); ok {
			wait = time.Duration(ms) * time.Millisecond
		}
	}
	c.namespace.After(wait, func() {
		if l.waiting != nil {
			l.refuse(fields, codec.Failure(codec.CondTimeout, "The operation did not complete within the allotted timeout of %v.", wait))
		}
	})
	l.receiver.AttachToNext()
	return nil
}

// AcceptSession implements broker.Link: it answers the attach.
func (l *link) AcceptSession(id string, until time.Time) {
	fields := l.waiting
	l.waiting = nil
	// The answer has the form of the request: the Go SDK accepts only a described name, the
	// JavaScript SDK only a plain one.
	_, parts := codec.Composite(codec.At(fields, attachSource))
	var name any = id
	if asked, is := codec.Field[map[any]any](parts, 7)[codec.Symbol(sessionFilter)].(codec.Described); is {
		asked.Value = id
		name = asked
	}
	source := []any{address(codec.At(fields, attachSource)), nil, nil, nil, nil, nil, nil, map[any]any{codec.Symbol(sessionFilter): name}}
	l.answerAttach(fields, codec.Described{Code: codec.TypeSource, Value: source}, terminus(codec.TypeTarget, codec.At(fields, attachTarget)), until)
}
