package daemon

import (
	"errors"
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// functionStats counts what became of a function's messages. At any moment
// received = done + retried + rejected + released + in flight.
type functionStats struct {
	received, done, retried, rejected, released atomic.Int64

	failed    atomic.Int64 // attempts that the function failed: those retried, and rejections
	unsettled atomic.Int64 // verdicts that the source never took
	lost      atomic.Int64 // messages that the source took back before they were settled
	latency   histogram    // of handling, from the hand-out to the verdict
	taken     occupancy
}

// occupancy is the time in which slots were taken, all together, up to now.
type occupancy struct {
	open atomic.Int64 // slots that are taken
	// sum is that of the microseconds since birth at which slots were freed, less
	// that of those at which they were taken. It may wrap; differences do not.
	sum atomic.Int64
}

// birth is when this process began to count.
var birth = time.Now()

func (o *occupancy) begin(n int) {
	o.sum.Add(-int64(n) * time.Since(birth).Microseconds())
	o.open.Add(int64(n))
}

func (o *occupancy) end() {
	o.open.Add(-1)
	o.sum.Add(time.Since(birth).Microseconds())
}

// microseconds is the time up to now.
func (o *occupancy) microseconds(now time.Time) int64 {
	return o.sum.Load() + o.open.Load()*now.Sub(birth).Microseconds()
}

func (s *functionStats) settled(kind triggers.Kind, err error, took time.Duration) {
	switch kind {
	case triggers.Done:
		s.done.Add(1)
	case triggers.Retry:
		s.retried.Add(1)
	case triggers.Reject:
		s.rejected.Add(1)
	case triggers.Release:
		s.released.Add(1)
	}
	if err != nil && kind != triggers.Release && !errors.Is(err, handlers.ErrNotTried) {
		s.failed.Add(1)
	}
	if kind != triggers.Release {
		s.latency.add(took)
	}
}

// Latencies is a distribution of durations, in 16 steps an octave: a quantile is
// right to within 1/16. The zero value is empty.
type Latencies [latencySteps]uint64

const (
	latencyBits  = 4                                 // 16 steps an octave
	latencySteps = (40 - latencyBits) << latencyBits // up to 2^39 µs, six days
)

type histogram [latencySteps]atomic.Uint64

func (h *histogram) add(d time.Duration) {
	h[latencyStep(uint64(max(d.Microseconds(), 0)))].Add(1)
}

func (h *histogram) snapshot() *Latencies {
	out := new(Latencies)
	for i := range h {
		out[i] = h[i].Load()
	}
	return out
}

// latencyStep is the step of a duration in µs: exact below 32 µs, then by the
// four bits after the leading one.
func latencyStep(us uint64) int {
	if us < 2<<latencyBits {
		return int(us)
	}
	shift := bits.Len64(us) - latencyBits - 1
	return min(shift<<latencyBits+int(us>>shift), latencySteps-1)
}

// latencyOf is the middle of a step.
func latencyOf(step int) time.Duration {
	if step < 2<<latencyBits {
		return time.Duration(step) * time.Microsecond
	}
	shift := step>>latencyBits - 1
	low := uint64(step-shift<<latencyBits) << shift
	return time.Duration(low+uint64(1)<<shift/2) * time.Microsecond
}

// Count returns how many durations are in it.
func (l *Latencies) Count() uint64 {
	var n uint64
	for _, c := range l {
		n += c
	}
	return n
}

// Quantile returns the duration below which the part q of them lies, 0 to 1; 0
// where there are none.
func (l *Latencies) Quantile(q float64) time.Duration {
	n := l.Count()
	if n == 0 {
		return 0
	}
	rank := min(uint64(q*float64(n)), n-1)
	for step, c := range l {
		if rank < c {
			return latencyOf(step)
		}
		rank -= c
	}
	return 0
}

// Since returns what was added to l after an earlier look at it.
func (l *Latencies) Since(earlier *Latencies) *Latencies {
	out := *l
	if earlier != nil {
		for i := range out {
			out[i] -= earlier[i]
		}
	}
	return &out
}

// plus returns both together; nil is none.
func (l *Latencies) plus(o *Latencies) *Latencies {
	out := new(Latencies)
	for _, part := range []*Latencies{l, o} {
		if part == nil {
			continue
		}
		for i, n := range part {
			out[i] += n
		}
	}
	return out
}

func (s *functionStats) inFlight() int64 {
	// The ends are read first: what ends between the reads is counted in flight.
	ends := s.done.Load() + s.retried.Load() + s.rejected.Load() + s.released.Load()
	return s.received.Load() - ends
}

func (s *functionStats) status() FunctionStatus {
	out := FunctionStatus{
		Done:     s.done.Load(),
		Retried:  s.retried.Load(),
		Rejected: s.rejected.Load(),
		Released: s.released.Load(),
		Failed:   s.failed.Load(),
		Lost:     s.lost.Load(),
		Latency:  s.latency.snapshot(),
	}
	out.Received = s.received.Load()
	out.InFlight = out.Received - out.Done - out.Retried - out.Rejected - out.Released
	return out
}
