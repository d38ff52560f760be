package dispatch

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// This file keeps the messages in flight and the latest failures, for explanations and status.

// inFlightSet holds the messages in flight. The zero value is empty. Its methods may be called from
// many goroutines.
type inFlightSet struct {
	mu  sync.Mutex
	all map[*execution]struct{}
}

func (s *inFlightSet) addExecution(x *execution) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = make(map[*execution]struct{})
	}
	s.all[x] = struct{}{}
}

func (s *inFlightSet) removeExecution(x *execution) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, x)
}

// listAll returns the messages in flight, in no order.
func (s *inFlightSet) listAll() []*execution {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.all))
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
