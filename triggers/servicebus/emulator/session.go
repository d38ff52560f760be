package emulator

import (
	"github.com/drover-run/drover/triggers/servicebus/emulator/broker"
	"github.com/drover-run/drover/triggers/servicebus/emulator/codec"
)

// session is one AMQP session; the namespace's lock guards it.
type session struct {
	c       *conn
	channel uint16
	links   map[uint32]*link // by the other side's handle

	window     uint32     // frames that the other side takes
	outgoing   uint32     // the id of our next transfer
	deliveries uint32     // the id of our next delivery
	blocked    []transfer // that wait for the window
	incoming   uint32     // transfers that came
	granted    uint32     // of those, when the window was sent last
}

func newSession(c *conn, begin codec.Frame) *session {
	return &session{c: c, channel: begin.Channel, links: make(map[uint32]*link), window: codec.Field[uint32](begin.Fields, 2)}
}

// transfer is a frame with a message, or a part of one.
type transfer struct {
	link    *link
	fields  []any
	payload []byte
}

// flush sends as many transfers as the window allows.
func (s *session) flush() {
	for len(s.blocked) > 0 && s.window > 0 {
		t := s.blocked[0]
		s.blocked = s.blocked[1:]
		s.c.send(s.channel, codec.OpTransfer, t.fields, t.payload)
		s.window--
		s.outgoing++
	}
}

// endLinks ends all links.
func (s *session) endLinks() {
	for handle, l := range s.links {
		l.leave()
		delete(s.links, handle)
	}
}

func (s *session) handleFrame(f codec.Frame) *codec.Condition {
	switch f.Op {
	case codec.OpAttach:
		return s.attach(f.Fields)
	case codec.OpFlow:
		s.flow(f.Fields)
		return nil
	case codec.OpDisposition:
		s.disposition(f.Fields)
		return nil
	case codec.OpTransfer:
		s.incoming++
		if s.incoming-s.granted >= incomingWindow/2 {
			s.grant()
		}
	}
	l := s.links[codec.Field[uint32](f.Fields, 0)]
	if l == nil {
		if f.Op == codec.OpTransfer {
			return nil // it crossed our detach
		}
		return codec.Failure(codec.CondNotAllowed, "no link has the handle %d", codec.Field[uint32](f.Fields, 0))
	}
	switch f.Op {
	case codec.OpTransfer:
		l.transfer(f)
	case codec.OpDetach:
		l.leave()
		delete(s.links, l.handle)
		if !l.detached {
			s.c.send(s.channel, codec.OpDetach, []any{l.handle, true}, nil)
		}
	default:
		return codec.Failure(codec.CondNotImpl, "a frame of type 0x%x", f.Op)
	}
	return nil
}

// grant announces the number of transfers that are accepted.
func (s *session) grant() {
	s.granted = s.incoming
	s.c.send(s.channel, codec.OpFlow, []any{s.incoming, uint32(incomingWindow), s.outgoing, uint32(incomingWindow)}, nil)
}

func (s *session) flow(fields []any) {
	inTransit := s.outgoing - codec.Field[uint32](fields, 0)
	size := codec.Field[uint32](fields, 1)
	s.window = size - min(inTransit, size)
	s.flush()
	pumped := false
	if codec.Has(fields, 4) {
		if l := s.links[codec.Field[uint32](fields, 4)]; l != nil && !l.fromPeer {
			l.credit = codec.Field[uint32](fields, 5) + codec.Field[uint32](fields, 6) - l.count
			l.drain = codec.Field[bool](fields, 8)
			l.sendAnswers()
			pumped = l.receiver != nil && l.receiver.Pump()
			if l.drain {
				l.count += l.credit
				l.credit = 0
			}
			if l.drain || codec.Field[bool](fields, flowEcho) {
				s.c.send(s.channel, codec.OpFlow, []any{s.incoming, uint32(incomingWindow), s.outgoing, uint32(incomingWindow),
					l.handle, l.count, l.credit, nil, l.drain}, nil)
			}
		}
	}
	if !pumped {
		for _, l := range s.links {
			l.sendAnswers()
			if l.receiver != nil {
				l.receiver.Pump()
			}
		}
	}
	if codec.Field[bool](fields, flowEcho) {
		s.grant()
	}
}

// flowEcho is the index of the field with which the client requests a flow.
const flowEcho = 9

// maxRange limits the number of deliveries that are settled at once.
const maxRange = 1 << 16

// disposition settles deliveries over the links of the session.
func (s *session) disposition(fields []any) {
	first := codec.Field[uint32](fields, 1)
	last := first
	if codec.Has(fields, 2) {
		last = codec.Field[uint32](fields, 2)
	}
	if !codec.Field[bool](fields, 0) || last-first > maxRange {
		return // of what we received: it is settled already
	}
	settled := codec.Field[bool](fields, 3)
	v, code := verdictOf(fields)
	for id := first; ; id++ {
		cond := s.settle(id, v)
		if !settled { // else nobody waits
			s.confirm(id, code, cond)
		}
		if id == last {
			return
		}
	}
}

// settle settles a delivery. A delivery whose lock has ended is unknown.
func (s *session) settle(id uint32, v broker.Verdict) *codec.Condition {
	for _, l := range s.links {
		if l.receiver == nil || !l.receiver.HasDelivery(id) {
			continue
		}
		if cond := s.c.faults.refusal(); cond != nil {
			return cond
		}
		return l.receiver.SettleDelivery(id, v)
	}
	return broker.ErrLost
}

// confirm confirms that a message was settled with the requested outcome, as the Python SDK
// requires, or reports why it was not.
func (s *session) confirm(id uint32, outcome uint64, cond *codec.Condition) {
	state := codec.Described{Code: outcome, Value: []any{}}
	if cond != nil {
		state = codec.Described{Code: codec.TypeRejected, Value: []any{cond.Value()}}
	}
	s.c.send(s.channel, codec.OpDisposition, []any{false, id, id, true, state}, nil)
}
