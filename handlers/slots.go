package handlers

import (
	"container/list"
	"context"
	"math"
	"sync"
	"sync/atomic"
)

// Slots is room for invocations in flight, shared by the functions of one pool.
// Its capacity may change at any time. While more slots are in use than it has, it
// gives out no new ones.
//
// A function is first offered room, then receives messages, and then takes a slot
// for each. An offer binds nobody: an idle function keeps no room from a busy
// one. When the last slot is taken, those that wait for messages are called back,
// so that no message is received that could not run.
type Slots struct {
	mu       sync.Mutex
	capacity int
	used     int
	changed  chan struct{} // closed when there is room again; nil if nobody waits
	queue    list.List     // of *claim: messages that came in when the room was gone
	parked   map[*Share]context.CancelFunc
}

// NewSlots returns room for capacity invocations; 0 is none yet.
func NewSlots(capacity int) *Slots {
	return &Slots{capacity: capacity, parked: make(map[*Share]context.CancelFunc)}
}

// Share is one function's way to the slots, with a limit of its own.
type Share struct {
	slots  atomic.Pointer[Slots] // changes while the mu of both is held
	limit  int
	used   int
	paused bool
}

// Limit changes how many slots the share holds at most; 0 is no limit. What it holds
// beyond that it keeps until it gives it back.
func (h *Share) Limit(limit int) {
	s := h.lock()
	defer s.mu.Unlock()
	if h.limit = limit; limit <= 0 {
		h.limit = math.MaxInt
	}
	s.grant()
	s.callBack()
}

// claim is a message that waits for a slot.
type claim struct {
	share   *Share
	granted chan struct{}
	place   *list.Element // in the queue
}

// Share adds a function that holds at most limit slots at once; 0 is no limit.
func (s *Slots) Share(limit int) *Share {
	if limit <= 0 {
		limit = math.MaxInt
	}
	h := &Share{limit: limit}
	h.slots.Store(s)
	return h
}

// lock returns the slots that the share is of, with their mu held.
func (h *Share) lock() *Slots {
	for {
		s := h.slots.Load()
		s.mu.Lock()
		if h.slots.Load() == s {
			return s
		}
		s.mu.Unlock() // it was moved just now
	}
}

// moving is held while a share is moved: two at once could wait for each other.
var moving sync.Mutex

// Move makes the share one of other slots. What it holds it holds there, if need be
// beyond their capacity: then it is offered nothing until enough came back.
func (h *Share) Move(to *Slots) {
	moving.Lock()
	defer moving.Unlock()
	from := h.lock()
	defer from.mu.Unlock()
	if from == to {
		return
	}
	to.mu.Lock()
	defer to.mu.Unlock()
	h.slots.Store(to)
	from.used -= h.used
	to.used += h.used
	for e := from.queue.Front(); e != nil; {
		next := e.Next()
		if c := e.Value.(*claim); c.share == h {
			from.queue.Remove(e)
			c.place = to.queue.PushBack(c)
		}
		e = next
	}
	if revoke := from.parked[h]; revoke != nil { // it asks for room there
		delete(from.parked, h)
		revoke()
	}
	if from.changed != nil { // so do those who wait for an offer
		close(from.changed)
		from.changed = nil
	}
	from.grant()
	to.grant()
	to.callBack()
}

// Resize changes the capacity.
func (s *Slots) Resize(capacity int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.capacity = capacity
	s.grant()
	s.callBack()
}

// Capacity returns how many invocations may be in flight now.
func (s *Slots) Capacity() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.capacity
}

// room is how many slots the share could take now; s.mu is held. Those who wait
// with a message come first.
func (s *Slots) room(h *Share) int {
	if h.paused {
		return 0
	}
	return max(min(s.capacity-s.used-s.queue.Len(), h.limit-h.used), 0)
}

