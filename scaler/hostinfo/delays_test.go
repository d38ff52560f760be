package hostinfo

import (
	"fmt"
	"testing"
	"time"
)

func (tr tree) waited(pid, tid int, d time.Duration) {
	tr.t.Helper()
	tr.write(fmt.Sprintf("proc/%d/task/%d/schedstat", pid, tid), fmt.Sprintf("123456 %d 42\n", d.Nanoseconds()))
}

func TestDelays(t *testing.T) {
	tr := newTree(t)
	tr.write("proc/self/schedstat", "1 2 3\n")
	d := newDelays(tr.dir)
	want := func(want time.Duration, pids ...int) {
		t.Helper()
		got, known := d.WaitedSince(pids)
		if !known || got != want {
			t.Errorf("got %v, %v; want %v", got, known, want)
		}
	}
	tr.waited(10, 10, time.Hour)
	tr.waited(10, 11, time.Minute)
	want(0, 10)
	tr.waited(10, 10, time.Hour+time.Second)
	tr.waited(10, 11, time.Minute+2*time.Second)
	tr.waited(10, 12, 4*time.Second) // new in a process that is known
	tr.waited(20, 20, time.Hour)
	want(7*time.Second, 10, 20)
	want(0, 10, 20)
	tr.waited(10, 12, 3*time.Second) // another thread with the same number
	tr.waited(20, 20, time.Hour+8*time.Second)
	tr.remove("proc/10/task/11")
	want(11*time.Second, 10, 20)
	tr.remove("proc/20") // gone
	tr.waited(10, 10, time.Hour+2*time.Second)
	want(time.Second, 10, 20, 30)
	tr.write("proc/10/task/10/schedstat", "?\n")
	want(0, 10)
	want(0)
}

func TestDelaysThatTheKernelDoesNotCount(t *testing.T) {
	tr := newTree(t)
	tr.waited(10, 10, time.Hour)
	if waited, known := newDelays(tr.dir).WaitedSince([]int{10}); known || waited != 0 {
		t.Errorf("got %v, %v", waited, known)
	}
	if _, known := newDelays(tr.dir + "/none").WaitedSince(nil); known {
		t.Error("known without a /proc")
	}
}
