package dispatch

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// Stats counts what became of a function's messages. At any moment
// received = done + retried + rejected + released + abandoned + in flight.
type Stats struct {
	received, done, retried, released atomic.Int64
	rejected                          [len(rejections)]atomic.Int64 // by why
	receiving                         receiveHealth

	failed    atomic.Int64        // attempts that the function failed: those retried, and rejections
	abandoned atomic.Int64        // messages whose verdict the source never took
	lost      atomic.Int64        // messages that the source took back before they were settled
	latency   telemetry.Histogram // of handling, from the hand-out to the verdict
	age       telemetry.Histogram // of messages at their end, from when they were enqueued
	taken     occupancy
}

// occupancy is the time in which slots were taken, all together, up to now.
type occupancy struct {
	open atomic.Int64 // slots that are taken
	// sum is that of the microseconds since processStart at which slots were freed, less
	// that of those at which they were taken. It may wrap; differences do not.
	sum atomic.Int64
}

// processStart is when this process began to count.
var processStart = time.Now()

func (o *occupancy) take(n int) {
	o.sum.Add(-int64(n) * time.Since(processStart).Microseconds())
	o.open.Add(int64(n))
}

func (o *occupancy) release(now time.Time) {
	o.open.Add(-1)
	o.sum.Add(now.Sub(processStart).Microseconds())
}

// microseconds is the time up to now.
func (o *occupancy) microseconds(now time.Time) int64 {
	return o.sum.Load() + o.open.Load()*now.Sub(processStart).Microseconds()
}

// rejections are the reasons why messages are rejected, as words.
var rejections = [...]string{"function", "attempts", "size"}

// RejectionReasons are the reasons why messages are rejected, as words: the keys of
// Counts.Rejections.
func RejectionReasons() []string { return rejections[:] }

const (
	byFunction = iota // it said so, or could never take the message
	byAttempts        // they are used up
	bySize            // the message, or the result, is too large
)

// whyRejected is the reason, by its place in rejections.
func whyRejected(err error) int {
	switch {
	case errors.Is(err, triggers.ErrTooLarge):
		return bySize
	case handlers.Rejected(err):
		return byFunction
	}
	return byAttempts
}

// countSettled counts a message that was settled now, after err, and after a handling
// that took so long.
func (s *Stats) countSettled(m *triggers.Message, kind triggers.Kind, err error, took time.Duration, now time.Time) {
	switch kind {
	case triggers.Done:
		s.done.Add(1)
	case triggers.Retry:
		s.retried.Add(1)
	case triggers.Reject:
		s.rejected[whyRejected(err)].Add(1)
	case triggers.Release:
		s.released.Add(1)
	}
	if err != nil && kind != triggers.Release && !errors.Is(err, handlers.ErrNotTried) {
		s.failed.Add(1)
	}
	if kind != triggers.Release {
		s.latency.Add(took)
	}
	if (kind == triggers.Done || kind == triggers.Reject) && !m.Enqueued.IsZero() {
		s.age.Add(now.Sub(m.Enqueued))
	}
}

// InFlight counts the messages that were received and are not settled.
func (s *Stats) InFlight() int64 {
	// The ends are read first: what ends between the reads is counted in flight.
	ends := s.done.Load() + s.retried.Load() + s.released.Load() + s.abandoned.Load()
	for why := range s.rejected {
		ends += s.rejected[why].Load()
	}
	return s.received.Load() - ends
}

// Counts are what became of a function's messages so far.
// Received = Done + Retried + Rejected + Released + Abandoned + InFlight, always.
type Counts struct {
	Received, Done, Retried, Rejected, Released, Abandoned, InFlight int64

	Lost          int64            // taken back by the source before they were settled
	Failed        int64            // attempts that the function failed, rejections among them
	ReceiveErrors int64            // how often receiving failed
	Rejections    map[string]int64 // Rejected by reason, one of RejectionReasons
	Latency       *telemetry.Latencies
	Age           *telemetry.Latencies
}

// Counts returns what was counted so far. It may be called from many goroutines.
func (s *Stats) Counts() Counts {
	out := Counts{
		Done:      s.done.Load(),
		Retried:   s.retried.Load(),
		Released:  s.released.Load(),
		Abandoned: s.abandoned.Load(),
		Failed:    s.failed.Load(),
		Lost:      s.lost.Load(),
		Latency:   s.latency.Snapshot(),
		Age:       s.age.Snapshot(),
	}
	out.Rejections = make(map[string]int64, len(rejections))
	for why, word := range rejections {
		n := s.rejected[why].Load()
		out.Rejections[word] = n
		out.Rejected += n
	}
	out.ReceiveErrors = s.receiving.errors.Load()
	out.Received = s.received.Load()
	out.InFlight = out.Received - out.Done - out.Retried - out.Rejected - out.Released - out.Abandoned
	return out
}

// SlotTime is the time in which slots were taken up to now, all together, in microseconds.
// It may wrap; differences do not.
func (s *Stats) SlotTime(now time.Time) int64 { return s.taken.microseconds(now) }

// receiveHealth is whether a function's messages can be received, as Receive tells:
// it fails, or it returns some, or it waits. The zero value has seen nothing fail.
// Only what fails costs anything.
type receiveHealth struct {
	errors atomic.Int64
	since  atomic.Int64 // ns since processStart when it began to fail; 0: it does not
	trying atomic.Int64 // ns since processStart when the Receive under way began, while it fails
}

// settledDown is how long a Receive must block, after a failed one, before the source
// counts as reachable but empty.
const settledDown = time.Minute

func (r *receiveHealth) noteFailure(now time.Time) {
	r.errors.Add(1)
	r.trying.Store(0)
	r.since.CompareAndSwap(0, int64(now.Sub(processStart)))
}

func (r *receiveHealth) noteTry(now time.Time) { r.trying.Store(int64(now.Sub(processStart))) }

func (r *receiveHealth) noteSuccess() { r.since.Store(0) }

// failingSince is since when nothing can be received; zero if it can be.
func (r *receiveHealth) failingSince(now time.Time) time.Time {
	since, trying := r.since.Load(), r.trying.Load()
	if since == 0 || trying != 0 && now.Sub(processStart)-time.Duration(trying) >= settledDown {
		return time.Time{}
	}
	return processStart.Add(time.Duration(since))
}
