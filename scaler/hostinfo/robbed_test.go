package hostinfo

import (
	"strings"
	"testing"
	"time"
)

func TestStolenTime(t *testing.T) {
	tr := newTree(t)
	before := tr.look(tr.reader())
	if before.Stolen != 60*time.Millisecond {
		t.Errorf("stolen are %v, want that of all processors", before.Stolen)
	}
	now := before
	now.Busy, now.Stolen = before.Busy+2*time.Second, before.Stolen+500*time.Millisecond
	if part := StolenPart(before, now); part != 0.25 {
		t.Errorf("stolen are %v of the time", part)
	}
	for name, now := range map[string]Machine{
		"nothing ran":         before,
		"unknown":             {CPUs: before.CPUs, Busy: now.Busy, Stolen: now.Stolen},
		"fewer processors":    {Known: true, CPUs: 1, Busy: now.Busy, Stolen: now.Stolen},
		"counters went back":  {Known: true, CPUs: before.CPUs, Busy: now.Busy, Stolen: 0},
		"counters began anew": {Known: true, CPUs: before.CPUs},
	} {
		if part := StolenPart(before, now); part != 0 {
			t.Errorf("%s: stolen are %v", name, part)
		}
	}
}

// Quotas of the process's own cgroup and of those above it withhold processors.
func TestThrottledTime(t *testing.T) {
	tr := newTree(t)
	tr.unified("/a/b")
	tr.write("sys/fs/cgroup/a/b/cpu.stat", "usage_usec 5000\nnr_throttled 3\nthrottled_usec 2000000\n")
	tr.write("sys/fs/cgroup/a/cpu.stat", "usage_usec 5000\nthrottled_usec 1000000\n")
	tr.write("sys/fs/cgroup/cpu.stat", "usage_usec 5000\n")
	m := tr.look(tr.reader())
	if m.Throttled != 3*time.Second {
		t.Errorf("throttled are %v", m.Throttled)
	}
	later := m
	later.Throttled += time.Second
	if part := ThrottledPart(m, later, 3*time.Second, 2*time.Second); part != 0.25 {
		t.Errorf("throttled are %v of the time", part)
	}
	if part := ThrottledPart(later, m, 3*time.Second, 2*time.Second); part != 0 {
		t.Errorf("after a move to another group, throttled are %v", part)
	}
	later.Throttled += time.Hour
	if part := ThrottledPart(m, later, 3*time.Second, 2*time.Second); part != 0 {
		t.Errorf("after a move to a group with large counters, throttled are %v", part)
	}

	tr.write("sys/fs/cgroup/a/cpu.stat", "throttled_usec many\n")
	if m, err := tr.reader().ReadMachine(); err == nil || !strings.Contains(err.Error(), "/sys/fs/cgroup/a/cpu.stat: the time after throttled_usec is not a number") || m.Throttled != 2*time.Second {
		t.Errorf("%v, %v", m.Throttled, err)
	}

	tr = newTree(t)
	tr.write("proc/self/cgroup", "3:cpuset:/\n2:cpu,cpuacct:/c\n")
	tr.write("proc/self/mountinfo", "31 23 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n")
	tr.write("sys/fs/cgroup/cpu/c/cpu.stat", "nr_periods 4\nnr_throttled 2\nthrottled_time 1500000000\n")
	if m := tr.look(tr.reader()); m.Throttled != 1500*time.Millisecond {
		t.Errorf("version 1: throttled are %v", m.Throttled)
	}
}
