package recycle

import (
	"testing"
	"time"

	"github.com/drover-run/drover/handlers/workers/process"
)

func TestLimits(t *testing.T) {
	now := time.Now()
	for _, test := range []struct {
		name     string
		limits   Limits
		taken    int
		counters Counters
		want     process.Cause
		check    int // the count at which it is checked next
	}{
		{"no limits", Limits{}, 1e6, Counters{}, "", 0},
		{"too few", Limits{MaxInvocations: 100}, 50, Counters{}, "", 98},
		{"the last before its replacement is started", Limits{MaxInvocations: 100}, 94, Counters{}, "", 96},
		{"enough", Limits{MaxInvocations: 100}, 96, Counters{}, process.CauseInvocations, 0},
		{"enough, and younger than ten starts", Limits{MaxInvocations: 100}, 200, Counters{readyAt: now.Add(-4 * time.Second)}, "", 0},
		{"young", Limits{MaxAge: time.Hour}, 1, Counters{}, "", 0},
		{"of age", Limits{MaxAge: time.Second}, 1, Counters{}, process.CauseAge, 0},
		{"it just had something to do", Limits{MaxIdle: time.Second}, 1, Counters{}, "", 0},
		{"idle", Limits{MaxIdle: time.Second}, 1, Counters{lastCalls: 1}, process.CauseIdle, 0},
		{"it never had anything to do", Limits{MaxIdle: time.Second}, 0, Counters{}, "", 0},
	} {
		c := test.counters
		c.limitShare, c.idleSince = 1, now.Add(-5*time.Second)
		if c.readyAt.IsZero() {
			c.readyAt = now.Add(-10 * time.Second)
		}
		got, next := c.Check(test.limits, Use{Calls: test.taken, StartUp: time.Second / 2}, now)
		if got != test.want || next.Calls != test.check {
			t.Errorf("%s: %q, and again at %d; want %q, %d", test.name, got, next.Calls, test.want, test.check)
		}
		if waits := !next.At.IsZero(); waits != (test.name == "enough, and younger than ten starts") {
			t.Errorf("%s: it is checked again at %v", test.name, next.At)
		}
	}
	for limit, want := range map[int]int{0: 0, 1: 1, 2: 1} {
		c := Counters{limitShare: 0.95}
		if got := c.invocationLimit(Limits{MaxInvocations: limit}); got != want {
			t.Errorf("a limit of %d is %d for a worker, want %d", limit, got, want)
		}
	}
}

// Workers that started together do not reach their limits together.
func TestLimitsDiffer(t *testing.T) {
	limits := make(map[int]bool)
	for range 100 {
		c := NewCounters()
		limit := c.invocationLimit(Limits{MaxInvocations: 1000})
		if limit < 900 || limit > 1000 {
			t.Errorf("a limit of 1000 is %d for a worker", limit)
		}
		limits[limit] = true
	}
	if len(limits) < 10 {
		t.Errorf("100 workers have %d limits", len(limits))
	}
}
