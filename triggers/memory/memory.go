// Package memory is a queue within the process. It serves tests of functions and of drover
// itself, and is the simplest example of a trigger. Its messages are lost when the process ends. The
// package is stable. Tests of functions use package daemon/drovertest, which has such queues.
package memory

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/drover-run/drover/triggers"
)

// DefaultLease is how long a lease outlives a trigger that was closed without settling it.
const DefaultLease = 30 * time.Second

// Queue holds messages. Any number of triggers may read it, as instances of a
// daemon would. The zero value is not ready; use New.
type Queue struct {
	lease time.Duration

	mu     sync.Mutex
	next   int
	ready  []*entry
	timers map[*entry]*time.Timer // entries that are delayed, or whose lease was dropped by Close
	dead   []Dead
	wake   chan struct{} // closed and replaced when something becomes ready
}

// Dead is a rejected message and why.
type Dead struct {
	Message triggers.Message
	Verdict triggers.Verdict
}

type entry struct {
	message  triggers.Message // Attempt is not kept here
	failures int
	sequence uint64
}

// New returns an empty queue. A message whose trigger was closed without settling it is
// ready again after lease; 0 is DefaultLease.
func New(lease time.Duration) *Queue {
	if lease == 0 {
		lease = DefaultLease
	}
	return &Queue{lease: lease, timers: make(map[*entry]*time.Timer), wake: make(chan struct{})}
}

// Send adds a message. It sets ID and Enqueued if they are zero, and ignores Attempt. The
// body is not copied.
func (q *Queue) Send(m triggers.Message) { q.sendAfter(m, 0) }

// sendAfter is Send, with a delay. It returns the message's ID.
func (q *Queue) sendAfter(m triggers.Message, delay time.Duration) string {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.next++
	if m.ID == "" {
		m.ID = fmt.Sprint(q.next)
	}
	if m.Enqueued.IsZero() {
		m.Enqueued = time.Now().Add(max(delay, 0))
	}
	m.Attributes = maps.Clone(m.Attributes)
	q.addAfter(&entry{message: m, sequence: uint64(q.next)}, delay)
	return m.ID
}

// Dead returns the messages rejected so far.
func (q *Queue) Dead() []Dead {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.dead)
}

// Close stops the timers of delayed messages. All messages are lost.
func (q *Queue) Close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, t := range q.timers {
		t.Stop()
	}
	clear(q.timers)
}

// add makes an entry ready; q.mu is locked.
func (q *Queue) add(e *entry) {
	q.ready = append(q.ready, e)
	close(q.wake)
	q.wake = make(chan struct{})
}

// addAfter makes an entry ready after a delay; q.mu is locked.
func (q *Queue) addAfter(e *entry, delay time.Duration) {
	if delay <= 0 {
		q.add(e)
		return
	}
	q.timers[e] = time.AfterFunc(delay, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if _, waits := q.timers[e]; waits {
			delete(q.timers, e)
			q.add(e)
		}
	})
}

// Trigger returns a new trigger that reads the queue.
func (q *Queue) Trigger() triggers.Trigger {
	return &trigger{queue: q, leases: make(map[*lease]struct{})}
}

type trigger struct {
	queue  *Queue
	leases map[*lease]struct{} // guarded by queue.mu
	closed bool                // likewise
}

type lease struct {
	trigger *trigger
	entry   *entry
}

var errClosed = errors.New("the memory trigger is closed")

func (t *trigger) Receive(ctx context.Context, max int) ([]*triggers.Delivery, error) {
	q := t.queue
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		q.mu.Lock()
		if t.closed {
			q.mu.Unlock()
			return nil, errClosed
		}
		if n := min(max, len(q.ready)); n > 0 {
			out := make([]*triggers.Delivery, n)
			for i, e := range q.ready[:n] {
				m := e.message
				m.Attempt = e.failures + 1
				l := &lease{t, e}
				t.leases[l] = struct{}{}
				out[i] = triggers.NewDelivery(&m, l)
				out[i].Sequence = e.sequence
			}
			q.ready = slices.Delete(q.ready, 0, n)
			q.mu.Unlock()
			return out, nil
		}
		wake := q.wake
		q.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
		}
	}
}

func (l *lease) Settle(_ context.Context, m *triggers.Message, v triggers.Verdict) error {
	t, q := l.trigger, l.trigger.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, leased := t.leases[l]; !leased {
		return fmt.Errorf("message %s: %w", m.ID, errClosed)
	}
	delete(t.leases, l)
	switch v.Kind {
	case triggers.Retry:
		l.entry.failures = m.Attempt
		q.addAfter(l.entry, v.Delay)
	case triggers.Release:
		l.entry.failures = m.Attempt - 1
		q.add(l.entry)
	case triggers.Reject:
		q.dead = append(q.dead, Dead{*m, v})
	}
	return nil
}

// Enqueue implements triggers.Enqueuer.
func (t *trigger) Enqueue(_ context.Context, m *triggers.Message) (id string, err error) {
	at, _, err := triggers.ReadSchedule(m.Properties())
	if err != nil {
		return "", err
	}
	return t.queue.sendAfter(*m, time.Until(at)), nil
}

func (t *trigger) Backlog(context.Context) (triggers.Backlog, error) {
	q := t.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	b := triggers.Backlog{Ready: int64(len(q.ready))}
	for _, e := range q.ready {
		if b.Oldest.IsZero() || e.message.Enqueued.Before(b.Oldest) {
			b.Oldest = e.message.Enqueued
		}
	}
	return b, nil
}

func (t *trigger) Close(context.Context) error {
	q := t.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	t.closed = true
	for l := range t.leases {
		q.addAfter(l.entry, q.lease)
	}
	clear(t.leases)
	return nil
}
