package dispatch

import "sync"

// executionPool runs executions, each on a goroutine that runs nothing else until it ends. If the
// execution ended without blocking, its goroutine continues with the next one. Before each
// execution but the last, the goroutine ensures that another goroutine is about to run, which
// takes over if the execution blocks. So short executions need no new goroutine and no new stack,
// and long ones all run at once. An idle goroutine waits for work, with the stack that it has
// grown.
//
// Its methods may be called from many goroutines.
type executionPool struct {
	mu           sync.Mutex
	waiting      []*execution // those from head on wait for a goroutine
	head         int
	startPending bool // a goroutine was started or woken and does not run yet

	idleCond sync.Cond // uses mu; set by openPool
	idle     int
	woken    int // how many idle goroutines were woken
	ended    bool
}

// maxIdle bounds the idle goroutines.
const maxIdle = 256

// openPool prepares the pool. Each pool that is opened must be shut down.
func (p *executionPool) openPool() { p.idleCond.L = &p.mu }

// shutDown ends the idle goroutines at once, and the others when they have no more work. It does
// not wait for them.
func (p *executionPool) shutDown() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	p.idleCond.Broadcast()
}

// addWaiting adds executions, which run as soon as possible.
func (p *executionPool) addWaiting(executions ...*execution) {
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

// wakeAnother wakes or starts a goroutine, unless one is about to run; mu is held.
func (p *executionPool) wakeAnother() {
	switch {
	case p.startPending:
		return
	case p.idle > p.woken:
		p.woken++
		p.idleCond.Signal()
	default:
		go p.runWaiting()
	}
	p.startPending = true
}

func (p *executionPool) runWaiting() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		p.startPending = false
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
		if p.ended || p.idle >= maxIdle {
			return
		}
		p.idle++
		for p.woken == 0 && !p.ended {
			p.idleCond.Wait()
		}
		p.idle--
		if p.woken == 0 {
			return
		}
		p.woken--
	}
}
