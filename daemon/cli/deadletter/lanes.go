package deadletter

import "sync"

// lanes runs functions of the same key one after another, in the order of their calls of
// startLane, and those of different keys in parallel. The zero value is ready.
type lanes struct {
	all sync.WaitGroup

	mu   sync.Mutex
	busy map[string][]func() // the functions that wait behind the running one
}

// startLane calls f on another goroutine, after those of the same key. It does not wait.
func (l *lanes) startLane(key string, f func()) {
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
		for f := f; f != nil; f = l.nextFor(key) {
			f()
		}
	})
}

// nextFor returns the next function of a key. If there is none it returns nil, and the key is idle.
func (l *lanes) nextFor(key string) func() {
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

// waitAll returns when all functions have ended.
func (l *lanes) waitAll() { l.all.Wait() }
