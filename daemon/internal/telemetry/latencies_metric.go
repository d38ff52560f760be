package telemetry

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// histogramMetric is a distribution in both of Prometheus' forms: classic, with configured bounds,
// and native, for scrapers that use Protocol Buffers. The native buckets are the buckets of Latencies. A
// bucket that a classic bound divides is counted by its middle.
type histogramMetric struct{ classic, native prometheus.Metric }

// NewHistogramMetric returns a distribution as a metric that has been counted since created.
// Bounds are the bounds of the classic buckets, in seconds.
func NewHistogramMetric(d *prometheus.Desc, l *Latencies, created time.Time, bounds []float64, labels ...string) prometheus.Metric {
	count, sum, buckets := l.cumulativeCounts(bounds)
	steps := make(map[int]int64)
	for step, n := range l {
		if n > 0 && step > 0 {
			steps[step+lowestOctave*octave] = int64(n)
		}
	}
	const schema = 4
	return histogramMetric{
		classic: prometheus.MustNewConstHistogram(d, count, sum, buckets, labels...),
		native: prometheus.MustNewConstNativeHistogram(d, count, sum, steps, nil, l[0], schema, latencyBound(0),
			created, labels...),
	}
}

// Desc implements prometheus.Metric.
func (m histogramMetric) Desc() *prometheus.Desc { return m.classic.Desc() }

// Write implements prometheus.Metric.
func (m histogramMetric) Write(to *dto.Metric) error {
	var classic dto.Metric
	if err := m.classic.Write(&classic); err != nil {
		return err
	}
	if err := m.native.Write(to); err != nil {
		return err
	}
	to.Histogram.Bucket = classic.Histogram.Bucket
	return nil
}

// cumulativeCounts returns the number of durations, their sum in seconds, and how many are at most
// each bound, in seconds. The sum is computed from the middles of the buckets.
func (l *Latencies) cumulativeCounts(bounds []float64) (count uint64, sum float64, buckets map[float64]uint64) {
	buckets = make(map[float64]uint64, len(bounds))
	next := 0
	for step, n := range l {
		at := latencyOf(step).Seconds()
		for next < len(bounds) && at > bounds[next] {
			buckets[bounds[next]] = count
			next++
		}
		count += n
		sum += float64(n) * at
	}
	for ; next < len(bounds); next++ {
		buckets[bounds[next]] = count
	}
	return count, sum, buckets
}
