package daemon

import (
	"math"
	"sync/atomic"
	"time"
)

// Latencies is a distribution of durations, in 16 steps an octave: a quantile is
// right to within 3 %. The steps are those of Prometheus' native histograms of
// schema 4. The zero value is empty.
type Latencies [latencySteps]uint64

const (
	// Step 0 is up to 2^lowestOctave seconds, a microsecond; each of the others is
	// 2^(1/16) times as far as the one before it. The last, up to 2^highestOctave
	// seconds or 48 days, takes what is longer, too.
	lowestOctave  = -20
	highestOctave = 22
	octave        = 16
	latencySteps  = (highestOctave-lowestOctave)*octave + 1
)

type histogram [latencySteps]atomic.Uint64

func (h *histogram) add(d time.Duration) { h[latencyStep(d)].Add(1) }

func (h *histogram) snapshot() *Latencies {
	out := new(Latencies)
	for i := range h {
		out[i] = h[i].Load()
	}
	return out
}

const (
	// mantissa is how many bits of a float64 follow its leading one, and leading how
	// many of them say where in an octave it is, to within a step or the next.
	mantissa = 52
	leading  = 6
)

// within are the bounds of the steps in an octave, as the bits of the mantissa;
// the last is beyond the octave. from says, by the leading bits, which of them is
// meant, or else the one behind it.
var within, from = boundsWithin()

func boundsWithin() (bounds [octave + 1]uint64, first [1 << leading]int) {
	for k := range octave {
		bounds[k] = math.Float64bits(math.Exp2(float64(k)/octave)) & (1<<mantissa - 1)
	}
	bounds[octave] = 1 << mantissa
	for i := range first {
		for bounds[first[i]] < uint64(i)<<(mantissa-leading) {
			first[i]++
		}
	}
	return bounds, first
}

// latencyStep is the step of a duration: without a logarithm, as it is done for
// every message.
func latencyStep(d time.Duration) int {
	seconds := float64(d) / 1e9
	if seconds <= 1.0/(1<<-lowestOctave) {
		return 0
	}
	bits := math.Float64bits(seconds)
	part := bits & (1<<mantissa - 1)
	k := from[part>>(mantissa-leading)]
	if part > within[k] {
		k++
	}
	return min((int(bits>>mantissa)-1023-lowestOctave)*octave+k, latencySteps-1)
}

// latencyBound is the end of a step, in seconds, which belongs to it.
func latencyBound(step int) float64 { return math.Exp2(lowestOctave + float64(step)/octave) }

// latencyOf is the middle of a step.
func latencyOf(step int) time.Duration {
	low := 0.0
	if step > 0 {
		low = latencyBound(step - 1)
	}
	return time.Duration((low + latencyBound(step)) / 2 * 1e9)
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
