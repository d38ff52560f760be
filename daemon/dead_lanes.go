package daemon

import "sync"

// lanes runs what has the same key one after another, in the order in which it came, and
// keys in parallel. The zero value is ready.
type lanes struct {
	all sync.WaitGroup

	mu   sync.Mutex
	busy map[string][]func() // what waits behind the one that runs
}

// run has f called, on another goroutine. It does not wait.
func (l *lanes) run(key string, f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy == nil {
		l.busy = make(map[string][]func())
	}
	if waiting, busy := l.busy[key]; busy {
		l.busy[key] = append(waiting, f)
		return
	}
	l.busy[key] = nil
	l.all.Go(func() {
		for f := f; f != nil; f = l.next(key) {
			f()
		}
	})
}

// next is what follows for a key; nil, and the key is idle, if nothing does.
func (l *lanes) next(key string) func() {
	l.mu.Lock()
	defer l.mu.Unlock()
	waiting := l.busy[key]
	if len(waiting) == 0 {
		delete(l.busy, key)
		return nil
	}
	l.busy[key] = waiting[1:]
	return waiting[0]
}

// wait returns when nothing runs any more.
func (l *lanes) wait() { l.all.Wait() }
