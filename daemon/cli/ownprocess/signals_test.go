package ownprocess

import (
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// GNU timeout and wrappers that forward signals send a SIGTERM twice; a person presses
// Ctrl-C twice.
func TestTwoSignalsAtOnceAreOne(t *testing.T) {
	const term, ctrlC = syscall.SIGTERM, syscall.SIGINT
	for _, test := range []struct {
		name    string
		first   os.Signal
		second  os.Signal
		after   time.Duration
		hurries bool
	}{
		{"a forwarded SIGTERM", term, term, time.Millisecond, false},
		{"a SIGTERM within a second", term, term, 999 * time.Millisecond, false},
		{"a second SIGTERM", term, term, time.Second, true},
		{"a forwarded SIGINT", ctrlC, ctrlC, time.Millisecond, false},
		{"Ctrl-C twice", ctrlC, ctrlC, 150 * time.Millisecond, true},
		{"Ctrl-C during a stop", term, ctrlC, 150 * time.Millisecond, true},
		{"Ctrl-C that a wrapper makes a SIGTERM", ctrlC, term, 10 * time.Millisecond, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				signals := make(chan os.Signal, 4)
				seconds := 0
				ctx, forceStop, end := countStops(signals, TermInterval, func() { seconds++ })
				defer end()
				if ctx.Err() != nil {
					t.Error("it stopped before a signal came")
				}
				signals <- test.first
				synctest.Wait()
				if ctx.Err() == nil {
					t.Error("the first signal does not stop")
				}
				time.Sleep(test.after)
				signals <- test.second
				synctest.Wait()
				select {
				case <-forceStop:
					if !test.hurries || seconds != 1 {
						t.Errorf("it was cut short, and second was called %d times", seconds)
					}
				default:
					if test.hurries {
						t.Error("the second signal does not cut short")
					}
				}
			})
		})
	}
}
