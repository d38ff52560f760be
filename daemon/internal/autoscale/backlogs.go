package autoscale

import (
	"context"
	"sync"
	"time"

	"github.com/drover-run/drover/scaler"
	"github.com/drover-run/drover/triggers"
)

const (
	// BacklogTimeout bounds a request for a backlog.
	BacklogTimeout = 2 * time.Second
	// tuningBacklogAge is the maximum age of a backlog that tuning uses.
	tuningBacklogAge = 900 * time.Millisecond
)

// Backlogs caches the backlogs of functions, so that concurrent readers share one request to a
// source. It is safe for use by many goroutines.
type Backlogs struct {
	// Request requests the backlog of a function from its source.
	Request func(ctx context.Context, function string) (triggers.Backlog, error)

	mu   sync.Mutex
	last map[string]BacklogReading
}

// BacklogReading is a backlog at a moment.
type BacklogReading struct {
	at     time.Time
	Ready  int64     // negative: unknown
	Oldest time.Time // zero: unknown, or no message
	More   *triggers.BacklogMore
}

// ReadBacklog returns the backlog of a function, at most maxAge old. It takes at most
// BacklogTimeout.
func (b *Backlogs) ReadBacklog(ctx context.Context, function string, maxAge time.Duration) BacklogReading {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r, found := b.last[function]; found && time.Since(r.at) < maxAge {
		return r
	}
	ctx, cancel := context.WithTimeout(ctx, BacklogTimeout)
	defer cancel()
	r := BacklogReading{at: time.Now(), Ready: -1}
	if got, err := b.Request(ctx, function); err == nil {
		r.Ready, r.Oldest, r.More = got.Ready, got.Oldest, got.More
	}
	if b.last == nil {
		b.last = make(map[string]BacklogReading)
	}
	b.last[function] = r
	return r
}

// AddBacklog requests the backlog of a source and adds it to the counts of a function.
func AddBacklog(ctx context.Context, source triggers.Trigger, now time.Time, c *scaler.Counts) {
	ctx, cancel := context.WithTimeout(ctx, BacklogTimeout)
	defer cancel()
	b, err := source.Backlog(ctx)
	if err != nil {
		c.Backlog = scaler.Unreadable
		return
	}
	c.Backlog, c.AtLeast = b.Ready, b.AtLeast
	c.Unsettled = max(c.Unsettled, b.Unsettled)
	if !b.Oldest.IsZero() {
		c.Oldest = max(now.Sub(b.Oldest), 0)
	}
}
