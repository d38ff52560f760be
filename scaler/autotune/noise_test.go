package autotune

import (
	"testing"
	"time"
)

// Neighbors that come and go, and a quota that is used up, change no kind, and no threads are started
// for them. The delays of calls are measured as workers do.
func TestNoiseDoesNotChangeKinds(t *testing.T) {
	for name, c := range map[string]struct {
		models []model
		want   map[string]string
	}{
		"CPU":            {workloads["CPU"], map[string]string{"cpu": KindCPU}},
		"30% CPU":        {workloads["30% CPU"], map[string]string{"third": KindMixed}},
		"blocking sleep": {workloads["blocking sleep"], map[string]string{"sleep": KindBlocking}},
	} {
		for _, first := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				w := newWorld(31, 2, c.models...)
				w.examines = true
				if first {
					w.others = 1.3
				}
				r := newRun(w, testBounds, nil)
				r.run(20 * time.Second)
				most := r.last.Threads
				for i := range 40 {
					r.others = []float64{1.3, 0, 0.4, 1.6}[i%4]
					r.run(time.Duration(1+i%5) * time.Second)
					for function, want := range c.want {
						if k := r.c.Kinds()[function]; k.Kind != want || k.ReleasesGIL {
							t.Fatalf("after %v beside %.2g cores of others %s is %+v", r.now, r.others, function, k)
						}
					}
					most = max(most, r.last.Threads)
				}
				if name == "CPU" && most > 2 {
					t.Errorf("it had %d threads", most)
				}
			})
		}
	}
}

// The demo has a function that computes and one that awaits in one app, beside a daemon that
// computes, too.
func TestSharedProcessDoesNotChangeKinds(t *testing.T) {
	for _, others := range []float64{0, 1.2} {
		for seed := range uint64(5) {
			w := newWorld(seed, 2, model{name: "digest", cpu: 11e-3}, model{name: "fetch", async: true, cpu: 1e-3, wait: 0.1})
			w.examines, w.others, w.overhead = true, others, 3e-3
			r := newRun(w, testBounds, nil)
			r.run(20 * time.Second)
			kinds := r.c.Kinds()
			if d, f := kinds["digest"], kinds["fetch"]; d.Kind != KindCPU || d.ReleasesGIL || f.Kind != KindAsync {
				t.Errorf("beside %v cores of others: digest is %+v, fetch is %+v", others, d, f)
			}
		}
	}
}
