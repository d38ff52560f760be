package handlers

import (
	"container/list"
	"context"
	"math"
	"sync"
)

// Slots is room for invocations in flight, shared by the functions of one pool.
// Its capacity may change at any time; when it shrinks below what is in use,
// nothing new is given out until enough came back.
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
	slots  *Slots
	limit  int
	used   int
	paused bool
}

// Limit changes how many slots the share holds at most; 0 is no limit. What it holds
// beyond that it keeps until it gives it back.
func (h *Share) Limit(limit int) {
	h.slots.mu.Lock()
	defer h.slots.mu.Unlock()
	if h.limit = limit; limit <= 0 {
		h.limit = math.MaxInt
	}
	h.slots.grant()
	h.slots.callBack()
}

// claim is a message that waits for a slot.
type claim struct {
	share   *Share
	granted chan struct{}
}

// Share adds a function that holds at most limit slots at once; 0 is no limit.
func (s *Slots) Share(limit int) *Share {
	if limit <= 0 {
		limit = math.MaxInt
	}
	return &Share{slots: s, limit: limit}
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
	s := h.slots
	for {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		s.mu.Lock()
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
	h.slots.mu.Lock()
	defer h.slots.mu.Unlock()
	h.slots.parked[h] = revoke
	h.slots.callBack() // the room may have gone between Offer and Park
}

// Unpark says that the waiting has ended; revoke is not called afterwards.
func (h *Share) Unpark() {
	h.slots.mu.Lock()
	defer h.slots.mu.Unlock()
	delete(h.slots.parked, h)
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
	s := h.slots
	s.mu.Lock()
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
	s := h.slots
	s.mu.Lock()
	c := &claim{share: h, granted: make(chan struct{})}
	place := s.queue.PushBack(c)
	s.grant()
	s.callBack()
	s.mu.Unlock()
	select {
	case <-c.granted:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-c.granted: // in the same moment
		return nil
	default:
		s.queue.Remove(place)
		s.grant()
		return ctx.Err()
	}
}

// Free gives n slots back.
func (h *Share) Free(n int) {
	h.slots.mu.Lock()
	defer h.slots.mu.Unlock()
	h.slots.used -= n
	h.used -= n
	h.slots.grant()
}

// Used returns how many slots the function holds.
func (h *Share) Used() int {
	h.slots.mu.Lock()
	defer h.slots.mu.Unlock()
	return h.used
}

// Pause offers no more room, and calls the share back where it waits for messages,
// until Resume. What it has received goes on.
func (h *Share) Pause() {
	h.slots.mu.Lock()
	defer h.slots.mu.Unlock()
	h.paused = true
	h.slots.callBack()
}

// Resume offers room again.
func (h *Share) Resume() {
	h.slots.mu.Lock()
	defer h.slots.mu.Unlock()
	h.paused = false
	h.slots.grant()
}

// Room returns how many slots the function could have if nobody else wanted any,
// and how many of those are taken, by it or by others.
func (h *Share) Room() (taken, slots int) {
	s := h.slots
	s.mu.Lock()
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
	s := h.slots
	s.mu.Lock()
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
