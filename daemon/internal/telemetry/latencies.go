// Package telemetry keeps what a daemon measures and logs of its functions: distributions of
// latencies, the latest log lines, and spans, which it sends to a collector.
package telemetry

import (
	"math"
	"sync/atomic"
	"time"
)

// Latencies is a distribution of durations with 16 buckets an octave, so that a quantile is
// accurate to within 3 %. The buckets are the same as in Prometheus' native histograms with
// schema 4. The zero value is empty.
type Latencies [latencySteps]uint64

const (
	// Bucket 0 ends at 2^lowestOctave seconds (a microsecond); each other one ends 2^(1/16)
	// times later than the one before it. The last, which ends at 2^highestOctave seconds
	// (48 days), also counts everything longer.
	lowestOctave  = -20
	highestOctave = 22
	octave        = 16
	latencySteps  = (highestOctave-lowestOctave)*octave + 1
)

// Histogram collects durations. The zero value is empty; all methods may be called from many
// goroutines.
type Histogram [latencySteps]atomic.Uint64

// Add counts a duration.
func (h *Histogram) Add(d time.Duration) { h[latencyStep(d)].Add(1) }

// Snapshot returns the durations counted so far.
func (h *Histogram) Snapshot() *Latencies {
	out := new(Latencies)
	for i := range h {
		out[i] = h[i].Load()
	}
	return out
}

const (
	// mantissa is the number of bits of a float64's mantissa. leading is how many of them
	// determine a duration's bucket within an octave, to within one.
	mantissa = 52
	leading  = 6
)

// bucketBounds holds the upper bounds of the buckets in an octave, as the bits of the mantissa; the
// last is beyond the octave. firstBuckets maps the leading bits to the bucket, or the one before
// it.
var bucketBounds, firstBuckets = octaveBounds()

func octaveBounds() (bounds [octave + 1]uint64, first [1 << leading]int) {
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

// latencyStep returns the bucket of a duration. It uses no logarithm, since it runs for every
// message.
func latencyStep(d time.Duration) int {
	seconds := float64(d) / 1e9
	if seconds <= 1.0/(1<<-lowestOctave) {
		return 0
	}
	bits := math.Float64bits(seconds)
	part := bits & (1<<mantissa - 1)
	k := firstBuckets[part>>(mantissa-leading)]
	if part > bucketBounds[k] {
		k++
	}
	return min((int(bits>>mantissa)-1023-lowestOctave)*octave+k, latencySteps-1)
}

// latencyBound returns the inclusive upper bound of a bucket, in seconds.
func latencyBound(step int) float64 { return math.Exp2(lowestOctave + float64(step)/octave) }

// latencyOf returns the middle of a bucket.
func latencyOf(step int) time.Duration {
	low := 0.0
	if step > 0 {
		low = latencyBound(step - 1)
	}
	return time.Duration((low + latencyBound(step)) / 2 * 1e9)
}

// Count returns the number of durations.
func (l *Latencies) Count() uint64 {
	var n uint64
	for _, c := range l {
		n += c
	}
	return n
}

// Quantile returns the duration below which the fraction q (0 to 1) of all durations lies, or
// 0 if there are none.
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

// Since returns the durations added after an earlier snapshot.
func (l *Latencies) Since(earlier *Latencies) *Latencies {
	out := *l
	if earlier != nil {
		for i := range out {
			out[i] -= earlier[i]
		}
	}
	return &out
}

// Plus returns the sum of two distributions, either of which may be nil.
func (l *Latencies) Plus(o *Latencies) *Latencies {
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
