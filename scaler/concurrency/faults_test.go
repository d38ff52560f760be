package concurrency

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"
)

// After the search, what is found stays for ten minutes.
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

// A function may become another without changing its name.
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

// What depends on the hour makes it look again now and then, and not for ever.
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

func TestMemoryIsKeptUnder(t *testing.T) {
	m := workloads["blocking sleep"][0]
	m.memory = 3e6
	w := newWorld(8, 2, m)
	w.limit = 500e6
	r := newRun(w, testBounds, nil)
	for range 240 {
		s := r.play(250 * time.Millisecond)
		if s.Memory > s.MemoryLimit {
			t.Fatalf("%v: %v takes %s of %s", s.At, s.Settings, megabytes(float64(s.Memory)), megabytes(float64(s.MemoryLimit)))
		}
		r.decide(s)
	}
	calls := r.last.Processes * r.last.Threads
	t.Logf("%v %s; learned %+v", r.last.Settings, r.last.Note, r.c.Learned())
	if calls < 60 { // 500 MB × 0.8 - 2 × 40 MB = 106 × 3 MB
		t.Errorf("only %v, where memory allows 106 calls", r.last.Settings)
	}
	if l := r.c.Learned(); l.PerCall < 2e6 || l.PerCall > 5e6 {
		t.Errorf("a call takes 3 MB; learned %s", megabytes(float64(l.PerCall)))
	}
}

func TestLeak(t *testing.T) {
	w := newWorld(9, 2, workloads["blocking sleep"]...)
	w.limit = 1500e6
	b := testBounds
	b.Most.Processes = 4
	r := newRun(w, b, nil)
	r.run(time.Minute)
	found := r.last.Settings
	r.leak = 10e6 // the limit after about two minutes
	r.changes = 0
	said := false
	for range 12 * 60 {
		r.run(250 * time.Millisecond)
		said = said || r.last.Phase == PhaseMemory && strings.Contains(r.last.Note, "memory is nearly used up")
		if r.leaked > 1.3e9 {
			r.leak = 0 // as if it were near the end
		}
	}
	r.run(time.Minute)
	if !said || !strings.Contains(r.last.Note, "leak") {
		t.Errorf("it does not say so: %s %s", r.last.Phase, r.last.Note)
	}
	if r.changes > 4 || r.last.Processes*r.last.Threads < found.Processes*found.Threads/4 {
		t.Errorf("%d steps down for a leak: from %v to %v", r.changes, found, r.last.Settings)
	}
	r.leaked = 0 // workers were recycled
	r.run(40 * time.Second)
	if r.last.Settings != found {
		t.Errorf("after the workers were recycled %v, before %v: %s", r.last.Settings, found, r.last.Note)
	}
	if l := r.c.Learned(); l.PerCall > 1e6 {
		t.Errorf("the leak was taken for what a call takes: %s", megabytes(float64(l.PerCall)))
	}
}

func TestRemembers(t *testing.T) {
	b := testBounds
	b.Most.Processes = 4
	r := newRun(newWorld(12, 2, workloads["blocking sleep"]...), b, nil)
	r.run(time.Minute)
	text, err := json.Marshal(r.c.Learned())
	if err != nil {
		t.Fatal(err)
	}
	read := func() *Learned {
		var l Learned
		if err := json.Unmarshal(text, &l); err != nil {
			t.Fatal(err)
		}
		return &l
	}
	again := newRun(newWorld(13, 2, workloads["blocking sleep"]...), b, read())
	if again.last.Settings != r.last.Settings {
		t.Errorf("starts with %v, and found %v: %s", again.last.Settings, r.last.Settings, again.last.Note)
	}
	again.run(time.Minute)
	if again.changes > 0 {
		t.Errorf("%d changes after a restart", again.changes)
	}
	if k := again.c.Kinds()["sleep"]; k.Kind != KindBlocking {
		t.Errorf("kind %+v", k)
	}
	for name, c := range map[string]struct {
		cores  float64
		bounds Bounds
		limit  uint64
		models []model
		want   string
	}{
		"other machine": {8, b, 0, workloads["blocking sleep"], "for 2 cores, and there are 8"},
		"bounds":        {2, Bounds{Settings{1, 1, 1}, Settings{2, 8, 8}}, 0, workloads["blocking sleep"], "outside of the bounds"},
		"memory":        {2, b, 100e6, workloads["blocking sleep"], "and there are 100 MB"},
		"gone":          {2, b, 0, workloads["CPU"], "which is gone"},
	} {
		w := newWorld(13, c.cores, c.models...)
		controller := New(c.bounds, read())
		d := controller.Look(Sample{Cores: c.cores, MemoryLimit: c.limit, Functions: append([]Function(nil), w.sum...)})
		if !strings.Contains(d.Note, c.want) || d.Processes > int(c.cores) {
			t.Errorf("%s: %v, %q; want %q", name, d.Settings, d.Note, c.want)
		}
	}
}

func TestExplicitInOneDimension(t *testing.T) {
	b := testBounds
	b.Least.Threads, b.Most.Threads = 1, 1
	r := newRun(newWorld(14, 2, workloads["blocking sleep"]...), b, nil)
	for range 240 {
		r.run(250 * time.Millisecond)
		if r.last.Threads != 1 {
			t.Fatalf("1 thread was asked for; %v", r.last.Settings)
		}
	}
	if r.last.Processes < 14 {
		t.Errorf("only processes could grow, to 16: %v, %s", r.last.Settings, r.last.Note)
	}
	b = testBounds
	b.Least.Processes, b.Most.Processes = 3, 3
	r = newRun(newWorld(14, 2, workloads["blocking sleep"]...), b, nil)
	r.run(time.Minute)
	if r.last.Processes != 3 || r.last.Threads < 120 {
		t.Errorf("3 processes were asked for, and threads could grow to 128: %v", r.last.Settings)
	}
}

func TestEverythingExplicit(t *testing.T) {
	set := Settings{1, 6, 1}
	r := newRun(newWorld(15, 2, workloads["CPU"]...), Bounds{set, set}, nil)
	r.run(time.Minute)
	if r.changes > 0 || r.last.Settings != set || r.last.Phase != PhaseExplicit || r.last.Limits != nil {
		t.Errorf("%d changes, %+v", r.changes, r.last)
	}
	if k := r.c.Kinds()["cpu"]; k.Kind == KindUnknown {
		t.Error("it does not classify")
	}
	advice := Advise(set, testBounds, r.c.Kinds(), r.play(time.Second))
	if !strings.Contains(advice, "2 processes × 1 thread") {
		t.Errorf("advice %q", advice)
	}
}

// With room for everything nothing can be learned about more.
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

// Where what it waits for is the bottleneck, more calls only wait longer.
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

// What the user or the source allows in flight is not chased.
func TestLimitOfAFunction(t *testing.T) {
	m := workloads["blocking sleep"][0]
	m.limit = 10
	r := newRun(newWorld(19, 2, m), testBounds, nil)
	r.run(time.Minute)
	if n := r.last.Processes * r.last.Threads; n < 10 || n > 24 {
		t.Errorf("10 may be in flight; %v", r.last.Settings)
	}
}

// Functions that take turns do not have it turn with them for ever.
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

// One that never gets to run, whatever there is for it, keeps the others from nothing.
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

// A function that comes late, and computes, does not take the threads of what waits.
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
