package workers

import (
	"testing"
	"time"

	"github.com/drover-run/drover/handlers/workers/process"
)

func TestWornWorkers(t *testing.T) {
	now := time.Now()
	for _, test := range []struct {
		name   string
		limits Recycle
		wear   wear
		want   process.Cause
		check  int // the count at which it is looked at next
	}{
		{"no limits", Recycle{}, wear{taken: 1e6}, "", 0},
		{"too few", Recycle{MaxInvocations: 100}, wear{taken: 50}, "", 98},
		{"the last before its replacement is started", Recycle{MaxInvocations: 100}, wear{taken: 94}, "", 96},
		{"enough", Recycle{MaxInvocations: 100}, wear{taken: 96}, process.CauseInvocations, 0},
		{"enough, and younger than ten starts", Recycle{MaxInvocations: 100}, wear{taken: 200, readied: now.Add(-4 * time.Second)}, "", 0},
		{"young", Recycle{MaxAge: time.Hour}, wear{taken: 1}, "", 0},
		{"of age", Recycle{MaxAge: time.Second}, wear{taken: 1}, process.CauseAge, 0},
		{"it just had something to do", Recycle{MaxIdle: time.Second}, wear{taken: 1}, "", 0},
		{"idle", Recycle{MaxIdle: time.Second}, wear{taken: 1, looked: 1}, process.CauseIdle, 0},
		{"it never had anything to do", Recycle{MaxIdle: time.Second}, wear{}, "", 0},
	} {
		w := &worker{wear: test.wear}
		w.wear.share, w.wear.quiet = 1, now.Add(-5*time.Second)
		if w.wear.readied.IsZero() {
			w.wear.readied = now.Add(-10 * time.Second)
		}
		r := &reconciler{pool: &Pool{cfg: Config{Recycle: test.limits}}, startUp: time.Second / 2}
		if got := r.worn(w, now); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
		if w.wear.checkAt != test.check && test.want == "" {
			t.Errorf("%s: it is looked at again at %d, want %d", test.name, w.wear.checkAt, test.check)
		}
	}
	for limit, want := range map[int]int{0: 0, 1: 1, 2: 1} {
		if w := newWear(Recycle{MaxInvocations: limit}); w.checkAt != want {
			t.Errorf("one with a limit of %d is looked at at %d, want %d", limit, w.checkAt, want)
		}
	}
	for range 100 {
		if w := newWear(Recycle{MaxInvocations: 1000}); w.limit(Recycle{MaxInvocations: 1000}) < 900 || w.limit(Recycle{MaxInvocations: 1000}) > 1000 {
			t.Errorf("a limit of 1000 is %d for a worker", w.limit(Recycle{MaxInvocations: 1000}))
		}
	}
}
