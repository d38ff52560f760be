package handlers

import (
	"container/list"
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"
)

// Slots limits the invocations in flight of the functions of one pool, which share it.
// Its capacity may change at any time. While more slots are in use than that, it
// grants no new ones.
//
// A function is first offered slots, then receives messages, and then takes a slot
// for each. An offer reserves nothing: an idle function takes no slots from a busy
// one. When the last slot is taken, the waiting Receives of the other functions are
// cancelled, so that no message is received that could not run.
type Slots struct {
	mu       sync.Mutex
	capacity int
	used     int
	changed  chan struct{} // closed when a slot is free again; nil if no Offer waits
	queue    list.List     // of *claim: messages received after the last slot was taken
	parked   map[*Share]context.CancelFunc
	derived  []*derivedSlots
}

// NewSlots returns slots for capacity invocations; 0 is none yet.
func NewSlots(capacity int) *Slots {
	return &Slots{capacity: capacity, parked: make(map[*Share]context.CancelFunc)}
}

// Share is one function's access to the slots, with its own limit.
type Share struct {
	slots  atomic.Pointer[Slots] // changes while the mu of both is held
	limit  int
	used   int
	paused bool
}

// Limit changes how many slots the share holds at most; 0 is no limit. Slots beyond a
// lower limit stay in use until Free.
func (h *Share) Limit(limit int) {
	s := h.lockSlots()
	defer s.mu.Unlock()
	if h.limit = limit; limit <= 0 {
		h.limit = math.MaxInt
	}
	s.grantClaims()
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

// lockSlots returns the share's slots, with their mu held.
func (h *Share) lockSlots() *Slots {
	for {
		s := h.slots.Load()
		s.mu.Lock()
		if h.slots.Load() == s {
			return s
		}
		s.mu.Unlock() // the share was moved just now
	}
}

// moving is held while a share is moved: two at once could wait for each other.
var moving sync.Mutex

// Move moves the share to other slots. The slots that it uses are then in use there, even
// beyond their capacity: in that case it is offered none until enough are free.
func (h *Share) Move(to *Slots) {
	moving.Lock()
	defer moving.Unlock()
	from := h.lockSlots()
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
	if revoke := from.parked[h]; revoke != nil { // it requests slots there
		delete(from.parked, h)
		revoke()
	}
	if from.changed != nil { // so do those that wait for an offer
		close(from.changed)
		from.changed = nil
	}
	from.grantClaims()
	to.grantClaims()
	to.callBack()
}

// Resize changes the capacity.
func (s *Slots) Resize(capacity int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.capacity = capacity
	s.grantClaims()
	s.callBack()
	for _, d := range s.derived {
		d.Resize(d.capacityFor(capacity))
	}
}

// derivedSlots are slots whose capacity follows that of others.
type derivedSlots struct {
	*Slots
	factor, most int
}

func (d derivedSlots) capacityFor(calls int) int { return min(calls*d.factor, max(calls, d.most)) }

// Derive returns slots for messages, while those of s are for calls with factor messages each.
// Their capacity follows that of s, and is at most the larger of most and the number of calls. stop
// ends that.
func (s *Slots) Derive(factor, most int) (derived *Slots, stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := &derivedSlots{factor: factor, most: most}
	d.Slots = NewSlots(d.capacityFor(s.capacity))
	s.derived = append(s.derived, d)
	return d.Slots, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.derived = slices.DeleteFunc(s.derived, func(other *derivedSlots) bool { return other == d })
	}
}

// Capacity returns how many invocations may be in flight now.
func (s *Slots) Capacity() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.capacity
}

// roomFor is how many slots the share could take now; s.mu is held. Messages that wait for a
// slot come first.
func (s *Slots) roomFor(h *Share) int {
	if h.paused {
		return 0
	}
	return max(min(s.capacity-s.used-s.queue.Len(), h.limit-h.used), 0)
}

