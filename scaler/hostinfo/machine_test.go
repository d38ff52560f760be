package hostinfo

import (
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tree is an artificial root directory.
type tree struct {
	t   *testing.T
	dir string
}

// newTree has four usable processors, and 8 GiB.
func newTree(t *testing.T) tree {
	tr := tree{t, t.TempDir()}
	tr.write("proc/stat", "cpu  20 20 20 999 999 20 20 20 0 0\n"+
		"cpu0 1 2 3 400 500 4 5 6 7 8\ncpu1 10 0 0 400 500 0 0 0 0 0\ncpu2 0 0 0 9 9 0 0 0 0 0\ncpu3 100 0 0 9 9 0 0 0 0 0\nintr 1 2 3\n")
	tr.write("proc/meminfo", "MemTotal:        8388608 kB\nMemFree:          100 kB\nMemAvailable:    4194304 kB\n")
	tr.write("proc/pressure/cpu", "some avg10=12.50 avg60=0.21 avg300=0.99 total=8537362\nfull avg10=0.00 avg60=0.13 avg300=0.96 total=8183134\n")
	tr.write("proc/pressure/memory", "some avg10=0.25 avg60=0.21 avg300=0.99 total=8537362\n")
	tr.write("proc/self/cgroup", "0::/\n")
	tr.write("proc/self/mountinfo", "20 1 0:20 / /proc rw - proc proc rw\n")
	return tr
}

func (tr tree) write(name, text string) {
	tr.t.Helper()
	name = filepath.Join(tr.dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
		tr.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		tr.t.Fatal(err)
	}
}

func (tr tree) remove(name string) {
	tr.t.Helper()
	if err := os.RemoveAll(filepath.Join(tr.dir, name)); err != nil {
		tr.t.Fatal(err)
	}
}

// unified mounts version 2, with this process in one of its groups.
func (tr tree) unified(group string) {
	tr.write("proc/self/cgroup", "0::"+group+"\n")
	tr.write("proc/self/mountinfo", "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n")
}

func all(n int) func() (map[int]bool, bool) {
	return func() (map[int]bool, bool) {
		cpus := make(map[int]bool)
		for i := range n {
			cpus[i] = true
		}
		return cpus, true
	}
}

func (tr tree) reader() *Reader { return newReader(tr.dir, all(4)) }

// look reads a machine without problems.
func (tr tree) look(r *Reader) Machine {
	tr.t.Helper()
	m, err := r.ReadMachine()
	if err != nil {
		tr.t.Fatal(err)
	}
	return m
}

const gib = 1 << 30

func TestMachineWithoutLimits(t *testing.T) {
	tr := newTree(t)
	m := tr.look(tr.reader())
	want := Machine{
		Known: true, CPUs: 4, Cores: 4, CoresBy: "processors", Busy: 1310 * time.Millisecond, Stolen: 60 * time.Millisecond,
		MemoryLimit: 8 * gib, MemoryBy: "memory", MemoryAvailable: 4 * gib, Pressure: Pressure{12.5, 0.25},
	}
	if m != want {
		t.Errorf("got  %+v\nwant %+v", m, want)
	}
}

func TestOnlyProcessorsThatWeMayRunOnCount(t *testing.T) {
	tr := newTree(t)
	r := newReader(tr.dir, func() (map[int]bool, bool) { return map[int]bool{0: true, 2: true}, true })
	m := tr.look(r)
	if m.CPUs != 2 || m.Cores != 2 || m.Busy != 210*time.Millisecond {
		t.Errorf("got %+v", m)
	}
	r.affinity = func() (map[int]bool, bool) { return nil, false }
	m = tr.look(r)
	if m.CPUs != runtime.NumCPU() || m.Busy != 1310*time.Millisecond {
		t.Errorf("with an affinity that is not known: got %+v", m)
	}
}

func TestPressureThatIsNotMeasured(t *testing.T) {
	tr := newTree(t)
	tr.remove("proc/pressure")
	m := tr.look(tr.reader())
	if !math.IsNaN(m.Pressure.CPU) || !math.IsNaN(m.Pressure.Memory) || m.MemoryLimit != 8*gib {
		t.Errorf("got %+v", m)
	}
}

func TestNothingToRead(t *testing.T) {
	m, err := newReader(filepath.Join(t.TempDir(), "none"), allowedCPUs).ReadMachine()
	if err != nil {
		t.Fatal(err)
	}
	if m.Known || m.CPUs < 1 || m.Cores != float64(m.CPUs) || m.MemoryLimit != 0 || m.Busy != 0 || !math.IsNaN(m.Pressure.CPU) {
		t.Errorf("got %+v", m)
	}
	if others := OthersBusy(m, m, 0, time.Second); !math.IsNaN(others) {
		t.Errorf("others: %v", others)
	}
}

// A value that cannot be parsed is reported, and the rest is still read.
func TestGarbage(t *testing.T) {
	for _, c := range []struct {
		file, text string
		says       string
		check      func(Machine) bool
	}{
		{"proc/stat", "nothing", "proc/stat: it lists no processor", func(m Machine) bool { return !m.Known && m.MemoryLimit == gib }},
		{"proc/stat", "cpu0 1 2\n", `"cpu0 1 2" is not what a processor did`, func(m Machine) bool { return !m.Known && m.Cores == 0.5 }},
		{"proc/stat", "cpu0 1 x 2 3 4 5\n", "is not what a processor did", func(m Machine) bool { return !m.Known }},
		{"proc/stat", "cpux 1 2 2 3 4 5\n", "is not what a processor did", func(m Machine) bool { return !m.Known }},
		{"proc/meminfo", "", "proc/meminfo: there is no MemTotal", func(m Machine) bool { return m.MemoryLimit == 0 && m.Cores == 0.5 }},
		{"proc/meminfo", "MemTotal: 1 kB\nMemAvailable:\n", "there is no MemAvailable", func(m Machine) bool { return m.MemoryLimit == 0 }},
		{"proc/meminfo", "MemTotal: much\n", "much", func(m Machine) bool { return m.MemoryLimit == 0 }},
		{"proc/self/mountinfo", "nonsense\n", "proc/self/mountinfo: ", func(m Machine) bool { return m.Cores == 4 && m.MemoryLimit == 8*gib }},
		{"proc/pressure/cpu", "some avg10=a lot\n", "proc/pressure/cpu: ", func(m Machine) bool { return math.IsNaN(m.Pressure.CPU) && m.Pressure.Memory == 0.25 }},
		{"proc/pressure/memory", "full\n", "proc/pressure/memory: ", func(m Machine) bool { return math.IsNaN(m.Pressure.Memory) && m.Pressure.CPU == 12.5 }},
		{"sys/fs/cgroup/app/cpu.max", "half\n", `/sys/fs/cgroup/app/cpu.max: "half" of "" µs is not a quota`, func(m Machine) bool { return m.Cores == 4 && m.MemoryLimit == gib }},
		{"sys/fs/cgroup/app/cpu.max", "0 100000\n", "is not a quota", func(m Machine) bool { return m.Cores == 4 }},
		{"sys/fs/cgroup/app/cpu.max", "100000 0\n", "is not a quota", func(m Machine) bool { return m.Cores == 4 }},
		{"sys/fs/cgroup/app/cpu.max", "", "is not a quota", func(m Machine) bool { return m.Cores == 4 }},
		{"sys/fs/cgroup/app/memory.max", "-5\n", `memory.max: "-5" is not a limit`, func(m Machine) bool { return m.Cores == 0.5 && m.MemoryLimit == 8*gib }},
		{"sys/fs/cgroup/app/memory.current", "?\n", `memory.current: "?" is not a number of bytes`, func(m Machine) bool { return m.MemoryLimit == gib && m.MemoryAvailable == 4*gib }},
	} {
		tr := newTree(t)
		tr.unified("/app")
		tr.write("sys/fs/cgroup/app/cpu.max", "50000 100000\n")
		tr.write("sys/fs/cgroup/app/memory.max", "1073741824\n")
		tr.write("sys/fs/cgroup/app/memory.current", "0\n")
		tr.write(c.file, c.text)
		m, err := tr.reader().ReadMachine()
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s with %q: the error is %v", c.file, c.text, err)
		}
		if !c.check(m) {
			t.Errorf("%s with %q: got %+v", c.file, c.text, m)
		}
	}
}

func TestOthers(t *testing.T) {
	at := func(busy time.Duration) Machine { return Machine{Known: true, CPUs: 4, Busy: busy} }
	for _, c := range []struct {
		before, now   Machine
		ours, elapsed time.Duration
		want          float64
	}{
		{at(time.Minute), at(time.Minute + 3*time.Second), time.Second, 2 * time.Second, 1},
		{at(time.Minute), at(time.Minute + time.Second), 2 * time.Second, time.Second, 0}, // counted in coarse steps
		{at(time.Minute), at(time.Minute), 0, 0, math.NaN()},
		{at(0), Machine{Known: true, CPUs: 3, Busy: time.Hour}, 0, time.Second, math.NaN()},
		{at(0), Machine{CPUs: 4}, 0, time.Second, math.NaN()},
	} {
		got := OthersBusy(c.before, c.now, c.ours, c.elapsed)
		if got != c.want && !(math.IsNaN(got) && math.IsNaN(c.want)) {
			t.Errorf("Others(%v, %v, %v, %v) = %v, want %v", c.before, c.now, c.ours, c.elapsed, got, c.want)
		}
	}
}
