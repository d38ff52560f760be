package autotune

import (
	"math"
	"testing"
	"time"
)

// After the search the result stays for ten minutes.

func TestHoldsStill(t *testing.T) {
	for name, models := range workloads {
		t.Run(name, func(t *testing.T) {
			if m := models[0]; m.cpu < 100e-6 { // as well, and sooner played
				m.cpu *= 5
				models = []model{m}
			}
			r := newRun(newWorld(11, 2, models...), testBounds, nil)
			r.run(time.Minute)
			r.changes = 0
			r.run(10 * time.Minute)
			t.Logf("%d changes, now %v", r.changes, r.last.Settings)
			if r.changes > 6 {
				t.Errorf("%d changes in ten minutes in which nothing changed", r.changes)
			}
		})
	}
}

func TestMixFlips(t *testing.T) {
	cpu, sleep := workloads["CPU"][0], workloads["blocking sleep"][0]
	off := func(m model) model { m.arrivals = 1e-9; return m }
	b := testBounds
	b.Most.Processes = 4
	bestSleep, _ := grid([]model{sleep}, nil, 2, b)
	r := newRun(newWorld(3, 2, cpu, off(sleep)), b, nil)
	r.run(30 * time.Second)
	for _, flip := range []struct {
		name   string
		models []model
		of     int
		best   float64
	}{
		{"to sleep", []model{off(cpu), sleep}, 1, bestSleep},
		{"back to CPU", []model{cpu, off(sleep)}, 0, 100},
		{"to sleep again", []model{off(cpu), sleep}, 1, bestSleep},
		{"and back", []model{cpu, off(sleep)}, 0, 100},
	} {
		r.mix(flip.models...)
		var scores []float64
		for range 160 {
			before := r.total[flip.of]
			r.decide(r.play(250 * time.Millisecond))
			scores = append(scores, 4*(r.total[flip.of]-before))
		}
		after := reached(scores, 0.9*flip.best, r.tick)
		t.Logf("%s: 0.9 after %v; %v", flip.name, after, r.last.Settings)
		if after > 20*time.Second {
			t.Errorf("%s: 0.9 of the best after %v; it has %v", flip.name, after, r.last.Settings)
		}
	}
}

// A function may change its kind but not its name.

func TestNatureFlips(t *testing.T) {
	cpu, sleep := workloads["CPU"][0], workloads["blocking sleep"][0]
	cpu.name = sleep.name
	b := testBounds
	b.Most.Processes = 4
	best, _ := grid([]model{sleep}, nil, 2, b)
	r := newRun(newWorld(3, 2, cpu), b, nil)
	r.run(30 * time.Second)
	r.mix(sleep)
	if at := reached(r.run(40*time.Second), 0.9*best, r.tick); at > 20*time.Second {
		t.Errorf("CPU became sleep: 0.9 of the best after %v; it has %v", at, r.last.Settings)
	}
	r.mix(cpu)
	if at := reached(r.run(40*time.Second), 0.9*100, r.tick); at > 20*time.Second {
		t.Errorf("sleep became CPU: 0.9 of the best after %v; it has %v", at, r.last.Settings)
	}
	if k := r.c.Kinds()["sleep"]; k.Kind != KindCPU {
		t.Errorf("it is %+v", k)
	}
}

func TestQuotaHalvesAndReturns(t *testing.T) {
	r := newRun(newWorld(5, 2, workloads["CPU"]...), testBounds, nil)
	r.run(30 * time.Second)
	r.cores = 1
	r.run(10 * time.Second)
	if got := mean(r.run(20 * time.Second)); got < 0.95*50 || r.last.Processes != 1 {
		t.Errorf("on one core %.3g/s with %v: %s", got, r.last.Settings, r.last.Note)
	}
	r.cores = 2
	r.run(10 * time.Second)
	if got := mean(r.run(20 * time.Second)); got < 0.95*100 || r.last.Processes != 2 {
		t.Errorf("on two cores again %.3g/s with %v: %s", got, r.last.Settings, r.last.Note)
	}
	if r.changes > 8 {
		t.Errorf("%d changes", r.changes)
	}
}

func TestNeighbourIsNotChased(t *testing.T) {
	for _, name := range []string{"CPU", "30% CPU", "blocking sleep"} {
		t.Run(name, func(t *testing.T) {
			r := newRun(newWorld(6, 2, workloads[name]...), testBounds, nil)
			r.run(time.Minute)
			found, before := r.last.Settings, mean(r.run(20*time.Second))
			r.changes = 0
			for range 3 {
				r.others = 1
				r.run(40 * time.Second)
				r.others = 0
				r.run(40 * time.Second)
			}
			t.Logf("%d changes, %v then, %v now", r.changes, found, r.last.Settings)
			if r.changes > 2 {
				t.Errorf("%d changes as a neighbour came and went", r.changes)
			}
			if after := mean(r.run(20 * time.Second)); after < 0.95*before {
				t.Errorf("%.4g/s before, %.4g/s after; %v then, %v now", before, after, found, r.last.Settings)
			}
		})
	}
}

func TestNeighbourIsThereFirst(t *testing.T) {
	w := newWorld(6, 2, workloads["30% CPU"]...)
	w.others = 1.2
	r := newRun(w, testBounds, nil)
	r.run(time.Minute)
	r.others = 0
	r.run(time.Minute)
	if got := mean(r.run(20 * time.Second)); got < 0.93*331 {
		t.Errorf("%.4g/s after the neighbour left, with %v", got, r.last.Settings)
	}
}

// A daily pattern restarts the search sometimes, but not forever.

