package autotune

import (
	"testing"
	"time"
)

// TestCoresOfLibraries checks that the controller finds the number of processes for calls that a library computes in
// threads of its own. Each process has its share of the cores for them.
func TestCoresOfLibraries(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name      string
		cores     float64
		model     model
		processes int
	}{
		{"a call in each process is best", 2, model{inner: 0.1}, 2},
		{"one process with all cores is best", 2, model{inner: 0.02, crowding: 0.3}, 1},
		{"one process with all of four cores is best", 4, model{inner: 0.02, crowding: 0.3}, 1},
		{"the library ignores the share, and the processes slow each other down", 2, model{inner: 0.05, ignores: true, thrashing: 10}, 1},
		{"the same with four cores", 4, model{inner: 0.05, ignores: true, thrashing: 10}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := test.model
			m.name, m.cpu, m.releases = "matmul", 20e-3, true
			best, at := grid([]model{m}, nil, test.cores, testBounds)
			for seed := range uint64(2) {
				r := newRun(newWorld(seed, test.cores, m), testBounds, nil)
				r.run(60 * time.Second)
				got := mean(r.run(30*time.Second)) / best
				t.Logf("%.3f of the best (%.4g at %v); %d changes; now %v, %s; cores of a call: %.3g", got, best, at, r.changes, r.last.Settings, r.last.Phase, r.c.Kinds()["matmul"].Cores)
				if r.last.Processes != test.processes || got < 0.95 {
					t.Errorf("it has %v, with %.3f of the best (%.4g at %v); want %d processes", r.last.Settings, got, best, at, test.processes)
				}
				if several := r.c.Kinds()["matmul"].Cores > 1; several != (test.processes == 1) {
					t.Errorf("a call uses %.3g cores", r.c.Kinds()["matmul"].Cores)
				}
			}
		})
	}
}
