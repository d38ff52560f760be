package autoscale

import (
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/drover-run/drover/scaler/hostinfo"
)

// fakeMachine is a machine whose counters a test changes.
type fakeMachine struct {
	now     hostinfo.Machine
	problem error
	waited  time.Duration // since the last read
	unknown bool          // the kernel does not report waits
	pids    []int         // of the last read
}

func (m *fakeMachine) ReadMachine() (hostinfo.Machine, error) { return m.now, m.problem }

func (m *fakeMachine) WaitedSince(pids []int) (time.Duration, bool) {
	m.pids = pids
	waited := m.waited
	m.waited = 0
	return waited, !m.unknown
}

// contentionReading is the result of a read.
type contentionReading struct{ others, runQueue, stolen, throttled float64 }

func TestContention(t *testing.T) {
	unknown := math.NaN()
	for name, c := range map[string]struct {
		elapsed time.Duration
		ours    time.Duration // used by the workers and the daemon meanwhile
		passes  func(m *fakeMachine)
		want    contentionReading
	}{
		"alone": {2 * time.Second, 2 * time.Second, func(m *fakeMachine) { m.now.Busy += 2 * time.Second }, contentionReading{}},
		"a neighbor": {2 * time.Second, 2 * time.Second, func(m *fakeMachine) {
			m.now.Busy += 4 * time.Second
			m.waited = time.Second
		}, contentionReading{others: 1, runQueue: 0.5}},
		"clocks are coarse": {2 * time.Second, 2 * time.Second, func(m *fakeMachine) { m.now.Busy += 1990 * time.Millisecond }, contentionReading{}},
		"a hypervisor": {2 * time.Second, 1500 * time.Millisecond, func(m *fakeMachine) {
			m.now.Busy += 2 * time.Second
			m.now.Stolen += 500 * time.Millisecond
		}, contentionReading{others: 0.25, stolen: 0.25}},
		"a quota": {2 * time.Second, time.Second, func(m *fakeMachine) {
			m.now.Busy += time.Second
			m.now.Throttled += 3 * time.Second
		}, contentionReading{throttled: 0.75}},
		"another cgroup, with other counters": {time.Second, time.Second, func(m *fakeMachine) {
			m.now.Busy += time.Second
			m.now.Throttled += time.Hour
		}, contentionReading{}},
		"no waits are reported": {time.Second, time.Second, func(m *fakeMachine) {
			m.now.Busy += time.Second
			m.waited, m.unknown = time.Second, true
		}, contentionReading{runQueue: unknown}},
		"a processor was removed": {time.Second, time.Second, func(m *fakeMachine) {
			m.now.CPUs, m.now.Busy, m.now.Stolen = 1, 0, time.Hour
		}, contentionReading{}},
		"/proc is unreadable": {time.Second, time.Second, func(m *fakeMachine) {
			m.now, m.problem = hostinfo.Machine{CPUs: 2, Cores: 2}, errors.New("no /proc")
		}, contentionReading{}},
		"the clock stands still": {0, time.Second, func(m *fakeMachine) { m.now.Busy += time.Minute }, contentionReading{runQueue: unknown}},
	} {
		t.Run(name, func(t *testing.T) {
			m := &fakeMachine{now: hostinfo.Machine{Known: true, CPUs: 2, Cores: 2, Busy: time.Hour, Stolen: time.Minute}}
			c2 := &contention{reader: m, delays: m, runQueue: unknown}
			at := time.Now()
			m.waited = time.Hour // before the first read
			c2.read(at, time.Minute, []int{1, 2})
			if got := c2.reading(); !math.IsNaN(got.runQueue) || got.others != 0 || c2.waited != 0 {
				t.Errorf("the first read has %+v", got)
			}
			c.passes(m)
			waits := m.waited
			c2.read(at.Add(c.elapsed), time.Minute+c.ours, []int{2, 3})
			if got := c2.reading(); !isSame(got, c.want) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
			if !slices.Equal(m.pids, []int{2, 3}) || c2.machine != m.now {
				t.Errorf("it read %v of %+v", m.pids, c2.machine)
			}
			if total := c2.waited; !m.unknown && c.elapsed > 0 && total != waits {
				t.Errorf("its workers waited for %v in total, want %v", total, waits)
			}
		})
	}
}

// A mean covers the time since the read before, not since the first one.
func TestContentionForgets(t *testing.T) {
	m := &fakeMachine{now: hostinfo.Machine{Known: true, CPUs: 2, Cores: 2}}
	c := &contention{reader: m, delays: m}
	at := time.Now()
	c.read(at, 0, nil)
	m.now.Busy, m.now.Stolen, m.now.Throttled, m.waited = 2*time.Second, time.Second, time.Second, time.Second
	c.read(at.Add(time.Second), time.Second, nil)
	if got, want := c.reading(), (contentionReading{others: 1, runQueue: 1, stolen: 0.5, throttled: 0.5}); !isSame(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	c.read(at.Add(2*time.Second), time.Second, nil)
	if got := c.reading(); !isSame(got, contentionReading{}) || c.waited != time.Second {
		t.Errorf("in a quiet second it is %+v, with %v in total", got, c.waited)
	}
}

func (c *contention) reading() contentionReading {
	return contentionReading{c.others, c.runQueue, c.stolen, c.throttled}
}

func isSame(a, b contentionReading) bool {
	near := func(x, y float64) bool { return math.IsNaN(x) && math.IsNaN(y) || math.Abs(x-y) < 1e-9 }
	return near(a.others, b.others) && near(a.runQueue, b.runQueue) && near(a.stolen, b.stolen) && near(a.throttled, b.throttled)
}
