package measure

import (
	"context"
	"sync"
	"time"

	"github.com/drover-run/drover/triggers"
)

// source is the trigger of a function under load. It returns the messages of a file repeatedly, as
// many at once as the function has slots. It ignores verdicts, except that it counts them while a
// window is open. Its methods may be called from any goroutine.
type source struct {
	messages []*triggers.Message

	mu            sync.Mutex
	next          int
	inFlight      leasedMessage // the head of a ring
	window        window
	inFlightCount int
}

// newSource returns a source of at least one message.
func newSource(messages []*triggers.Message) *source {
	s := &source{messages: messages}
	s.inFlight.prev, s.inFlight.next = &s.inFlight, &s.inFlight
	return s
}

// leasedMessage is a message in flight.
type leasedMessage struct {
	triggers.Delivery
	from       *source
	began      time.Time
	prev, next *leasedMessage
}

// window has the counts since a moment. The zero value counts nothing.
type window struct {
	ended, failed int64 // calls

	from            time.Time
	inFlightAtStart int // calls in flight when it began
	// took is the sum of the durations of the calls that ended. done adds up, for each successful
	// call, the fraction of it that was in the window: if calls are long, counting whole calls
	// would make the throughput depend on chance.
	took time.Duration
	done float64
}

// Receive implements triggers.Trigger.
func (s *source) Receive(ctx context.Context, max int) ([]*triggers.Delivery, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return s.handOut(max, time.Now()), nil
}

func (s *source) handOut(n int, now time.Time) []*triggers.Delivery {
	out := make([]*triggers.Delivery, n)
	leased := make([]leasedMessage, n)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range out {
		l := &leased[i]
		l.from, l.began = s, now
		l.Init(s.messages[s.next%len(s.messages)], l)
		s.next++
		s.inFlightCount++
		l.prev, l.next = s.inFlight.prev, &s.inFlight
		l.prev.next, l.next.prev = l, l
		out[i] = &l.Delivery
	}
	return out
}

// Settle implements triggers.Lease.
func (l *leasedMessage) Settle(_ context.Context, _ *triggers.Message, v triggers.Verdict) error {
	l.from.countVerdict(l, v.Kind, time.Now())
	return nil
}

func (s *source) countVerdict(l *leasedMessage, kind triggers.Kind, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.prev.next, l.next.prev = l.next, l.prev
	s.inFlightCount--
	w := &s.window
	if w.from.IsZero() || kind == triggers.Release { // it was interrupted, or never tried
		return
	}
	took := max(now.Sub(l.began), time.Nanosecond)
	w.ended++
	w.took += took
	if kind != triggers.Done {
		w.failed++
		return
	}
	w.done += partWithin(w.from, now, l.began, took)
}

// partWithin returns the fraction of a call that lies between two moments. The call began at began
// and takes takes.
func partWithin(from, to, began time.Time, takes time.Duration) float64 {
	if began.After(from) {
		from = began
	}
	return float64(to.Sub(from)) / float64(takes)
}

// openWindow begins to count.
func (s *source) openWindow(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.window = window{from: now, inFlightAtStart: s.inFlightCount}
}

// countInFlight returns how many messages are in flight.
func (s *source) countInFlight() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inFlightCount
}

// countEnded returns how many calls have ended in the window so far.
func (s *source) countEnded() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.window.ended
}

// steadyFactor is the factor by which the number of ended calls may differ from its expected value,
// by Little's law, in a window in which as many calls began as ended.
const steadyFactor = 1.6

// closeWindow ends the window. It returns the counts, and the throughput in successful calls per
// second. If the window was steady, calls in flight are counted by how long calls take. Otherwise,
// as when a queue grows within the worker, only calls that ended count, and settled is false.
func (s *source) closeWindow(now time.Time) (w window, throughput float64, settled bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w, s.window = s.window, window{}
	if w.ended == 0 || !now.After(w.from) {
		return w, 0, false
	}
	length := now.Sub(w.from)
	well := float64(w.ended-w.failed) / float64(w.ended)
	turns := float64(w.took) / (float64(length) * float64(w.inFlightAtStart+s.inFlightCount) / 2)
	if turns < 1/steadyFactor || turns > steadyFactor {
		return w, float64(w.ended-w.failed) / length.Seconds(), false
	}
	mean, open := w.took/time.Duration(w.ended), 0.0
	for l := s.inFlight.next; l != &s.inFlight; l = l.next {
		open += partWithin(w.from, now, l.began, max(mean, now.Sub(l.began), time.Nanosecond))
	}
	return w, (w.done + open*well) / length.Seconds(), true
}

// Backlog implements triggers.Trigger: there are always more messages.
func (s *source) Backlog(context.Context) (triggers.Backlog, error) {
	return triggers.Backlog{Ready: int64(len(s.messages)), AtLeast: true}, nil
}

// Close implements triggers.Trigger.
func (s *source) Close(context.Context) error { return nil }
