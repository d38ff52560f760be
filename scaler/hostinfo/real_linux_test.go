package hostinfo

import (
	"os"
	"testing"
	"time"
)

// The machine on which the tests run.
func TestThisMachine(t *testing.T) {
	r := New()
	before, err := r.ReadMachine()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", before)
	if !before.Known || before.CPUs < 1 || before.Cores <= 0 || before.Cores > float64(before.CPUs) || before.Busy <= 0 {
		t.Errorf("got %+v", before)
	}
	if before.MemoryLimit == 0 || before.MemoryAvailable == 0 || before.MemoryAvailable > before.MemoryLimit {
		t.Errorf("got %+v", before)
	}
	if before.Pressure.CPU < 0 || before.Pressure.CPU > 100 {
		t.Errorf("got %+v", before)
	}
	delays := NewDelays()
	if _, known := delays.WaitedSince([]int{os.Getpid()}); !known {
		t.Log("this kernel does not count for how long threads wait")
	}
	// Work until it shows: 100 ms of it.
	start := time.Now()
	for now := before; now.Busy < before.Busy+100*time.Millisecond; {
		if now, err = r.ReadMachine(); err != nil {
			t.Fatal(err)
		}
		if time.Since(start) > time.Minute {
			t.Fatalf("a minute's work does not show: %+v", now)
		}
	}
	if waited, _ := delays.WaitedSince([]int{os.Getpid()}); waited < 0 || waited > time.Hour {
		t.Errorf("waited %v", waited)
	}
}

func BenchmarkLook(b *testing.B) {
	r := New()
	for b.Loop() {
		if _, err := r.ReadMachine(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDelays(b *testing.B) {
	d, pids := NewDelays(), []int{os.Getpid()}
	for b.Loop() {
		d.WaitedSince(pids)
	}
}
