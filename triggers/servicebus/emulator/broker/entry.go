package broker

import (
	"container/list"
	"maps"
	"time"

	"github.com/drover-run/drover/triggers/servicebus/emulator/codec"
)

// entry is a message in a queue.
type entry struct {
	message    *codec.Message
	sequence   int64
	enqueued   time.Time
	expires    time.Time // zero: never
	deliveries uint32    // that failed
	session    string
	scheduled  bool
	deferred   bool
	locked     bool
	owner      *Receiver // that it was delivered to; nil: a request locked it
	delivery   uint32
	token      codec.UUID
	until      time.Time
	place      *list.Element // in locks.ending
}

// letter returns the message as a dead letter. fromDead is set if it already is one.
func (x *entry) letter(reason, description string, properties map[string]any, fromDead bool) *codec.Message {
	m := x.message.Clone()
	set := maps.Clone(properties)
	if set == nil {
		set = make(map[string]any)
	}
	if reason != "" {
		set[codec.DeadLetterReason] = reason
	}
	if description != "" {
		set[codec.DeadLetterDescription] = description
	}
	m.SetApplication(set)
	if !fromDead {
		m.Annotations[codec.Symbol("x-opt-enqueue-sequence-number")] = x.sequence
		delete(m.Annotations, codec.ScheduledTime)
	}
	m.SetDeliveries(x.deliveries)
	return m
}

// encode encodes the message in its current state.
func (x *entry) encode() []byte {
	m := x.message
	m.SetDeliveries(x.deliveries)
	m.Annotations[codec.Symbol("x-opt-sequence-number")] = x.sequence
	m.Annotations[codec.Symbol("x-opt-enqueued-time")] = x.enqueued
	delete(m.Annotations, codec.MessageState)
	delete(m.Annotations, codec.LockedUntil)
	switch {
	case x.scheduled:
		m.Annotations[codec.MessageState] = int64(2)
	case x.deferred:
		m.Annotations[codec.MessageState] = int64(1)
	}
	if !x.locked {
		return m.Encode(nil)
	}
	m.Annotations[codec.LockedUntil] = x.until
	return m.Encode(map[any]any{codec.LockToken: x.token})
}

// locks are the locked messages of a queue.
type locks struct {
	clock   *clock
	options *QueueOptions
	lost    func(*entry) // is called with a message whose lock has ended

	byToken  map[codec.UUID]*entry
	ending   list.List // the one whose lock ends first in front; with sessions, the session is locked instead
	sweeping bool      // a timer is set for that one
}

// add locks a message for a receiver, or for a request if the receiver is nil.
func (l *locks) add(x *entry, to *Receiver) {
	x.locked, x.token, x.owner, x.until = true, codec.NewUUID(), to, l.end()
	l.byToken[x.token] = x
	if !l.options.RequiresSession {
		x.place = l.ending.PushBack(x)
		l.sweepLater()
	}
}

// end returns the end of a lock that begins now.
func (l *locks) end() time.Time { return l.clock.now().Add(l.options.LockDuration) }

// renew extends a lock.
func (l *locks) renew(x *entry) time.Time {
	x.until = l.end()
	if x.place != nil {
		l.ending.MoveToBack(x.place)
	}
	return x.until
}

// remove unlocks a message, and returns it; nil if its lock has ended.
func (l *locks) remove(token codec.UUID) *entry {
	x := l.byToken[token]
	if x == nil {
		return nil
	}
	delete(l.byToken, token)
	x.locked = false
	if x.place != nil {
		l.ending.Remove(x.place)
		x.place = nil
	}
	if x.owner != nil {
		delete(x.owner.leased, x.delivery)
		x.owner = nil
	}
	return x
}

func (l *locks) sweepLater() {
	front := l.ending.Front()
	if front == nil || l.sweeping {
		return
	}
	l.sweeping = true
	l.clock.at(front.Value.(*entry).until, func() {
		l.sweeping = false
		for front := l.ending.Front(); front != nil; front = l.ending.Front() {
			x := front.Value.(*entry)
			if l.clock.now().Before(x.until) {
				break
			}
			l.lost(l.remove(x.token))
		}
		l.sweepLater()
	})
}
