package daemon

import (
	"maps"
	"sync"
	"time"

	"github.com/drover-run/drover/scaler"
)

// decisions are the latest on how many workers and instances there should be. The
// zero value has none.
type decisions struct {
	mu     sync.Mutex
	latest map[string]decided // by what they are about
}

// decided is one decision, as it is told.
type decided struct {
	At      time.Time    `json:"at"`
	Wanted  int          `json:"wanted"`
	Current int          `json:"current"`
	Bound   scaler.Bound `json:"bound" desc:"the bound that applied; formula if none did"`
	// Text is for people: the inputs, the formula, what held it.
	Text string `json:"text" desc:"for people: the inputs, the formula, the bound"`
	// Count is how often each bound has held one.
	Count map[scaler.Bound]int64 `json:"count" desc:"how often each bound applied"`

	raw   int // what the formula alone asked for
	loads []scaler.Load
}

func (d *decisions) note(about string, at time.Time, what scaler.Decision) {
	text := what.Explain()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.latest == nil {
		d.latest = make(map[string]decided)
	}
	count := maps.Clone(d.latest[about].Count)
	if count == nil {
		count = make(map[scaler.Bound]int64)
	}
	count[what.Bound]++
	d.latest[about] = decided{
		At: at, Wanted: what.Wanted, Current: what.Current, Bound: what.Bound, Text: text, Count: count,
		raw: what.Raw, loads: what.Signals.Loads,
	}
}

// all returns them, by what they are about.
func (d *decisions) all() map[string]decided {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.latest)
}
