package attempts

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func newAttempt(parent context.Context, deadline time.Time) *Attempt {
	a := new(Attempt)
	a.Begin(parent, deadline)
	return a
}

// OnInterrupt calls its function once for each kind of interruption, but not at the deadline.
func TestInterruptions(t *testing.T) {
	for name, c := range map[string]struct {
		before, after func(a *Attempt, stop context.CancelFunc)
		want          int
		inTime        bool // unhook was called before the interruption
	}{
		"none":          {want: 0, inTime: true},
		"a stop":        {after: func(_ *Attempt, stop context.CancelFunc) { stop() }, want: 1},
		"a stop before": {before: func(_ *Attempt, stop context.CancelFunc) { stop() }, want: 1},
		"lost":          {after: func(a *Attempt, _ context.CancelFunc) { a.CancelWith(ErrLost) }, want: 1},
		"lost before":   {before: func(a *Attempt, _ context.CancelFunc) { a.CancelWith(ErrLost) }, want: 1},
		"the deadline":  {after: func(*Attempt, context.CancelFunc) { <-time.After(2 * time.Minute) }, want: 0, inTime: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				working, stop := context.WithCancel(t.Context())
				defer stop()
				a := newAttempt(working, time.Now().Add(time.Minute))
				defer a.StopTimer()
				if c.before != nil {
					c.before(a, stop)
				}
				told := make(chan struct{}, 9)
				unhook := a.OnInterrupt(func() { told <- struct{}{} })
				if c.after != nil {
					c.after(a, stop)
				}
				synctest.Wait()
				if got := unhook(); len(told) != c.want || got != c.inTime {
					t.Errorf("called %d times, want %d; unhooked in time: %v", len(told), c.want, got)
				}
				a.CancelWith(ErrLost)
				synctest.Wait()
				if len(told) != c.want {
					t.Error("called after the hook was removed")
				}
			})
		})
	}
}

func TestAnAttemptsContext(t *testing.T) {
	working, cancel := context.WithCancel(context.Background())
	defer cancel()
	type key struct{}
	a := newAttempt(context.WithValue(working, key{}, "v"), time.Now().Add(30*time.Millisecond))
	if a.Err() != nil || a.Value(key{}) != "v" {
		t.Errorf("%v, %v", a.Err(), a.Value(key{}))
	}
	if d, ok := a.Deadline(); !ok || d != a.deadline {
		t.Errorf("%v, %v", d, ok)
	}
	derived, stop := context.WithCancel(a)
	defer stop()
	<-derived.Done()
	if !errors.Is(a.Err(), context.DeadlineExceeded) || !errors.Is(context.Cause(a), ErrTimeout) || !errors.Is(context.Cause(derived), ErrTimeout) {
		t.Errorf("%v, %v, %v", a.Err(), context.Cause(a), context.Cause(derived))
	}
	a.StopTimer()

	late := newAttempt(working, time.Now().Add(-time.Second))
	if !errors.Is(late.Err(), context.DeadlineExceeded) {
		t.Errorf("%v", late.Err())
	}
	late.StopTimer()
	stopped := newAttempt(working, time.Now().Add(time.Hour))
	cancel()
	if !errors.Is(stopped.Err(), context.Canceled) {
		t.Errorf("%v", stopped.Err())
	}
	stopped.StopTimer()
}