func TestSlowDrift(t *testing.T) {
	m := workloads["blocking sleep"][0]
	m.down = 1500
	r := newRun(newWorld(7, 2, m), testBounds, nil)
	r.run(time.Minute)
	r.changes = 0
	for s := range 30 * 60 {
		r.models[0].wait = 0.1 * math.Exp2(0.5*math.Sin(2*math.Pi*float64(s)/3600))
		r.models[0].down = 1500 * math.Exp2(0.5*math.Sin(2*math.Pi*float64(s)/2400))
		r.run(time.Second)
	}
	t.Logf("%d changes, now %v", r.changes, r.last.Settings)
	if r.changes > 15 {
		t.Errorf("%d changes in half an hour of drift", r.changes)
	}
}

// While slots are free, the effect of more cannot be measured.

func TestHoldsWhileNotSaturated(t *testing.T) {
	m := workloads["blocking sleep"][0]
	m.arrivals = 30
	r := newRun(newWorld(16, 2, m), testBounds, nil)
	r.run(20 * time.Second)
	r.changes = 0
	r.run(5 * time.Minute)
	if r.changes > 0 || r.last.Phase != PhaseIdle {
		t.Errorf("%d changes, %+v", r.changes, r.last)
	}
	if k := r.c.Kinds()["sleep"]; k.Kind != KindBlocking {
		t.Errorf("kind %+v", k)
	}
}

// If a dependency is the bottleneck, more calls only wait longer.

func TestBottleneckBehind(t *testing.T) {
	m := workloads["blocking sleep"][0]
	m.down = 200
	r := newRun(newWorld(17, 2, m), testBounds, nil)
	r.run(time.Minute)
	s := r.play(5 * time.Second)
	f := s.Functions[0]
	wall := f.AllWall.Seconds() / float64(f.Done)
	t.Logf("%v, wall %.3g s, %d changes", r.last.Settings, wall, r.changes)
	if rate := float64(f.Done) / 5; rate < 0.95*200 || wall > 0.4 {
		t.Errorf("%.4g/s at %.3g s with %v", rate, wall, r.last.Settings)
	}
}

func TestTimeoutBounds(t *testing.T) {
	m := model{name: "fetch", async: true, cpu: 2e-3, wait: 0.1, down: 300, timeout: time.Second}
	r := newRun(newWorld(18, 2, m), testBounds, nil)
	r.run(time.Minute)
	f := r.play(5 * time.Second).Functions[0]
	if wall := f.AllWall.Seconds() / float64(f.Done); wall > 0.6 {
		t.Errorf("calls take %.3g s of their 1 s, with %v", wall, r.last.Settings)
	}
}

// A limit of the user or the source is not exceeded.

func TestLimitOfAFunction(t *testing.T) {
	m := workloads["blocking sleep"][0]
	m.limit = 10
	r := newRun(newWorld(19, 2, m), testBounds, nil)
	r.run(time.Minute)
	if n := r.last.Processes * r.last.Threads; n < 10 || n > 24 {
		t.Errorf("10 may be in flight; %v", r.last.Settings)
	}
}

// Functions that take turns do not change the settings forever.

func TestTurns(t *testing.T) {
	cpu, sleep := workloads["CPU"][0], workloads["blocking sleep"][0]
	off := func(m model) model { m.arrivals = 1e-9; return m }
	r := newRun(newWorld(20, 2, cpu, off(sleep)), testBounds, nil)
	for range 40 {
		r.mix(cpu, off(sleep))
		r.run(4 * time.Second)
		r.mix(off(cpu), sleep)
		r.run(4 * time.Second)
	}
	t.Logf("%d changes", r.changes)
	if r.changes > 40 {
		t.Errorf("%d changes in %v", r.changes, r.now)
	}
}

// A function that never runs does not slow down the others.

func TestOneThatNeverRuns(t *testing.T) {
	best, _ := grid(workloads["blocking sleep"], nil, 2, testBounds)
	r := newRun(newWorld(21, 2, workloads["blocking sleep"]...), testBounds, nil)
	for range 4 * 60 {
		s := r.play(250 * time.Millisecond)
		s.Functions = append(s.Functions, Function{Name: "never", Saturated: true})
		r.decide(s)
	}
	r.run(15 * time.Second)
	if got := mean(r.run(5*time.Second)) / best; got < 0.9 {
		t.Errorf("%.3f of the best, with %v", got, r.last.Settings)
	}
}

// A function that computes and starts late does not occupy the threads of those that wait.

func TestLateComer(t *testing.T) {
	cpu, sleep := workloads["CPU"][0], workloads["blocking sleep"][0]
	cpu.arrivals = 1e-9
	r := newRun(newWorld(22, 2, cpu, sleep), testBounds, nil)
	r.run(30 * time.Second)
	r.models[0].arrivals = 0
	r.run(20 * time.Second)
	before := r.total[1]
	r.run(10 * time.Second)
	if rate := (r.total[1] - before) / 10; r.last.Limits["cpu"] != 1 || rate < 500 {
		t.Errorf("%v with limits %v; what waits does %.4g/s", r.last.Settings, r.last.Limits, rate)
	}
}

// A function that computes and waits a little is faster with a second thread.

func TestGapsAreFilled(t *testing.T) {
	models := []model{{name: "gaps", cpu: 18e-3, wait: 4e-3}}
	best, at := grid(models, nil, 2, testBounds)
	r := newRun(newWorld(23, 2, models...), testBounds, nil)
	r.run(30 * time.Second)
	if got := mean(r.run(10*time.Second)) / best; got < 0.95 {
		t.Errorf("%.3f of the best (%.4g at %v), with %v: %s", got, best, at, r.last.Settings, r.last.Note)
	}
}
