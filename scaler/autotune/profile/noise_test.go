package profile

import (
	"math"
	"testing"
	"time"

	"github.com/drover-run/drover/scaler/autotune/pool"
)

const ms = time.Millisecond

// calls returns n sync calls of f with these mean times. delayed, locked and most are what the worker
// measured of each.
func calls(n int64, wall, cpu, delayed, locked, most time.Duration) pool.Function {
	all := time.Duration(n)
	return pool.Function{
		Name: "f", Done: n, Measured: n, Wall: all * wall, AllWall: all * wall, CPU: all * cpu, Held: all * wall, InFlight: 2, Saturated: true,
		Examined: pool.Examined{Wall: all * wall, CPU: all * cpu, Delayed: all * delayed, Locked: all * locked, LockedMost: all * most},
		Spread:   spreadOf(all*wall, []time.Duration{cpu}, []time.Duration{wall}, n),
	}
}

// spreadOf returns the sums of calls that have these times in turn.
func spreadOf(_ time.Duration, cpus, walls []time.Duration, n int64) (s pool.Spread) {
	for i := range n {
		cpu, wall := cpus[i%int64(len(cpus))].Seconds(), walls[i%int64(len(walls))].Seconds()
		log := math.Log(math.Max(cpu, 1e-6))
		s.Log, s.LogSquares, s.Shares = s.Log+log, s.LogSquares+log*log, s.Shares+cpu*cpu/wall
	}
	return s
}

// disturbedSample has two workers on two cores beside two busy programs.
func disturbedSample(at time.Duration, set pool.Settings, f ...pool.Function) pool.Sample {
	return pool.Sample{At: at, Settings: set, Ready: 2, Cores: 2, CPU: 1, Others: 1, RunQueue: 1, Functions: f}
}

// A call is judged by its own time, whatever delays it. The times were measured for 10 ms of Python beside
// two busy programs on two cores, under a quota, on a shared host, and beside an event loop in the
// same process.
func TestDelaysAreNotWaiting(t *testing.T) {
	one := settings(2, 1, 1)
	for name, c := range map[string]struct {
		set        pool.Settings
		f          pool.Function
		change     func(*pool.Sample)
		disturbed  bool
		want       string
		least, max float64 // of its share
	}{
		"waits for a core":             {one, calls(12, 21*ms, 10*ms, 10*ms, 0, 0), nil, true, KindCPU, 0.9, 1},
		"waits for a core, and sleeps": {one, calls(5, 115*ms, 5*ms, 10*ms, 0, 0), nil, true, KindBlocking, 0, 0.06},
		"waits for a core, and mixed":  {one, calls(5, 33*ms, 10*ms, 13*ms, 0, 0), nil, true, KindMixed, 0.45, 0.55},
		"throttled, and counted in the delay": {one, calls(12, 20*ms, 10*ms, 10*ms, 0, 0),
			func(s *pool.Sample) { s.Throttled, s.Others = 0.5, 0 }, true, KindCPU, 0.9, 1},
		"throttled, and not counted": {one, calls(12, 20*ms, 10*ms, 0, 0, 0),
			func(s *pool.Sample) { s.Throttled, s.Others = 0.5, 0 }, true, KindCPU, 0.9, 1},
		"stolen": {one, calls(12, 20*ms, 10*ms, 0, 0, 0),
			func(s *pool.Sample) { s.Stolen, s.Others = 0.5, 0 }, true, KindCPU, 0.9, 1},
		"stolen, and the clock of the CPU runs on": {one, calls(12, 20*ms, 20*ms, 0, 0, 0),
			func(s *pool.Sample) { s.Stolen, s.Others = 0.5, 0 }, true, KindCPU, 0.9, 1},
		"stolen from a function that sleeps": {one, calls(12, 100*ms, 2*ms, 0, 0, 0),
			func(s *pool.Sample) { s.Stolen, s.Others = 0.5, 0 }, true, KindBlocking, 0, 0.05},
		"waits for the GIL of the event loop": {settings(2, 1, 100), calls(12, 19*ms, 10*ms, ms, 7500*time.Microsecond, 8*ms),
			func(s *pool.Sample) { s.Others, s.RunQueue, s.CPU = 0, 0, 1.9 }, false, KindCPU, 0.9, 1},
		"waits for the GIL and for a core": {settings(2, 1, 100), calls(12, 30*ms, 10*ms, 11*ms, 8*ms, 9*ms), nil, true, KindCPU, 0.85, 1},
		"a blocking function in a worker whose event loop computes": {settings(2, 1, 100), calls(2, 205*ms, 5*ms, 0, 100*ms, 200*ms),
			func(s *pool.Sample) { s.Others, s.RunQueue, s.CPU = 0, 0, 2 }, false, KindBlocking, 0, 0.15},
		"many threads share the GIL": {settings(2, 8, 1), calls(12, 160*ms, 20*ms, 0, 70*ms, 140*ms),
			func(s *pool.Sample) { s.Others, s.RunQueue, s.CPU, s.Functions[0].InFlight = 0, 0, 2, 16 }, false, KindCPU, 0.9, 1},
	} {
		t.Run(name, func(t *testing.T) {
			n := Profiles{}
			for i := range 20 {
				s := disturbedSample(time.Duration(i)*time.Second/4, c.set, c.f)
				if c.change != nil {
					c.change(&s)
				}
				n.See(s, Conditions{Seconds: 0.25, Steady: true, Disturbed: c.disturbed})
			}
			if k := n.Of("f"); k.Kind != c.want || k.CPU < c.least || k.CPU > c.max || k.ReleasesGIL {
				t.Errorf("it is %+v; want %s with %v to %v", k, c.want, c.least, c.max)
			}
		})
	}
}

