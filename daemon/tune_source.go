package daemon

import (
	"context"
	"sync"
	"time"

	"github.com/drover-run/drover/triggers"
)

// tuneSource is the trigger of a function under load: the messages of a file, over and over,
// as many at once as the function has room for. Nothing becomes of their verdicts, but that
// they are counted while a window is open.
type tuneSource struct {
	messages []*triggers.Message

	mu       sync.Mutex
	next     int
	inFlight tuneLoan // the head of a ring
	window   window
	flying   int
}

func newTuneSource(messages []*triggers.Message) *tuneSource {
	s := &tuneSource{messages: messages}
	s.inFlight.prev, s.inFlight.next = &s.inFlight, &s.inFlight
	return s
}

// tuneLoan is a message in flight.
type tuneLoan struct {
	triggers.Delivery
	source     *tuneSource
	began      time.Time
	prev, next *tuneLoan
}

// window is what is counted from a moment on. The zero value counts nothing.
type window struct {
	from          time.Time
	flying        int // in flight, when it began
	ended, failed int64
	// took is the sum over those that ended, and done what part of each that ended well was
	// in the window: where calls are long, whole ones would make the throughput a matter of
	// luck.
	took time.Duration
	done float64
}

// Receive implements triggers.Trigger.
func (s *tuneSource) Receive(ctx context.Context, max int) ([]*triggers.Delivery, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return s.lend(max, time.Now()), nil
}

func (s *tuneSource) lend(n int, now time.Time) []*triggers.Delivery {
	out := make([]*triggers.Delivery, n)
	loans := make([]tuneLoan, n)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range out {
		l := &loans[i]
		l.source, l.began = s, now
		l.Init(s.messages[s.next%len(s.messages)], l)
		s.next++
		s.flying++
		l.prev, l.next = s.inFlight.prev, &s.inFlight
		l.prev.next, l.next.prev = l, l
		out[i] = &l.Delivery
	}
	return out
}

// Settle implements triggers.Loan.
func (l *tuneLoan) Settle(_ context.Context, _ *triggers.Message, v triggers.Verdict) error {
	l.source.settled(l, v.Kind, time.Now())
	return nil
}

func (s *tuneSource) settled(l *tuneLoan, kind triggers.Kind, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.prev.next, l.next.prev = l.next, l.prev
	s.flying--
	w := &s.window
	if w.from.IsZero() || kind == triggers.Release { // that was cut short, or never tried
		return
	}
	took := max(now.Sub(l.began), time.Nanosecond)
	w.ended++
	w.took += took
	if kind != triggers.Done {
		w.failed++
		return
	}
	w.done += part(w.from, now, l.began, took)
}

// part is what part of a call that began then and takes so long is between two moments.
func part(from, to, began time.Time, takes time.Duration) float64 {
	if began.After(from) {
		from = began
	}
	return float64(to.Sub(from)) / float64(takes)
}

// open begins a window.
func (s *tuneSource) open(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.window = window{from: now, flying: s.flying}
}

// inFlightNow counts what is in flight.
func (s *tuneSource) inFlightNow() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flying
}

// ended counts the calls of the window so far.
func (s *tuneSource) ended() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.window.ended
}

// steady is by which factor what ended may differ from what should have, by Little's law, in a
// window in which as much began as ended.
const steady = 1.6

// shut ends the window, and returns what was counted. Where it was steady, what is in flight
// counts by how long calls take; else only what has ended tells: where a queue has grown within
// the worker, what is in it is nowhere near its end.
func (s *tuneSource) shut(now time.Time) (w window, throughput float64, settled bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w, s.window = s.window, window{}
	if w.ended == 0 || !now.After(w.from) {
		return w, 0, false
	}
	length := now.Sub(w.from)
	well := float64(w.ended-w.failed) / float64(w.ended)
	turns := float64(w.took) / (float64(length) * float64(w.flying+s.flying) / 2)
	if turns < 1/steady || turns > steady {
		return w, float64(w.ended-w.failed) / length.Seconds(), false
	}
	mean, open := w.took/time.Duration(w.ended), 0.0
	for l := s.inFlight.next; l != &s.inFlight; l = l.next {
		open += part(w.from, now, l.began, max(mean, now.Sub(l.began), time.Nanosecond))
	}
	return w, (w.done + open*well) / length.Seconds(), true
}

// Backlog implements triggers.Trigger: there is always more.
func (s *tuneSource) Backlog(context.Context) (triggers.Backlog, error) {
	return triggers.Backlog{Ready: int64(len(s.messages)), AtLeast: true}, nil
}

// Close implements triggers.Trigger.
func (s *tuneSource) Close(context.Context) error { return nil }
