package dispatch

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// This file remembers what is in flight, and what failed lately, for those who ask.

// inFlightTable is what is in flight, for those who ask. The receiver enters each, and each
// removes itself by storing nil in its entry: two stores each, no lock and no allocation.
// The zero value is empty.
type inFlightTable[T any] struct {
	entries atomic.Pointer[[]*inFlightEntry[T]]
	next    int // the receiver's own
}

// inFlightEntry holds one, or nil.
type inFlightEntry[T any] struct{ atomic.Pointer[T] }

const (
	// entriesAtOnce is how many entries are made when there are too few, at least.
	entriesAtOnce = 64
	// sparse is how many entries there are for each that is taken before a free one is
	// looked for in all of them, and none is made.
	sparse = 4
)

// enter puts one in; it is called by one goroutine. inFlight is about how many there are.
func (p *inFlightTable[T]) enter(one *T, inFlight int64) *inFlightEntry[T] {
	var all []*inFlightEntry[T]
	if entries := p.entries.Load(); entries != nil {
		all = *entries
	}
	tries := entriesAtOnce
	if int64(len(all)) > sparse*inFlight {
		tries = len(all)
	}
	for range min(tries, len(all)) {
		if p.next++; p.next >= len(all) {
			p.next = 0
		}
		if e := all[p.next]; e.Load() == nil {
			e.Store(one)
			return e
		}
	}
	made := make([]inFlightEntry[T], max(entriesAtOnce, len(all)))
	more := make([]*inFlightEntry[T], 0, len(all)+len(made))
	more = append(more, all...)
	for i := range made {
		more = append(more, &made[i])
	}
	p.next = len(all)
	more[p.next].Store(one)
	p.entries.Store(&more)
	return more[p.next]
}

// list returns those that are in flight. It may be called from many goroutines.
func (p *inFlightTable[T]) list() []*T {
	var out []*T
	if entries := p.entries.Load(); entries != nil {
		for _, e := range *entries {
			if one := e.Load(); one != nil {
				out = append(out, one)
			}
		}
	}
	return out
}

// RecentFailure is an attempt that failed.
type RecentFailure struct {
	Message  string    // the ID
	Enqueued time.Time // another message has this ID when its source was recreated
	Attempt  int
	At       time.Time
	Until    time.Time // when it is tried again
	Dead     bool      // it is not: it was rejected
	Error    string
	Detail   string // the end of the traceback
}

const (
	// keptFailures is how many are remembered of a function.
	keptFailures = 256
	// keptDetail is how much of a traceback is, in bytes: where it failed is at its end.
	keptDetail = 2 << 10
)

// recentFailures are the latest failures of a function. The zero value has none. Its methods may be
// called from many goroutines.
type recentFailures struct {
	mu     sync.Mutex
	latest []RecentFailure
	next   int
}

// remember keeps a verdict on a message, if it is that of a failure.
func (r *recentFailures) remember(m *triggers.Message, v triggers.Verdict, err error) {
	if v.Kind != triggers.Retry && v.Kind != triggers.Reject {
		return
	}
	now := time.Now()
	f := RecentFailure{
		Message: m.ID, Enqueued: m.Enqueued, Attempt: m.Attempt, At: now, Until: now.Add(v.Delay), Dead: v.Kind == triggers.Reject,
		Error: telemetry.CutText(err.Error()),
	}
	var failure *handlers.Failure
	if errors.As(err, &failure) {
		f.Detail = strings.Clone(triggers.Tail(failure.Detail, keptDetail))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.latest) < keptFailures {
		r.latest = append(r.latest, f)
		return
	}
	r.latest[r.next] = f
	r.next = (r.next + 1) % keptFailures
}

// latestOf is the latest of a message; of all, if its ID is empty.
func (r *recentFailures) latestOf(message string) (last RecentFailure, found bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.latest {
		if (message == "" || f.Message == message) && !f.At.Before(last.At) {
			last, found = f, true
		}
	}
	return last, found
}

// waitingRetries counts those that wait to be tried again, and returns when the next is.
func (r *recentFailures) waitingRetries(now time.Time) (n int, next time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.latest {
		if !f.Dead && f.Until.After(now) {
			if n++; next.IsZero() || f.Until.Before(next) {
				next = f.Until
			}
		}
	}
	return n, next
}
