package emulator

import (
	"slices"
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

// Busy has the server be busy, as it is when a namespace is throttled: it refuses
// sends, settlements and new receivers, and ends the existing ones.
func (e *Emulator) Busy(on bool) {
	e.faults.mu.Lock()
	e.faults.busy = on
	e.faults.mu.Unlock()
	if !on {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, q := range e.queues {
		for _, l := range slices.Concat(q.receivers, q.accepting) {
			l.detach(failure(condBusy, "The server is busy. Please wait before retrying."))
		}
	}
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
	return e.receivers(path, func(_ *queue, l *link) {
		l.detach(failure(condDetachForced, "The link '%s' is force detached. Code: consumer. Details: AmqpMessageConsumer.IdleTimerExpired: Idle timeout: 00:10:00.", l.name))
	})
}

// Deafen makes the receivers of an entity get nothing more, without an error.
func (e *Emulator) Deafen(path string) error {
	return e.receivers(path, func(_ *queue, l *link) { l.deaf = true })
}

func (e *Emulator) receivers(path string, do func(*queue, *link)) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	q, cond := e.find(path)
	if cond != nil {
		return cond
	}
	for _, l := range slices.Clone(q.receivers) {
		do(q, l)
	}
	return nil
}

// Garble makes the next n deliveries of an entity invalid AMQP messages.
func (e *Emulator) Garble(path string, n int) error {
	return e.spoil(path, func(q *queue) { q.garbled = n })
}

// WrongTags gives the next n deliveries of an entity a delivery tag
// that is no lock token.
func (e *Emulator) WrongTags(path string, n int) error {
	return e.spoil(path, func(q *queue) { q.untagged = n })
}

func (e *Emulator) spoil(path string, do func(*queue)) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	q, cond := e.find(path)
	if cond != nil {
		return cond
	}
	do(q)
	return nil
}

// SetKeys replaces the shared access keys, and cuts the connections that were
// let in with the old ones.
func (e *Emulator) SetKeys(keys ...Key) {
	e.mu.Lock()
	e.options.Keys = keys
	e.mu.Unlock()
	e.DropConnections()
}

// Usage is what became of an entity's messages so far.
type Usage struct {
	Leased   int // deliveries; a message counts each time
	Released int // that came back untouched: a client had asked for more than it took
	Lost     int // whose lock, or whose session's lock, ended
}

// Usage returns what became of an entity's messages.
func (e *Emulator) Usage(path string) (Usage, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	q, cond := e.find(path)
	if cond != nil {
		return Usage{}, cond
	}
	return q.usage, nil
}