// Delays of the steps of an async function that never awaits do not make it one that waits.
func TestDelaysOfSteps(t *testing.T) {
	f := calls(12, 40*ms, 20*ms, 15*ms, 4*ms, 5*ms)
	f.Async = true
	n := Profiles{}
	for i := range 10 {
		n.See(disturbedSample(time.Duration(i)*time.Second/4, settings(2, 1, 1), f), Conditions{Seconds: 0.25, Steady: true, Disturbed: true})
	}
	if k := n.Of("f"); k.Kind != KindCPU || !k.NeverAwaits {
		t.Errorf("it is %+v", k)
	}
}

// A neighbor that comes and goes does not change a known kind, even if nothing measures the delays:
// no third-party worker does.
func TestKindOutlastsNeighbors(t *testing.T) {
	f := calls(12, 10*ms, 10*ms, 0, 0, 0)
	f.Examined = pool.Examined{}
	slow := calls(8, 22*ms, 10*ms, 0, 0, 0)
	slow.Examined = pool.Examined{}
	n := Profiles{}
	var at time.Duration
	for range 20 {
		for range 8 {
			at += time.Second / 4
			n.See(pool.Sample{At: at, Settings: settings(2, 1, 1), Ready: 2, Cores: 2, CPU: 2, RunQueue: math.NaN(), Functions: []pool.Function{f}}, quiet)
		}
		for range 4 {
			at += time.Second / 4
			s := disturbedSample(at, settings(2, 1, 1), slow)
			s.RunQueue = math.NaN()
			n.See(s, Conditions{Seconds: 0.25, Steady: true, Disturbed: IsDisturbed(s)})
			if k := n.Of("f"); k.Kind != KindCPU || k.CPU < 0.95 {
				t.Fatalf("after %v it is %+v", at, k)
			}
		}
		// The use by others is known only later: for two samples it seems quiet.
		for range 2 {
			at += time.Second / 4
			n.See(pool.Sample{At: at, Settings: settings(2, 1, 1), Ready: 2, Cores: 2, CPU: 2, RunQueue: math.NaN(), Functions: []pool.Function{slow}}, quiet)
		}
		if k := n.Of("f"); k.Kind != KindCPU {
			t.Fatalf("after two samples it is %+v", k)
		}
	}
}

// Another function under the same name is noticed beside neighbors, too: its CPU time differs.
func TestChangedWorkBesideNeighbors(t *testing.T) {
	n := Profiles{}
	var at time.Duration
	see := func(f pool.Function, samples int) Kind {
		for range samples {
			at += time.Second / 4
			n.See(disturbedSample(at, settings(2, 1, 1), f), Conditions{Seconds: 0.25, Steady: true, Disturbed: true})
		}
		return n.Of("f")
	}
	if k := see(calls(12, 21*ms, 10*ms, 10*ms, 0, 0), 20); k.Kind != KindCPU {
		t.Fatalf("it is %+v", k)
	}
	if k := see(calls(12, 110*ms, ms, 2*ms, 0, 0), 6); k.Kind != KindCPU {
		t.Errorf("after six samples it is %+v", k)
	}
	if k := see(calls(12, 110*ms, ms, 2*ms, 0, 0), 20); k.Kind != KindBlocking {
		t.Errorf("later it is %+v", k)
	}
}

