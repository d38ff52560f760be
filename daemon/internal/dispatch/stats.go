package dispatch

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/daemon/internal/dispatch/batches"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// Stats counts a function's messages. At any moment received = done + retried + rejected +
// released + abandoned + in flight.
type Stats struct {
	received, done, retried, released atomic.Int64
	rejected                          [len(rejections)]atomic.Int64 // by reason
	receiving                         receiveHealth

	failed    atomic.Int64        // attempts that the function failed: those retried, and rejections
	abandoned atomic.Int64        // messages whose verdict the source never accepted
	lost      atomic.Int64        // messages whose lease was lost before they were settled
	latency   telemetry.Histogram // of handling, from the start to the verdict
	age       telemetry.Histogram // of messages when they were done or rejected, since they were enqueued
	slots     occupancy

	// Batches counts the calls of a function that takes batches.
	Batches batches.Counts
}

// occupancy counts the time in which slots were taken, summed over all slots.
type occupancy struct {
	inUse atomic.Int64 // slots that are taken
	// sum is the sum of the times at which slots were freed, less those at which they were taken,
	// in microseconds since processStart. It may wrap; differences do not.
	sum atomic.Int64
}

// processStart is the origin of the times in this package.
var processStart = time.Now()

func (o *occupancy) takeSlots(n int) {
	o.sum.Add(-int64(n) * time.Since(processStart).Microseconds())
	o.inUse.Add(int64(n))
}

func (o *occupancy) releaseSlot(now time.Time) {
	o.inUse.Add(-1)
	o.sum.Add(now.Sub(processStart).Microseconds())
}

// totalMicroseconds returns the time up to now.
func (o *occupancy) totalMicroseconds(now time.Time) int64 {
	return o.sum.Load() + o.inUse.Load()*now.Sub(processStart).Microseconds()
}

// rejections are the reasons of rejections, as words.
var rejections = [...]string{"function", "attempts", "size"}

// RejectionReasons returns the reasons of rejections, as words: the keys of Counts.Rejections.
func RejectionReasons() []string { return rejections[:] }

const (
	byFunction = iota // it rejected the message, or could never accept it
	byAttempts        // all attempts are used
	bySize            // the message, or the result, is too large
)

// rejectionReason returns the index of the reason in rejections.
func rejectionReason(err error) int {
	switch {
	case errors.Is(err, triggers.ErrTooLarge):
		return bySize
	case handlers.Rejected(err):
		return byFunction
	}
	return byAttempts
}

// countSettled counts a message that was settled now. err is the error of its handling, and took
// how long that took.
func (s *Stats) countSettled(m *triggers.Message, kind triggers.Kind, err error, took time.Duration, now time.Time) {
	switch kind {
	case triggers.Done:
		s.done.Add(1)
	case triggers.Retry:
		s.retried.Add(1)
	case triggers.Reject:
		s.rejected[rejectionReason(err)].Add(1)
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
	// The final states are read first: messages that are settled between the reads count as in
	// flight.
	ends := s.done.Load() + s.retried.Load() + s.released.Load() + s.abandoned.Load()
	for why := range s.rejected {
		ends += s.rejected[why].Load()
	}
	return s.received.Load() - ends
}

// Counts counts a function's messages so far. Received = Done + Retried + Rejected + Released +
// Abandoned + InFlight, always.
type Counts struct {
	Received, Done, Retried, Rejected, Released, Abandoned, InFlight int64

	Lost          int64            // their lease was lost before they were settled
	Failed        int64            // attempts that the function failed, including rejections
	ReceiveErrors int64            // receives that failed
	Rejections    map[string]int64 // Rejected by reason, one of RejectionReasons
	Latency       *telemetry.Latencies
	Age           *telemetry.Latencies
}

// ReadCounts returns the counts so far. It may be called from many goroutines.
func (s *Stats) ReadCounts() Counts {
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

// SlotTime returns the time in which slots were taken up to now, summed over all slots, in
// microseconds. It may wrap; differences do not.
func (s *Stats) SlotTime(now time.Time) int64 { return s.slots.totalMicroseconds(now) }

// receiveHealth records whether a function can receive messages: Receive fails, returns messages,
// or waits. The zero value has no failure. Only failures have a cost.
type receiveHealth struct {
	errors  atomic.Int64
	since   atomic.Int64 // when receives began to fail, in ns since processStart; 0: they do not
	lastTry atomic.Int64 // when the current Receive began, in ns since processStart, while receives fail
}

// reachableAfter is how long a Receive must block, after a failed one, before the source
// counts as reachable but empty.
const reachableAfter = time.Minute

func (r *receiveHealth) recordFailure(now time.Time) {
	r.errors.Add(1)
	r.lastTry.Store(0)
	r.since.CompareAndSwap(0, int64(now.Sub(processStart)))
}

func (r *receiveHealth) recordTry(now time.Time) { r.lastTry.Store(int64(now.Sub(processStart))) }

func (r *receiveHealth) recordSuccess() { r.since.Store(0) }

// failingSince returns the time since when nothing can be received; zero if it can be.
func (r *receiveHealth) failingSince(now time.Time) time.Time {
	since, trying := r.since.Load(), r.lastTry.Load()
	if since == 0 || trying != 0 && now.Sub(processStart)-time.Duration(trying) >= reachableAfter {
		return time.Time{}
	}
	return processStart.Add(time.Duration(since))
}
