package autotune

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

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
		"other machine": {8, b, 0, workloads["blocking sleep"], "for 2 cores, and the machine has 8"},
		"bounds":        {2, Bounds{Least: settings(1, 1, 1), Most: settings(2, 8, 8)}, 0, workloads["blocking sleep"], "outside the bounds"},
		"memory":        {2, b, 100e6, workloads["blocking sleep"], "and there are 100 MB"},
		"gone":          {2, b, 0, workloads["CPU"], "which no longer exists"},
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
	set := settings(1, 6, 1)
	r := newRun(newWorld(15, 2, workloads["CPU"]...), Bounds{Least: set, Most: set}, nil)
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