// Offer waits until there is room, and returns how much. The error is ctx.Err().
func (h *Share) Offer(ctx context.Context) (int, error) {
	for {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		s := h.lock()
		n := s.room(h)
		if n == 0 && s.changed == nil {
			s.changed = make(chan struct{})
		}
		changed := s.changed
		s.mu.Unlock()
		if n > 0 {
			return n, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// Park says that the share waits for messages for the room that it was offered:
// revoke is called, once, when that is gone, and must end the waiting.
func (h *Share) Park(revoke context.CancelFunc) {
	s := h.lock()
	defer s.mu.Unlock()
	s.parked[h] = revoke
	s.callBack() // the room may have gone between Offer and Park
}

// Unpark says that the waiting has ended; revoke is not called afterwards.
func (h *Share) Unpark() {
	s := h.lock()
	defer s.mu.Unlock()
	delete(s.parked, h)
}

// callBack revokes the shares that wait for messages with no room for them.
func (s *Slots) callBack() {
	for h, revoke := range s.parked {
		if s.room(h) == 0 {
			delete(s.parked, h)
			revoke()
		}
	}
}

// Take takes up to n slots and returns how many there were.
func (h *Share) Take(n int) int {
	s := h.lock()
	defer s.mu.Unlock()
	n = min(n, s.room(h))
	s.used += n
	h.used += n
	s.callBack()
	return n
}

// Claim takes one slot, and waits for it, behind those who waited before. The
// error is ctx.Err().
func (h *Share) Claim(ctx context.Context) error {
	s := h.lock()
	c := &claim{share: h, granted: make(chan struct{})}
	c.place = s.queue.PushBack(c)
	s.grant()
	s.callBack()
	s.mu.Unlock()
	select {
	case <-c.granted:
		return nil
	case <-ctx.Done():
	}
	s = h.lock()
	defer s.mu.Unlock()
	select {
	case <-c.granted: // in the same moment
		return nil
	default:
		s.queue.Remove(c.place)
		s.grant()
		return ctx.Err()
	}
}

// Free gives n slots back.
func (h *Share) Free(n int) {
	s := h.lock()
	defer s.mu.Unlock()
	s.used -= n
	h.used -= n
	s.grant()
}

// Used returns how many slots the function holds.
func (h *Share) Used() int {
	s := h.lock()
	defer s.mu.Unlock()
	return h.used
}

// Pause offers no more slots until Resume, and ends the share's wait for messages.
// Messages in flight finish.
func (h *Share) Pause() {
	s := h.lock()
	defer s.mu.Unlock()
	h.paused = true
	s.callBack()
}

// Resume offers room again.
func (h *Share) Resume() {
	s := h.lock()
	defer s.mu.Unlock()
	h.paused = false
	s.grant()
}

// Room returns how many slots the function could have if nobody else wanted any,
// and how many of those are taken, by it or by others.
func (h *Share) Room() (taken, slots int) {
	s := h.lock()
	defer s.mu.Unlock()
	if h.limit < s.capacity {
		return h.used, h.limit
	}
	return s.used, s.capacity
}

// Use is what a function, and those that it shares with, hold of their slots.
type Use struct {
	Used, Limit    int // the function's own; Limit 0: none
	All, Capacity  int // of all that share
	Claims         int // messages that were received and wait for a slot, of all
	Paused, Parked bool
}

// Use reports on the slots. Parked says that the function waits for messages.
func (h *Share) Use() Use {
	s := h.lock()
	defer s.mu.Unlock()
	u := Use{Used: h.used, Limit: h.limit, All: s.used, Capacity: s.capacity, Claims: s.queue.Len(), Paused: h.paused}
	if u.Limit == math.MaxInt {
		u.Limit = 0
	}
	_, u.Parked = s.parked[h]
	return u
}

// grant gives free slots to the claims in their order, and wakes those who wait
// for an offer. A claim whose own limit is reached does not hold up those behind.
func (s *Slots) grant() {
	for e := s.queue.Front(); e != nil && s.used < s.capacity; {
		next := e.Next()
		if c := e.Value.(*claim); c.share.used < c.share.limit {
			s.queue.Remove(e)
			s.used++
			c.share.used++
			close(c.granted)
		}
		e = next
	}
	if s.changed != nil && s.used+s.queue.Len() < s.capacity {
		close(s.changed)
		s.changed = nil
	}
}
