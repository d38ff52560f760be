package daemon

import (
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/triggers"
)

// reception is whether a function's messages can be received, as Receive tells:
// it fails, or it returns some, or it waits. The zero value has seen nothing fail.
// Only what fails costs anything.
type reception struct {
	errors atomic.Int64
	since  atomic.Int64 // ns since birth when it began to fail; 0: it does not
	trying atomic.Int64 // ns since birth when the Receive under way began, while it fails
}

// settledDown is how long a Receive waits, after one that failed, until that it
// waits is taken for a source that can be reached and has nothing.
const settledDown = time.Minute

func (r *reception) failed(now time.Time) {
	r.errors.Add(1)
	r.trying.Store(0)
	r.since.CompareAndSwap(0, int64(now.Sub(birth)))
}

func (r *reception) tries(now time.Time) { r.trying.Store(int64(now.Sub(birth))) }

func (r *reception) succeeded() { r.since.Store(0) }

// failing is since when nothing can be received; zero if it can be.
func (r *reception) failing(now time.Time) time.Time {
	since, trying := r.since.Load(), r.trying.Load()
	if since == 0 || trying != 0 && now.Sub(birth)-time.Duration(trying) >= settledDown {
		return time.Time{}
	}
	return birth.Add(time.Duration(since))
}

// connection is how a function's source is reached.
func (f *function) connection(now time.Time) (down time.Time, reconnects int64) {
	down = f.stats.reception.failing(now)
	if linked, ok := f.trigger.(triggers.Linked); ok {
		if link, known := linked.Link(); known {
			reconnects = link.Reconnects
			if !link.Down.IsZero() && (down.IsZero() || link.Down.Before(down)) {
				down = link.Down
			}
		}
	}
	return down, reconnects
}
