package worker

import (
	"syscall"
	"time"
)

const (
	// StacksLimit is the time between the request for a worker's stacks and its kill.
	StacksLimit = 150 * time.Millisecond
	// lastSignal is the largest number of a signal.
	lastSignal = 64
)

// ThreadStacks returns the stacks of a worker's threads; "" if the worker does not support it.
func (w *Worker) ThreadStacks() string {
	w.askStacks.Do(func() {
		if w.Ready == nil || w.Ready.StacksSignal <= 0 || w.Ready.StacksSignal > lastSignal {
			return
		}
		w.stacks = w.Process.OutputAfter(func() { w.Process.Signal(syscall.Signal(w.Ready.StacksSignal)) })
	})
	return w.stacks
}
