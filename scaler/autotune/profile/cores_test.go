package profile

import (
	"math"
	"testing"
	"time"

	"github.com/drover-run/drover/scaler/autotune/pool"
)

// TestCoresOfACall checks how many cores a call uses, by the CPU time of the processes.
func TestCoresOfACall(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	function := func(calls int64, wall, cpu time.Duration, async bool) pool.Function {
		n := time.Duration(calls)
		return pool.Function{Name: "f", Done: calls, Measured: calls, AllWall: n * wall, Wall: n * wall, CPU: n * cpu, Held: n * wall, Async: async, InFlight: 1}
	}
	waits := func(f pool.Function) pool.Function { f.Held = f.CPU; return f }
	for _, test := range []struct {
		name  string
		f     pool.Function
		cpu   float64 // cores that the processes use
		queue float64 // threads that wait for a core
		want  float64
	}{
		{"it computes in its thread", function(25, 10*ms, 10*ms, false), 1.03, 0, 0},
		{"it computes in two threads", function(25, 10*ms, 10*ms, false), 2, 0, 2},
		{"it computes in two threads, and waits for a core half of the time", function(25, 10*ms, 5*ms, false), 1, 1, 2},
		{"it computes in one thread, and waits for a core half of the time", function(25, 10*ms, 5*ms, false), 0.5, 0.5, 0},
		{"it waits for two threads that compute", function(25, 10*ms, ms/10, false), 2, 0, 2},
		{"it waits for a child process", function(25, 10*ms, ms/10, false), 1, 0, 0},
		{"it waits on the event loop, and other threads compute a little", waits(function(25, 10*ms, ms, true)), 0.5, math.NaN(), 0},
		{"it never awaits", function(25, 10*ms, 10*ms, true), 2, math.NaN(), 2},
		{"it is short, and the worker's own threads use more than it", function(10_000, ms/50, ms/50, false), 0.8, 0, 0},
		{"it hardly runs, and a worker is loading", function(1, 10*ms, 10*ms, false), 0.2, 0, 0},
	} {
		n := Profiles{}
		s := pool.Sample{Settings: pool.Settings{Processes: 1, Threads: 1, Coroutines: 1}, Ready: 1, Cores: 2, CPU: test.cpu, RunQueue: test.queue, Functions: []pool.Function{test.f}}
		see := func(samples int, loading bool) {
			for range samples {
				s.At += 250 * time.Millisecond
				n.See(s, Conditions{Seconds: 0.25, Steady: true})
				n.SeeCores(s, 0.25, !loading)
			}
		}
		see(60, true)
		if got := n.Kinds()["f"].Cores; got != 0 {
			t.Errorf("%s: %.3g while workers load the code", test.name, got)
		}
		see(60, false)
		if got := n.Kinds()["f"].Cores; math.Abs(got-test.want) > 0.1 {
			t.Errorf("%s: %.3g cores, want %.3g", test.name, got, test.want)
		}
		if got := n.MostCores(s.Functions); n.Of("f").Kind != KindUnknown && math.Abs(got-test.want) > 0.1 {
			t.Errorf("%s: at most %.3g cores, want %.3g", test.name, got, test.want)
		}
		if s.Settings.Processes++; test.want > 0 {
			see(1, false)
			if got := n.Kinds()["f"].Cores; got != 0 {
				t.Errorf("%s: %.3g cores with another number of processes, before it was measured", test.name, got)
			}
			see(60, false)
		}
		// Its library gets one core.
		s.CPU, s.RunQueue = 1, 0
		see(100, false)
		if got := n.Kinds()["f"].Cores; got != 0 {
			t.Errorf("%s: %.3g cores when its library has one", test.name, got)
		}
	}
}
