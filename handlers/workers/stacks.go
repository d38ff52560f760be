package workers

import (
	"strings"
	"sync"
	"syscall"
	"time"
)

// This file has a worker that is about to be killed say where its threads are.

const (
	// A worker is asked for its stacks stacksLimit before it is killed, and has stacksWait to
	// write them; after a pause of stacksQuiet they are complete.
	stacksLimit = 150 * time.Millisecond
	stacksWait  = 500 * time.Millisecond
	stacksQuiet = 30 * time.Millisecond
	// maxStacks bounds what is kept of them, in bytes.
	maxStacks = 64 << 10
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
		w.stacks.text = w.process.listen(func() { w.process.Signal(syscall.Signal(w.ready.StacksSignal)) })
	})
	return w.stacks.text
}

// listen does something, and returns what the process writes to its standard error
// then.
func (p *process) listen(do func()) string {
	lines := make(chan string, 1024)
	p.mu.Lock()
	p.listener = lines
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.listener = nil
	}()
	do()
	limit := time.NewTimer(stacksWait)
	defer limit.Stop()
	var text strings.Builder
	var quiet <-chan time.Time
	for text.Len() < maxStacks {
		select {
		case line := <-lines:
			text.WriteString(line + "\n")
			quiet = time.After(stacksQuiet)
		case <-quiet:
			return text.String()
		case <-limit.C:
			return text.String()
		case <-p.waited:
			return text.String()
		}
	}
	return text.String()
}
