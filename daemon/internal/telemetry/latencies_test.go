package telemetry

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

func TestLatencies(t *testing.T) {
	var h Histogram
	if got := h.Snapshot().Quantile(0.5); got != 0 {
		t.Errorf("the median of nothing is %v", got)
	}
	for us := range 1000 {
		h.Add(time.Duration(us+1) * time.Millisecond)
	}
	l := h.Snapshot()
	for q, want := range map[float64]time.Duration{0: time.Millisecond, 0.5: 501 * time.Millisecond, 0.99: 991 * time.Millisecond, 1: time.Second} {
		if got := l.Quantile(q); got < want*97/100 || got > want*103/100 {
			t.Errorf("quantile %v is %v, want %v to within 3 %%", q, got, want)
		}
	}
	h.Add(-time.Second)
	h.Add(1 << 62)
	if recent := h.Snapshot().Since(l); recent.Count() != 2 {
		t.Errorf("%d were added since, want 2", recent.Count())
	}
	for step := range latencySteps {
		if got := latencyStep(latencyOf(step)); got != step {
			t.Errorf("step %d represents %v, which is in step %d", step, latencyOf(step), got)
		}
	}
}

func TestCumulative(t *testing.T) {
	var h Histogram
	for _, d := range []time.Duration{100 * time.Microsecond, 2 * time.Millisecond, 2 * time.Millisecond, time.Minute, time.Hour} {
		h.Add(d)
	}
	count, sum, buckets := h.Snapshot().cumulativeCounts([]float64{0.001, 0.01, 100})
	if count != 5 || buckets[0.001] != 1 || buckets[0.01] != 3 || buckets[100] != 4 {
		t.Errorf("%d, %v", count, buckets)
	}
	if want := 3660.0041; sum < 0.95*want || sum > 1.05*want {
		t.Errorf("the sum is %v, want about %v", sum, want)
	}
}

// The steps are the buckets that client_golang chooses for the same durations.
func TestStepsAreNativeBuckets(t *testing.T) {
	library := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "h", NativeHistogramBucketFactor: 1.05, NativeHistogramZeroThreshold: latencyBound(0),
	})
	var ours Histogram
	random := rand.New(rand.NewPCG(1, 2))
	durations := []time.Duration{0, 1, 953, 954, time.Microsecond, 15625 * time.Microsecond, 125 * time.Millisecond, time.Second, 2 * time.Second, 1024 * time.Second}
	for range 100_000 {
		durations = append(durations, time.Duration(math.Exp2(random.Float64()*51))) // up to 26 days
	}
	for _, d := range durations {
		library.Observe(d.Seconds())
		ours.Add(d)
	}
	d := prometheus.NewDesc("h", "", nil, nil)
	var want, got dto.Metric
	if err := library.Write(&want); err != nil {
		t.Fatal(err)
	}
	if err := NewHistogramMetric(d, ours.Snapshot(), time.Now(), []float64{1, 60}).Write(&got); err != nil {
		t.Fatal(err)
	}
	w, g := want.GetHistogram(), got.GetHistogram()
	if g.GetSchema() != 4 || w.GetSchema() != 4 || g.GetZeroCount() != w.GetZeroCount() || g.GetZeroThreshold() != w.GetZeroThreshold() {
		t.Errorf("schema %d, %d up to %v; want %d, %d up to %v", g.GetSchema(), g.GetZeroCount(), g.GetZeroThreshold(), w.GetSchema(), w.GetZeroCount(), w.GetZeroThreshold())
	}
	ws, gs := counts(w), counts(g)
	if len(ws) < 600 || len(gs) != len(ws) {
		t.Fatalf("%d native buckets have something; in the library %d", len(gs), len(ws))
	}
	for i := range ws {
		if gs[i] != ws[i] {
			t.Errorf("bucket %d has %d; in the library bucket %d has %d", gs[i][0], gs[i][1], ws[i][0], ws[i][1])
		}
	}
	if g.GetSampleCount() != w.GetSampleCount() || math.Abs(g.GetSampleSum()/w.GetSampleSum()-1) > 0.03 {
		t.Errorf("%d durations, %v s in all; want %d, %v", g.GetSampleCount(), g.GetSampleSum(), w.GetSampleCount(), w.GetSampleSum())
	}
	if len(g.Bucket) != 2 {
		t.Errorf("%d classic buckets, want 2", len(g.Bucket))
	}
}

// counts returns the native buckets that are not empty, as pairs of index and count.
func counts(h *dto.Histogram) (out [][2]int64) {
	at, n, delta := int64(0), int64(0), 0
	for _, span := range h.PositiveSpan {
		at += int64(span.GetOffset())
		for range span.GetLength() {
			if n += h.PositiveDelta[delta]; n != 0 {
				out = append(out, [2]int64{at, n})
			}
			delta++
			at++
		}
	}
	return out
}

func BenchmarkHistogram(b *testing.B) {
	var ours Histogram
	b.Run("own", func(b *testing.B) { observe(b, ours.Add) })
	library := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "h", NativeHistogramBucketFactor: 1.05, NativeHistogramZeroThreshold: latencyBound(0),
	})
	b.Run("client_golang", func(b *testing.B) { observe(b, func(d time.Duration) { library.Observe(d.Seconds()) }) })
}

// observe adds durations from 1 to 8 ms.
func observe(b *testing.B, add func(time.Duration)) {
	d := uint64(1)
	for b.Loop() {
		d = d*6364136223846793005 + 1442695040888963407
		add(time.Millisecond + time.Duration(d>>41))
	}
}
