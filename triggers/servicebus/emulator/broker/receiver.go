package broker

import (
	"slices"
	"time"

	"github.com/drover-run/drover/triggers/servicebus/emulator/codec"
)

// Link carries messages from a queue to a client.
type Link interface {
	// CanTake reports whether the link can take another message.
	CanTake() bool
	// Transmit sends an encoded message, and returns its delivery number.
	Transmit(tag, data []byte) (delivery uint32)
	// AcceptSession is called when the receiver has acquired the session that it waited for.
	AcceptSession(id string, until time.Time)
	// Detach ends the link with an error. The link calls Leave.
	Detach(*codec.Condition)
}

// Receiver receives from a queue over a link.
type Receiver struct {
	q       *Queue
	link    Link
	name    string
	deletes bool // delivered messages are deleted, not locked
	left    bool
	deaf    bool // nothing is delivered, without an error
	session *Session
	leased  map[uint32]*entry // by delivery
}

// NewReceiver returns a receiver. With deletes, receiving a message deletes it. One of the three
// methods below attaches it to the queue; Leave removes it.
func NewReceiver(q *Queue, link Link, name string, deletes bool) *Receiver {
	return &Receiver{q: q, link: link, name: name, deletes: deletes, leased: make(map[uint32]*entry)}
}

// Attach attaches the receiver to a queue without sessions. The next Pump delivers messages to it.
func (r *Receiver) Attach() { r.q.receivers = append(r.q.receivers, r) }

// AttachTo attaches the receiver to a session, which it holds from now on.
func (r *Receiver) AttachTo(id string) *codec.Condition {
	s := r.q.session(id)
	if s.owner != nil {
		return codec.Failure(codec.CondSessionLocked, "The requested session '%s' cannot be accepted. It may be locked by another receiver.", id)
	}
	r.hold(s)
	return nil
}

// AttachToNext makes the receiver wait for a session with messages and without a receiver.
func (r *Receiver) AttachToNext() {
	r.q.accepting = append(r.q.accepting, r)
	r.q.pump()
}

// hold gives a session to the receiver.
func (r *Receiver) hold(s *Session) {
	now := r.q.n.clock.now()
	s.owner, s.until, s.touched = r, now.Add(r.q.Options.LockDuration), now
	r.session = s
	r.watchSession(s)
	r.link.AcceptSession(s.id, s.until)
	r.q.receivers = append(r.q.receivers, r)
	r.q.pump()
}

// watchSession detaches the receiver when the lock of its session ends.
func (r *Receiver) watchSession(s *Session) {
	q := r.q
	q.n.clock.at(s.until, func() {
		switch {
		case s.owner != r:
		case q.n.clock.now().Before(s.until):
			r.watchSession(s)
		default:
			for _, x := range q.locks.byToken {
				if x.owner == r {
					q.usage.Lost++
				}
			}
			r.link.Detach(codec.Failure(codec.CondSessionLost, "The session lock has expired on the MessageSession. Accept a new MessageSession."))
		}
	})
}

func (r *Receiver) canTake() bool { return !r.deaf && r.link.CanTake() }

// Pump delivers waiting messages to this receiver and others of its queue. The link calls it when
// it can take messages again. It returns false if the receiver has left.
func (r *Receiver) Pump() bool {
	if !r.left {
		r.q.pump()
	}
	return !r.left
}

// deliver locks a message and sends it over the link.
func (r *Receiver) deliver(x *entry) {
	var token codec.UUID
	if r.deletes {
		token = codec.NewUUID()
	} else {
		r.q.locks.add(x, r)
		token = x.token
	}
	data, tag := x.encode(), token.DeliveryTag()
	r.q.usage.Leased++
	if r.q.garbled > 0 {
		r.q.garbled--
		data = []byte("this is not a message")
	}
	if r.q.untagged > 0 {
		r.q.untagged--
		tag = tag[:5]
	}
	x.delivery = r.link.Transmit(tag, data)
	if !r.deletes {
		r.leased[x.delivery] = x
	}
}

// HasDelivery reports whether a delivery over the receiver's link is not settled.
func (r *Receiver) HasDelivery(delivery uint32) bool { return r.leased[delivery] != nil }

// SettleDelivery ends the lock of one of the receiver's deliveries. If it refuses the verdict, the
// message stays locked.
func (r *Receiver) SettleDelivery(delivery uint32, v Verdict) *codec.Condition {
	return r.q.Settle(r.leased[delivery].token, v)
}

// Leave removes the receiver from its queue. Messages delivered over it stay locked until the
// lock ends, and can still be settled over it; a session's messages return at once.
func (r *Receiver) Leave() {
	if r.left {
		return
	}
	r.left = true
	q := r.q
	q.receivers = slices.DeleteFunc(q.receivers, func(o *Receiver) bool { return o == r })
	q.accepting = slices.DeleteFunc(q.accepting, func(o *Receiver) bool { return o == r })
	if r.session != nil && r.session.owner == r {
		r.session.owner = nil
		r.session.touched = q.n.clock.now()
		for token, x := range q.locks.byToken {
			if x.owner == r {
				q.release(q.locks.remove(token), false)
			}
		}
	}
	for _, x := range r.leased {
		if x.owner == r {
			x.owner = nil
		}
	}
	r.session = nil
	q.pump()
}
