package scaler

import (
	"testing"
	"time"
)

// Additional units whose messages fail are no gain, however fast they fail. While most messages
// fail, nothing is measured.
func TestWhatFailsIsNoGain(t *testing.T) {
	for name, test := range map[string]struct {
		done, failed float64 // of four units, where two do 100 a second
		ceiling      bool
	}{
		"twice as many pass":                      {200, 0, false},
		"no more pass":                            {103, 0, true},
		"the others fail":                         {200, 95, true},
		"most fail: it says nothing of the units": {400, 390, false},
	} {
		t.Run(name, func(t *testing.T) {
			var g gain
			at := time.Duration(0)
			look := func(units int, done, failed float64) {
				for range 60 {
					at += time.Second
					g.addSample(at, units, Load{Done: done, Failed: failed, Busy: 1, Backlog: 100_000, Slots: 4, Capacity: 50, Spread: 0.01}, 0.2)
				}
			}
			look(2, 100, 0)
			look(4, test.done, test.failed)
			if got := g.ceiling > 0; got != test.ceiling {
				t.Errorf("the ceiling is %d", g.ceiling)
			}
		})
	}
}
