package daemon

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

// This file remembers what is in flight, and what lately failed, for those who ask.

// present is a function's messages in flight. Whoever receives puts them in, and each
// takes itself out: two stores a message, no lock and no allocation.
type present struct {
	cells atomic.Pointer[[]*seat]
	next  int // the receiver's own
}

// seat holds a turn, or nothing.
type seat = atomic.Pointer[turn]

const (
	// placesAtOnce is how many places are made when there are too few, at least.
	placesAtOnce = 64
	// sparse is how many places there are for each that is taken before one is
	// looked for in all of them, and none is made.
	sparse = 4
)

// enter puts a turn in; it is called by one goroutine. inFlight is about how many
// there are.
func (p *present) enter(t *turn, inFlight int64) *seat {
	var all []*seat
	if cells := p.cells.Load(); cells != nil {
		all = *cells
	}
	tries := placesAtOnce
	if int64(len(all)) > sparse*inFlight {
		tries = len(all)
	}
	for range min(tries, len(all)) {
		if p.next++; p.next >= len(all) {
			p.next = 0
		}
		if c := all[p.next]; c.Load() == nil {
			c.Store(t)
			return c
		}
	}
	made := make([]seat, max(placesAtOnce, len(all)))
	more := make([]*seat, 0, len(all)+len(made))
	more = append(more, all...)
	for i := range made {
		more = append(more, &made[i])
	}
	p.next = len(all)
	more[p.next].Store(t)
	p.cells.Store(&more)
	return more[p.next]
}

// all are those that are in flight.
func (p *present) all() []*turn {
	var out []*turn
	if cells := p.cells.Load(); cells != nil {
		for _, c := range *cells {
			if t := c.Load(); t != nil {
				out = append(out, t)
			}
		}
	}
	return out
}

// setback is an attempt that failed.
type setback struct {
	message  string
	enqueued time.Time // another message has this ID when its source was recreated
	attempt  int
	at       time.Time
	until    time.Time // when it is tried again
	dead     bool      // it is not
	why      string
	detail   string // the end of the traceback
}

const (
	// keptSetbacks is how many are remembered of a function.
	keptSetbacks = 256
	// keptDetail is how much of a traceback is, in bytes: where it failed is at its end.
	keptDetail = 2 << 10
)

// setbacks are the latest. The zero value has none.
type setbacks struct {
	mu     sync.Mutex
	latest []setback
	next   int
}

// remember takes a verdict on a message, if it is one to remember.
func (s *setbacks) remember(m *triggers.Message, v triggers.Verdict, err error) {
	if v.Kind != triggers.Retry && v.Kind != triggers.Reject {
		return
	}
	now := time.Now()
	b := setback{message: m.ID, enqueued: m.Enqueued, attempt: m.Attempt, at: now, until: now.Add(v.Delay), dead: v.Kind == triggers.Reject, why: err.Error()}
	var failure *handlers.Failure
	if errors.As(err, &failure) {
		b.detail = strings.Clone(triggers.Tail(failure.Detail, keptDetail))
	}
	s.note(b)
}

func (s *setbacks) note(b setback) {
	b.why = telemetry.CutText(b.why)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.latest) < keptSetbacks {
		s.latest = append(s.latest, b)
		return
	}
	s.latest[s.next] = b
	s.next = (s.next + 1) % keptSetbacks
}

// of is the latest of a message.
func (s *setbacks) of(message string) (last setback, found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.latest {
		if b.message == message && !b.at.Before(last.at) {
			last, found = b, true
		}
	}
	return last, found
}

// waiting counts those that wait to be tried again.
func (s *setbacks) waiting(now time.Time) (n int, next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.latest {
		if !b.dead && b.until.After(now) {
			if n++; next.IsZero() || b.until.Before(next) {
				next = b.until
			}
		}
	}
	return n, next
}
