package handlers

import (
	"container/list"
	"context"
	"math"
	"sync"
)

// Slots is room for invocations in flight, shared by the functions of one pool.
// Whoever waits longest is served first. Its capacity may change at any time;
// when it shrinks below what is in use, nothing new is given out until enough
// came back.
type Slots struct {
	mu       sync.Mutex
	capacity int
	used     int
	waiting  list.List // of *reservation, oldest first
	parked   map[*Share]context.CancelFunc
}

// NewSlots returns room for capacity invocations; 0 is none yet.
func NewSlots(capacity int) *Slots {
	return &Slots{capacity: capacity, parked: make(map[*Share]context.CancelFunc)}
}

// Share is one function's way to the slots, with a limit of its own.
type Share struct {
	slots *Slots
	limit int
	used  int
}

type reservation struct {
	share *Share
	max   int
	got   chan int
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
	s.serve()
}

// Capacity returns how many invocations may be in flight now.
func (s *Slots) Capacity() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.capacity
}

// Reserve waits for at least one free slot and takes up to max. While it waits,
// a reservation of another function that is parked in an idle Receive is
// called back. The error is ctx.Err().
func (h *Share) Reserve(ctx context.Context, max int) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	s := h.slots
	s.mu.Lock()
	if s.waiting.Len() == 0 {
		if n := s.take(h, max); n > 0 {
			s.mu.Unlock()
			return n, nil
		}
	}
	r := &reservation{share: h, max: max, got: make(chan int, 1)}
	place := s.waiting.PushBack(r)
	s.serve()
	s.mu.Unlock()

	select {
	case n := <-r.got:
		return n, nil
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		select {
		case n := <-r.got: // served in the same moment
			s.free(h, n)
		default:
			s.waiting.Remove(place)
		}
		return 0, ctx.Err()
	}
}

// Free gives n slots back.
func (h *Share) Free(n int) {
	if n == 0 {
		return
	}
	h.slots.mu.Lock()
	defer h.slots.mu.Unlock()
	h.slots.free(h, n)
}

// Used returns how many slots the function holds.
func (h *Share) Used() int {
	h.slots.mu.Lock()
	defer h.slots.mu.Unlock()
	return h.used
}

// Park says that the share's reservation now waits in an idle Receive: revoke is
// called, once, when another function needs the slots, and must end the Receive
// so that they are freed.
func (h *Share) Park(revoke context.CancelFunc) {
	s := h.slots
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parked[h] = revoke
	s.serve() // somebody may have queued up between Reserve and Park
}

// Unpark says that the Receive has ended; revoke is not called afterwards.
func (h *Share) Unpark() {
	h.slots.mu.Lock()
	defer h.slots.mu.Unlock()
	delete(h.slots.parked, h)
}

func (s *Slots) take(h *Share, wanted int) int {
	n := min(wanted, s.capacity-s.used, h.limit-h.used)
	if n <= 0 {
		return 0
	}
	s.used += n
	h.used += n
	return n
}

func (s *Slots) free(h *Share, n int) {
	s.used -= n
	h.used -= n
	s.serve()
}

// serve gives free slots to those who wait, in their order. One whose own limit
// is reached does not hold up those behind it.
func (s *Slots) serve() {
	starved := false
	for e := s.waiting.Front(); e != nil; {
		next := e.Next()
		r := e.Value.(*reservation)
		if n := s.take(r.share, r.max); n > 0 {
			s.waiting.Remove(e)
			r.got <- n
		} else if r.share.used < r.share.limit {
			starved = true
		}
		e = next
	}
	if !starved {
		return
	}
	for h, revoke := range s.parked {
		delete(s.parked, h)
		revoke()
	}
}
