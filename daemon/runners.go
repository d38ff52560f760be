package daemon

import "sync"

// runners run the turns of messages, each on a goroutine that it has to itself
// for as long as it takes. A goroutine whose turn came to its end without having
// had to wait goes on with the next: before each turn that is not the last it
// sees to it that another goroutine is on its way, which takes over if the turn
// waits. So short turns are spared the making of a goroutine and of its stack,
// and long ones are all under way at once.
type runners struct {
	mu     sync.Mutex
	turns  []*turn // from head on they wait for a goroutine
	head   int
	coming bool // whether a goroutine was made that has not begun
}

// add has turns run.
func (r *runners) add(turns ...*turn) {
	if len(turns) == 0 {
		return
	}
	r.mu.Lock()
	if r.head == len(r.turns) {
		r.turns, r.head = r.turns[:0], 0
	}
	r.turns = append(r.turns, turns...)
	start := !r.coming
	r.coming = true
	r.mu.Unlock()
	if start {
		go r.run()
	}
}

func (r *runners) run() {
	r.mu.Lock()
	r.coming = false
	for r.head < len(r.turns) {
		t := r.turns[r.head]
		r.turns[r.head] = nil
		r.head++
		start := !r.coming && r.head < len(r.turns)
		r.coming = r.coming || start
		r.mu.Unlock()
		if start {
			go r.run()
		}
		t.run()
		r.mu.Lock()
	}
	r.mu.Unlock()
}