// Offer waits until slots are free, and returns how many. The error is ctx.Err().
func (h *Share) Offer(ctx context.Context) (int, error) {
	for {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		s := h.lockSlots()
		n := s.roomFor(h)
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

// Park records that the share waits for messages for the slots that it was offered.
// revoke is called once, when these are taken, and must end the wait.
func (h *Share) Park(revoke context.CancelFunc) {
	s := h.lockSlots()
	defer s.mu.Unlock()
	s.parked[h] = revoke
	s.callBack() // the slots may have been taken between Offer and Park
}

// Unpark records that the wait has ended; revoke is not called afterwards.
func (h *Share) Unpark() {
	s := h.lockSlots()
	defer s.mu.Unlock()
	delete(s.parked, h)
}

// callBack revokes the shares that wait for messages without a free slot for them.
func (s *Slots) callBack() {
	for h, revoke := range s.parked {
		if s.roomFor(h) == 0 {
			delete(s.parked, h)
			revoke()
		}
	}
}

// Take takes up to n slots and returns how many it took.
func (h *Share) Take(n int) int {
	s := h.lockSlots()
	defer s.mu.Unlock()
	n = min(n, s.roomFor(h))
	s.used += n
	h.used += n
	s.callBack()
	return n
}

// Claim takes one slot. It waits for it if need be, in the order of the calls. The
// error is ctx.Err().
func (h *Share) Claim(ctx context.Context) error {
	s := h.lockSlots()
	c := &claim{share: h, granted: make(chan struct{})}
	c.place = s.queue.PushBack(c)
	s.grantClaims()
	s.callBack()
	s.mu.Unlock()
	select {
	case <-c.granted:
		return nil
	case <-ctx.Done():
	}
	s = h.lockSlots()
	defer s.mu.Unlock()
	select {
	case <-c.granted: // in the same moment
		return nil
	default:
		s.queue.Remove(c.place)
		s.grantClaims()
		return ctx.Err()
	}
}

// Free releases n slots.
func (h *Share) Free(n int) {
	s := h.lockSlots()
	defer s.mu.Unlock()
	s.used -= n
	h.used -= n
	s.grantClaims()
}

// Used returns how many slots the function holds.
func (h *Share) Used() int {
	s := h.lockSlots()
	defer s.mu.Unlock()
	return h.used
}

// Pause offers no more slots until Resume, and ends the share's wait for messages.
// Messages in flight finish.
func (h *Share) Pause() {
	s := h.lockSlots()
	defer s.mu.Unlock()
	h.paused = true
	s.callBack()
}

// Resume offers slots again.
func (h *Share) Resume() {
	s := h.lockSlots()
	defer s.mu.Unlock()
	h.paused = false
	s.grantClaims()
}

// Room returns how many slots the function could use if no other function used any,
// and how many of those are taken, by it or by others.
func (h *Share) Room() (taken, slots int) {
	s := h.lockSlots()
	defer s.mu.Unlock()
	if h.limit < s.capacity {
		return h.used, h.limit
	}
	return s.used, s.capacity
}

// Use is the use of slots by a function, and by all functions that share them.
type Use struct {
	Used, Limit    int // the function's own; Limit 0: none
	All, Capacity  int // of all functions that share the slots
	Claims         int // messages that were received and wait for a slot, of all
	Paused, Parked bool
}

// Use returns the use of the slots. Parked means that the function waits for messages.
func (h *Share) Use() Use {
	s := h.lockSlots()
	defer s.mu.Unlock()
	u := Use{Used: h.used, Limit: h.limit, All: s.used, Capacity: s.capacity, Claims: s.queue.Len(), Paused: h.paused}
	if u.Limit == math.MaxInt {
		u.Limit = 0
	}
	_, u.Parked = s.parked[h]
	return u
}

// grantClaims grants free slots to the claims in order, and wakes waiting Offers.
// A claim whose share has reached its limit does not block the claims behind it.
func (s *Slots) grantClaims() {
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
