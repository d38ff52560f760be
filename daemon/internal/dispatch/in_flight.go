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

// This file keeps the messages in flight and the latest failures, for explanations and status.

// inFlightTable holds the messages in flight. The receiver enters each message, and the message's
// execution stores nil in its entry at the end: two stores a message, no lock and no allocation.
// The zero value is empty.
type inFlightTable[T any] struct {
	entries atomic.Pointer[[]*inFlightEntry[T]]
	next    int // used by the receiver only
}

// inFlightEntry holds one message, or nil.
type inFlightEntry[T any] struct{ atomic.Pointer[T] }

const (
	// entriesAtOnce is the minimum number of entries that are added when there are too few.
	entriesAtOnce = 64
	// sparse is the ratio of entries to messages in flight above which addEntry searches all entries
	// for a free one before it adds any.
	sparse = 4
)

// addEntry stores a message in a free entry, and returns the entry. It must be called from one
// goroutine. inFlight is about how many messages are in flight.
func (p *inFlightTable[T]) addEntry(one *T, inFlight int64) *inFlightEntry[T] {
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

// listAll returns the messages in flight. It may be called from many goroutines.
func (p *inFlightTable[T]) listAll() []*T {
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
	Message  string    // its ID
	Enqueued time.Time // identifies the message if the source was recreated and reuses its ID
	Attempt  int
	At       time.Time
	Until    time.Time // when it is retried
	Rejected bool      // it was rejected, and is not retried
	Error    string
	Detail   string // the end of the traceback
}

const (
	// keptFailures is how many failures are kept of a function.
	keptFailures = 256
	// keptDetail is how much of a traceback is kept, in bytes: its end, which shows where the code
	// failed.
	keptDetail = 2 << 10
)

// recentFailures holds the latest failures of a function. The zero value is empty. Its methods may
// be called from many goroutines.
type recentFailures struct {
	mu     sync.Mutex
	latest []RecentFailure
	next   int
}

// recordFailure stores the verdict on a message, if the message failed.
func (r *recentFailures) recordFailure(m *triggers.Message, v triggers.Verdict, err error) {
	if v.Kind != triggers.Retry && v.Kind != triggers.Reject {
		return
	}
	now := time.Now()
	f := RecentFailure{
		Message: m.ID, Enqueued: m.Enqueued, Attempt: m.Attempt, At: now, Until: now.Add(v.Delay), Rejected: v.Kind == triggers.Reject,
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

// latestOf returns the latest failure of a message, or of any message if the ID is empty.
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

// waitingRetries counts the messages that wait for a retry, and returns when the first is due.
func (r *recentFailures) waitingRetries(now time.Time) (n int, next time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.latest {
		if !f.Rejected && f.Until.After(now) {
			if n++; next.IsZero() || f.Until.Before(next) {
				next = f.Until
			}
		}
	}
	return n, next
}
