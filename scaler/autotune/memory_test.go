package autotune

import (
	"strings"
	"testing"
	"time"
)

func TestMemoryIsKeptUnder(t *testing.T) {
	m := workloads["blocking sleep"][0]
	m.memory = 3e6
	w := newWorld(8, 2, m)
	w.limit = 500e6
	r := newRun(w, testBounds, nil)
	for range 240 {
		s := r.play(250 * time.Millisecond)
		if s.Memory > s.MemoryLimit {
			t.Fatalf("%v: %v takes %s of %s", s.At, s.Settings, inMegabytes(float64(s.Memory)), inMegabytes(float64(s.MemoryLimit)))
		}
		r.decide(s)
	}
	calls := r.last.Processes * r.last.Threads
	t.Logf("%v %s; learned %+v", r.last.Settings, r.last.Note, r.c.Learned())
	if calls < 60 { // 500 MB × 0.8 - 2 × 40 MB = 106 × 3 MB
		t.Errorf("only %v, where memory allows 106 calls", r.last.Settings)
	}
	if l := r.c.Learned(); l.PerCall < 2e6 || l.PerCall > 5e6 {
		t.Errorf("a call takes 3 MB; learned %s", inMegabytes(float64(l.PerCall)))
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
		t.Errorf("the leak was taken for what a call takes: %s", inMegabytes(float64(l.PerCall)))
	}
}
