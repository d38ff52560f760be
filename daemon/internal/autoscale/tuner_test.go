package autoscale

import (
	"testing"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/scaler/autotune"
)

func TestTuningBounds(t *testing.T) {
	t.Parallel()
	auto := configs.App{Processes: 2, Threads: 1, Coroutines: 512, ResolvedApp: configs.ResolvedApp{Scaled: true, AutoThreads: true, AutoCoroutines: true}}
	given, free := tuningBounds(auto, true, 2)
	if given != free || free.Least != (autotune.Settings{Processes: 1, Threads: 1, Coroutines: 1}) || free.Most != (autotune.Settings{Processes: 4, Threads: maxThreads, Coroutines: maxCoroutines}) {
		t.Errorf("auto: %+v, %+v", given, free)
	}
	app := configs.App{Processes: 3, Threads: 7, Coroutines: 9}
	given, free = tuningBounds(app, true, 8)
	if all := (autotune.Settings{Processes: 3, Threads: 7, Coroutines: 9}); given.Least != all || given.Most != all || free.Most.Processes != 16 {
		t.Errorf("explicit: %+v, %+v", given, free)
	}
	if given, free = tuningBounds(auto, false, 2); given.Most.Threads != 1 || free.Most.Threads != 1 || given.Least.Coroutines != unmeasuredCoroutines || given.Most.Coroutines != maxCoroutines {
		t.Errorf("of a worker that cannot change: %+v, %+v", given, free)
	}
}

// Measurements are rare while nothing depends on them.
func TestHowSoonIsMeasuredAgain(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		lull
		want time.Duration
	}{
		"a light load":              {lull{busy: true, used: 0.2, inFlight: 1}, tuneLight},
		"half of the slots":         {lull{busy: true, used: 0.5, inFlight: 8}, tuneIdle},
		"other settings":            {lull{busy: true, changed: true}, tuneIdle},
		"just idle":                 {lull{idleFor: time.Second}, tuneIdle},
		"idle for long":             {lull{idleFor: time.Hour}, tuneRest},
		"idle for long, and a call": {lull{idleFor: time.Hour, inFlight: 1}, tuneIdle},
	} {
		if got := test.pause(); got != test.want {
			t.Errorf("%s: after %v, want %v", name, got, test.want)
		}
	}
}