func TestReleasedGILNeedsEvidence(t *testing.T) {
	one := settings(2, 1, 1)
	looked := func(looks, held int64) pool.Function {
		f := calls(12, 20*ms, 20*ms, 0, 0, 0)
		f.Looks, f.HeldGIL = looks, held
		return f
	}
	// busy uses that many cores of each worker, by the clocks of its own threads.
	busy := func(cores float64) pool.Function {
		n := int64(cores * 2 * 0.25 / 0.020)
		f := calls(n, 20*ms, 20*ms, 0, 0, 0)
		return f
	}
	type step struct {
		f         pool.Function
		cpu       float64
		samples   int
		disturbed bool
	}
	for name, c := range map[string]struct {
		steps []step
		want  bool
	}{
		"never held":                    {[]step{{looked(25, 0), 2, 8, false}}, true},
		"ten samples":                   {[]step{{looked(10, 0), 2, 1, false}}, false},
		"a second of them":              {[]step{{looked(25, 0), 2, 3, false}}, false},
		"a mixture of both":             {[]step{{looked(25, 12), 2, 40, false}}, false},
		"sometimes held":                {[]step{{looked(25, 0), 2, 3, false}, {looked(25, 25), 2, 1, false}, {looked(25, 0), 2, 3, false}, {looked(25, 12), 2, 1, false}, {looked(25, 0), 2, 3, false}}, false},
		"never held, but in noise":      {[]step{{looked(25, 0), 1, 40, true}}, false},
		"held later":                    {[]step{{looked(25, 0), 2, 8, false}, {looked(25, 25), 2, 2, false}}, false},
		"more than a core":              {[]step{{busy(1.6), 3.2, 8, false}}, true},
		"more than a core, in noise":    {[]step{{busy(1.6), 3.2, 8, true}}, true},
		"more than a core, once":        {[]step{{busy(0.9), 1.8, 8, false}, {busy(1.6), 3.2, 1, false}, {busy(0.9), 1.8, 8, false}}, false},
		"another process of the worker": {[]step{{busy(0.9), 3.8, 20, false}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			n := Profiles{}
			var at time.Duration
			for _, s := range c.steps {
				for range s.samples {
					at += time.Second / 4
					n.See(pool.Sample{At: at, Settings: one, Ready: 2, Cores: 4, CPU: s.cpu, Functions: []pool.Function{s.f}},
						Conditions{Seconds: 0.25, Steady: true, Disturbed: s.disturbed})
				}
			}
			if k := n["f"].kind; k.Kind != KindCPU || k.ReleasesGIL != c.want {
				t.Errorf("it is %+v", k)
			}
		})
	}
}

// A function whose messages differ is a mixture. Its kind does not follow the latest messages.
func TestMessagesThatDiffer(t *testing.T) {
	const each = 8
	mixed := func(cpus, walls []time.Duration) pool.Function {
		var cpu, wall time.Duration
		for i := range each {
			cpu, wall = cpu+cpus[i%len(cpus)], wall+walls[i%len(walls)]
		}
		f := calls(each, wall/each, cpu/each, 0, 0, 0)
		f.Spread = spreadOf(wall, cpus, walls, each)
		return f
	}
	d := func(list ...time.Duration) []time.Duration { return list }
	for name, c := range map[string]struct {
		f       pool.Function
		differs bool
		kind    string
	}{
		"alike":                          {mixed(d(20*ms), d(20*ms)), false, KindCPU},
		"a little different":             {mixed(d(20*ms, 30*ms), d(20*ms, 30*ms)), false, KindCPU},
		"small and large":                {mixed(d(2*ms, 60*ms), d(2*ms, 60*ms)), true, KindCPU},
		"some compute, some wait":        {mixed(d(30*ms, ms/5), d(30*ms, 30*ms)), true, KindMixed},
		"each computes and waits":        {mixed(d(15*ms, 16*ms), d(30*ms, 31*ms)), false, KindMixed},
		"waits, with CPU times far off":  {mixed(d(ms/5, 3*ms), d(100*ms, 100*ms)), false, KindBlocking},
		"computes, on a machine in use":  {mixed(d(20*ms), d(22*ms, 60*ms, 25*ms, 40*ms)), false, KindMixed}, // without its delays
		"tiny, and their clocks are off": {mixed(d(ms/200, ms/20), d(ms/100, ms/20)), false, KindCPU},
	} {
		t.Run(name, func(t *testing.T) {
			n := Profiles{}
			for i := range 30 {
				n.See(pool.Sample{At: time.Duration(i) * time.Second / 4, Settings: settings(2, 1, 1), Ready: 2, Cores: 2, CPU: 1, Functions: []pool.Function{c.f}}, quiet)
			}
			if k := n.Of("f"); k.Differs != c.differs || k.Kind != c.kind {
				t.Errorf("it is %+v", k)
			}
		})
	}
}

// Messages that come in bursts of one sort are a mixture, too: without that, each burst would be another
// function.
func TestBurstsOfMessages(t *testing.T) {
	n := Profiles{}
	small, large := calls(100, 2*ms, 2*ms, 0, 0, 0), calls(3, 160*ms, 30*ms, 0, 0, 0)
	small.Spread, large.Spread = pool.Spread{}, pool.Spread{}
	flips, last := 0, ""
	for i := range 200 {
		f := small
		if i/8%2 == 1 {
			f = large
		}
		n.See(pool.Sample{At: time.Duration(i) * time.Second / 4, Settings: settings(2, 1, 1), Ready: 2, Cores: 2, CPU: 1, Functions: []pool.Function{f}}, quiet)
		if k := n.Of("f").Kind; k != last && i > 60 {
			flips, last = flips+1, k
		} else {
			last = k
		}
	}
	if k := n.Of("f"); !k.Differs || flips > 1 {
		t.Errorf("it is %+v, and changed %d times", k, flips)
	}
}
