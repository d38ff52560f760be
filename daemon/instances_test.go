package daemon

import (
	"testing"
	"time"
)

// until waits for a condition that other processes fulfil.
func until(t *testing.T, out *printed, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v; the log is\n%s", what, patience, out)
		}
	}
}
