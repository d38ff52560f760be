package emulator

import (
	"sync"
	"time"
)

// faults are what tests have go wrong.
type faults struct {
	mu    sync.Mutex
	delay time.Duration
	busy  bool
}

func (f *faults) wait() {
	f.mu.Lock()
	delay := f.delay
	f.mu.Unlock()
	if delay > 0 {
		time.Sleep(delay)
	}
}

func (f *faults) refusal() *condition {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.busy {
		return failure(condBusy, "The server is busy. Please wait before retrying.")
	}
	return nil
}

// Delay has every frame that comes and every write take so much longer; 0 ends it.
func (e *Emulator) Delay(d time.Duration) {
	e.faults.mu.Lock()
	defer e.faults.mu.Unlock()
	e.faults.delay = d
}

// Busy has what is sent refused as by a server that is busy.
func (e *Emulator) Busy(on bool) {
	e.faults.mu.Lock()
	defer e.faults.mu.Unlock()
	e.faults.busy = on
}

// DropConnections cuts all connections, as a broken cable does.
func (e *Emulator) DropConnections() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for c := range e.conns {
		c.abort()
	}
}

// DetachReceivers ends the receivers' links of an entity, as the service does
// when they were idle for long.
func (e *Emulator) DetachReceivers(path string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	q, cond := e.find(path)
	if cond != nil {
		return cond
	}
	for _, l := range append([]*link(nil), q.receivers...) {
		l.detach(failure(condDetachForced, "The link '%s' is force detached. Code: consumer. Details: AmqpMessageConsumer.IdleTimerExpired: Idle timeout: 00:10:00.", l.name))
	}
	return nil
}
