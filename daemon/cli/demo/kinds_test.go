package demo

import (
	"testing"
	"time"

	"github.com/drover-run/drover/scaler/autotune"
)

// The Python functions of the demo share two worker processes, beside resize, a Go function, which
// has no kind. The samples are synthetic: two cores, quiet, and beside two
// programs that compute all the time.
func TestKindsOfTheDemo(t *testing.T) {
	const ms, us = time.Millisecond, time.Microsecond
	// digest computes for 10 ms, and waits for a core, and for the GIL of the worker's event loop.
	digest := func(n int64, delayed, locked time.Duration) autotune.Function {
		all, wall := time.Duration(n), 10*ms+delayed+locked
		return autotune.Function{
			Name: "digest", Done: n, Measured: n, Saturated: true, InFlight: 2, Wall: all * wall, AllWall: all * wall, Held: all * wall, CPU: all * 10 * ms,
			Examined: autotune.Examined{Wall: all * wall, CPU: all * 10 * ms, Delayed: all * delayed, Locked: all * locked, LockedMost: all * min(2*locked, locked+ms)},
			Looks:    15, HeldGIL: 9,
		}
	}
	// fetch waits for 100 ms in 3 steps, in which its loop waits for the GIL of digest's thread.
	fetch := func(n int64, delayed time.Duration) autotune.Function {
		all, wall := time.Duration(n), 101*ms+4*delayed
		return autotune.Function{
			Name: "fetch", Async: true, Done: n, Measured: n / 2, Saturated: true, InFlight: 120, Wall: all / 2 * wall, AllWall: all * wall,
			CPU: all / 2 * 700 * us, Held: all / 2 * (900*us + delayed),
			Examined: autotune.Examined{Wall: all / 8 * (ms + delayed), CPU: all / 8 * 700 * us, Delayed: all / 8 * delayed},
		}
	}
	for name, c := range map[string]struct {
		cpu, daemon, others, queue float64
		functions                  []autotune.Function
	}{
		"quiet":                   {0.9, 1.05, 0.02, 1.4, []autotune.Function{digest(12, 6*ms, 5*ms), fetch(110, 3*ms)}},
		"beside two busy ones":    {0.45, 0.5, 1.03, 2.6, []autotune.Function{digest(6, 18*ms, 9*ms), fetch(60, 11*ms)}},
		"beside, and few calls":   {0.45, 0.5, 1.03, 2.6, []autotune.Function{digest(1, 31*ms, 14*ms), fetch(8, 22*ms)}},
		"the daemon uses it all":  {0.2, 1.8, 0, 1.9, []autotune.Function{digest(3, 50*ms, 2*ms), fetch(30, 40*ms)}},
		"only digest is measured": {0.9, 1.05, 0.02, 1.4, []autotune.Function{digest(12, 6*ms, 5*ms), {Name: "fetch", Async: true, InFlight: 100}}},
	} {
		t.Run(name, func(t *testing.T) {
			bounds := autotune.Bounds{Least: autotune.Settings{Processes: 1, Threads: 1, Coroutines: 1}, Most: autotune.Settings{Processes: 4, Threads: 512, Coroutines: 16384}}
			controller := autotune.New(bounds, nil)
			now := controller.Look(autotune.Sample{Cores: 2, Functions: []autotune.Function{{Name: "digest"}, {Name: "fetch", Async: true}}})
			for i := 1; i <= 40; i++ {
				c.functions[1].InFlight = float64(min(now.Processes*now.Coroutines, 120))
				now = controller.Look(autotune.Sample{
					At: time.Duration(i) * time.Second / 4, Settings: now.Settings, Ready: now.Processes, Cores: 2,
					CPU: c.cpu, Daemon: c.daemon, Others: c.others, RunQueue: c.queue, Functions: c.functions,
				})
			}
			kinds := controller.Kinds()
			if k := kinds["digest"]; k.Kind != autotune.KindCPU || k.CPU < 0.85 || k.ReleasesGIL || k.Differs {
				t.Errorf("digest is %+v", k)
			}
			if k := kinds["fetch"]; k.Kind != autotune.KindAsync && name != "only digest is measured" {
				t.Errorf("fetch is %+v", k)
			}
			if _, found := kinds["resize"]; found {
				t.Error("resize has no worker process, and no kind")
			}
		})
	}
}
