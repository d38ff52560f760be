package autoscale

import (
	"maps"
	"sync"
	"time"

	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/scaler"
)

// Decisions holds the latest decisions on the numbers of workers and instances. The zero
// value is empty. It is safe for use by many goroutines.
type Decisions struct {
	mu     sync.Mutex
	latest map[string]Decision // by target
}

// Decision is one decision, with its values for the metrics.
type Decision struct {
	api.Decided
	Raw   int           `json:"-"` // the result of the formula
	Loads []scaler.Load `json:"-"`
}

// SetDecision makes a decision the latest of a target, such as "instances".
func (d *Decisions) SetDecision(target string, at time.Time, what scaler.Decision) {
	text := what.Explain()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.latest == nil {
		d.latest = make(map[string]Decision)
	}
	count := maps.Clone(d.latest[target].Count)
	if count == nil {
		count = make(map[scaler.Bound]int64)
	}
	count[what.Bound]++
	d.latest[target] = Decision{
		Decided: api.Decided{At: at, Wanted: what.Wanted, Current: what.Current, Bound: what.Bound, Sentence: what.Sentence(), Text: text, Count: count},
		Raw:     what.Raw, Loads: what.Signals.Loads,
	}
}

// AllDecisions returns the latest decisions by target.
func (d *Decisions) AllDecisions() map[string]Decision {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.latest)
}
