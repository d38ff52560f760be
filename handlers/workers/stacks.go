package workers

import (
	"sync"
	"syscall"
	"time"
)

// This file has a worker that is about to be killed say where its threads are.

const (
	// A worker is asked for its stacks stacksLimit before it is killed.
	stacksLimit = 150 * time.Millisecond
	// lastSignal is the largest number of one that there is.
	lastSignal = 64
)

// stacks are asked for once.
type stacks struct {
	once sync.Once
	text string
}

// whereItHangs are the stacks of a worker's threads; "" if it cannot tell.
func (w *worker) whereItHangs() string {
	w.stacks.once.Do(func() {
		if w.ready == nil || w.ready.StacksSignal <= 0 || w.ready.StacksSignal > lastSignal {
			return
		}
		w.stacks.text = w.process.OutputAfter(func() { w.process.Signal(syscall.Signal(w.ready.StacksSignal)) })
	})
	return w.stacks.text
}
