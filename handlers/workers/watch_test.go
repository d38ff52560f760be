package workers

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drover-run/drover/handlers/workers/worker"
)

// A call that times out soon is checked soon; other calls do not wake the watch more often than every
// watchEvery.
func TestWatchChecksWhenACallIsDue(t *testing.T) {
	for name, test := range map[string]struct {
		timeouts []time.Duration // of calls that are submitted at once
		want     time.Duration
	}{
		"no timeout":                        {[]time.Duration{0}, watchEvery},
		"a long timeout":                    {[]time.Duration{time.Minute}, watchEvery},
		"a short timeout":                   {[]time.Duration{time.Millisecond}, watchSoon},
		"a short timeout behind a long one": {[]time.Duration{time.Minute, 30 * time.Millisecond}, watchSoon},
		"many short timeouts":               {[]time.Duration{time.Millisecond, time.Millisecond, 2 * time.Millisecond}, watchSoon},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				var checks []time.Duration
				w := newWatch(func() []*worker.Worker {
					checks = append(checks, time.Since(began))
					return nil
				}, slog.New(slog.DiscardHandler))
				ctx, stop := context.WithCancel(t.Context())
				var running sync.WaitGroup
				running.Go(func() { w.watchCalls(ctx) })
				for _, timeout := range test.timeouts {
					var deadline time.Time
					if timeout > 0 {
						deadline = began.Add(timeout)
					}
					w.wakeUp(deadline)
					synctest.Wait()
				}
				time.Sleep(time.Second)
				stop()
				running.Wait()
				if at := slices.Compact(checks); !slices.Equal(at, []time.Duration{test.want}) {
					t.Errorf("calls were checked at %v, want only %v", at, test.want)
				}
			})
		})
	}
}

// A watch that was idle for long does not take that for a standstill, also if a call times out soon.
func TestAnIdleWatchIsNoStandstill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		w := newWatch(func() []*worker.Worker { return nil }, slog.New(slog.NewTextHandler(&log, nil)))
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { w.watchCalls(ctx) })
		for _, timeout := range []time.Duration{time.Hour, time.Millisecond, time.Hour} {
			w.wakeUp(time.Now().Add(timeout))
			time.Sleep(time.Minute)
			w.sooner <- struct{}{} // as of a call that has ended by now
			time.Sleep(time.Minute)
		}
		stop()
		running.Wait()
		if log.Len() > 0 {
			t.Error(log.String())
		}
	})
}
