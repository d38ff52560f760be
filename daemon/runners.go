package daemon

import "sync"

// runners run the turns of messages, each on a goroutine that it has to itself
// for as long as it takes. A goroutine whose turn came to its end without having
// had to wait goes on with the next: before each turn that is not the last it
// sees to it that another goroutine is on its way, which takes over if the turn
// waits. So short turns are spared the making of a goroutine and of its stack,
// and long ones are all under way at once. One that has nothing to do rests, with
// the stack that it has grown, until there is something again.
type runners struct {
	mu     sync.Mutex
	turns  []*turn // from head on they wait for a goroutine
	head   int
	coming bool // whether a goroutine was made or woken that has not begun

	rest    sync.Cond // with mu, set by begin
	resting int
	woken   int // of those that rest
	ended   bool
}

// maxResting bounds the goroutines that rest.
const maxResting = 256

// begin makes the runners ready; end lets those that rest go.
func (r *runners) begin() { r.rest.L = &r.mu }

func (r *runners) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	r.rest.Broadcast()
}

// add has turns run.
func (r *runners) add(turns ...*turn) {
	if len(turns) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.head == len(r.turns) {
		r.turns, r.head = r.turns[:0], 0
	}
	r.turns = append(r.turns, turns...)
	r.another()
}

// another has a goroutine come, if none is on its way; mu is held.
func (r *runners) another() {
	switch {
	case r.coming:
		return
	case r.resting > r.woken:
		r.woken++
		r.rest.Signal()
	default:
		go r.run()
	}
	r.coming = true
}

func (r *runners) run() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		r.coming = false
		for r.head < len(r.turns) {
			t := r.turns[r.head]
			r.turns[r.head] = nil
			r.head++
			if r.head < len(r.turns) {
				r.another()
			}
			r.mu.Unlock()
			t.run()
			r.mu.Lock()
		}
		if r.ended || r.resting >= maxResting {
			return
		}
		r.resting++
		for r.woken == 0 && !r.ended {
			r.rest.Wait()
		}
		r.resting--
		if r.woken == 0 {
			return
		}
		r.woken--
	}
}
