package dispatch

import "sync"

// executionPool runs executions, each on a goroutine that it has to itself for as long
// as it takes. A goroutine whose execution ended without having to wait continues with
// the next one. Before each execution that is not the last it makes sure that another
// goroutine is about to run, which takes over if the execution waits. Short executions
// are thereby spared the making of a goroutine and of its stack, and long ones all run
// at once. A goroutine that has nothing to do rests, with the stack that it has grown,
// until there is work again.
//
// Its methods may be called from many goroutines.
type executionPool struct {
	mu      sync.Mutex
	waiting []*execution // from head on they wait for a goroutine
	head    int
	coming  bool // a goroutine was made or woken that has not begun

	rest    sync.Cond // with mu, set by open
	resting int
	woken   int // of those that rest
	ended   bool
}

// maxResting bounds the goroutines that rest.
const maxResting = 256

// open makes the pool ready. Each pool that is opened must be shut down.
func (p *executionPool) open() { p.rest.L = &p.mu }

// shutdown ends the goroutines that rest, and the others when they have no more to do.
// It does not wait for them.
func (p *executionPool) shutdown() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	p.rest.Broadcast()
}

// enqueue has executions run.
func (p *executionPool) enqueue(executions ...*execution) {
	if len(executions) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.head == len(p.waiting) {
		p.waiting, p.head = p.waiting[:0], 0
	}
	p.waiting = append(p.waiting, executions...)
	p.wakeAnother()
}

// wakeAnother wakes or makes a goroutine, unless one is about to run; mu is held.
func (p *executionPool) wakeAnother() {
	switch {
	case p.coming:
		return
	case p.resting > p.woken:
		p.woken++
		p.rest.Signal()
	default:
		go p.runWaiting()
	}
	p.coming = true
}

func (p *executionPool) runWaiting() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		p.coming = false
		for p.head < len(p.waiting) {
			x := p.waiting[p.head]
			p.waiting[p.head] = nil
			p.head++
			if p.head < len(p.waiting) {
				p.wakeAnother()
			}
			p.mu.Unlock()
			x.runToEnd()
			p.mu.Lock()
		}
		if p.ended || p.resting >= maxResting {
			return
		}
		p.resting++
		for p.woken == 0 && !p.ended {
			p.rest.Wait()
		}
		p.resting--
		if p.woken == 0 {
			return
		}
		p.woken--
	}
}
