package workers

import (
	"testing"
	"time"

	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/worker"
)

func TestRecycleLimits(t *testing.T) {
	now := time.Now()
	for _, test := range []struct {
		name     string
		limits   Recycle
		taken    int
		counters recycleCounters
		want     process.Cause
		check    int // the count at which it is checked next
	}{
		{"no limits", Recycle{}, 1e6, recycleCounters{}, "", 0},
		{"too few", Recycle{MaxInvocations: 100}, 50, recycleCounters{}, "", 98},
		{"the last before its replacement is started", Recycle{MaxInvocations: 100}, 94, recycleCounters{}, "", 96},
		{"enough", Recycle{MaxInvocations: 100}, 96, recycleCounters{}, process.CauseInvocations, 0},
		{"enough, and younger than ten starts", Recycle{MaxInvocations: 100}, 200, recycleCounters{readyAt: now.Add(-4 * time.Second)}, "", 0},
		{"young", Recycle{MaxAge: time.Hour}, 1, recycleCounters{}, "", 0},
		{"of age", Recycle{MaxAge: time.Second}, 1, recycleCounters{}, process.CauseAge, 0},
		{"it just had something to do", Recycle{MaxIdle: time.Second}, 1, recycleCounters{}, "", 0},
		{"idle", Recycle{MaxIdle: time.Second}, 1, recycleCounters{lastCalls: 1}, process.CauseIdle, 0},
		{"it never had anything to do", Recycle{MaxIdle: time.Second}, 0, recycleCounters{}, "", 0},
	} {
		c := test.counters
		c.limitShare, c.idleSince = 1, now.Add(-5*time.Second)
		if c.readyAt.IsZero() {
			c.readyAt = now.Add(-10 * time.Second)
		}
		r := &recycler{limits: test.limits, startUp: time.Second / 2}
		got, check := r.countReached(&c, test.taken, now)
		if got == "" {
			got = r.timeReached(&c, test.taken, false, now)
		}
		if got != test.want || check != test.check {
			t.Errorf("%s: %q, and again at %d; want %q, %d", test.name, got, check, test.want, test.check)
		}
	}
	for limit, want := range map[int]int{0: 0, 1: 1, 2: 1} {
		c := recycleCounters{limitShare: 0.95}
		if got := c.invocationLimit(Recycle{MaxInvocations: limit}); got != want {
			t.Errorf("a limit of %d is %d for a worker, want %d", limit, got, want)
		}
	}
}

// Workers that started together do not reach their limits together.
func TestRecycleLimitsDiffer(t *testing.T) {
	limits := make(map[int]bool)
	for range 100 {
		m := newMember(new(worker.Worker), Recycle{})
		limit := m.counters.invocationLimit(Recycle{MaxInvocations: 1000})
		if limit < 900 || limit > 1000 {
			t.Errorf("a limit of 1000 is %d for a worker", limit)
		}
		limits[limit] = true
	}
	if len(limits) < 10 {
		t.Errorf("100 workers have %d limits", len(limits))
	}
}
