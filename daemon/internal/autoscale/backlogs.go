package autoscale

import (
	"context"
	"sync"
	"time"

	"github.com/drover-run/drover/configs/scaling"
	"github.com/drover-run/drover/scaler"
	"github.com/drover-run/drover/triggers"
)

const (
	// BacklogTimeout bounds a request for a backlog.
	BacklogTimeout = 2 * time.Second
	// scalingBacklogAge is the maximum age of a backlog that scaling uses: it computes rates from it.
	// Tuning only needs to know whether messages wait. tuningBacklogAge is longer than the interval of
	// scaling, whose requests then serve both.
	scalingBacklogAge = 100 * time.Millisecond
	tuningBacklogAge  = scaling.WorkersInterval + 100*time.Millisecond
)

// Backlogs caches the backlogs of functions, so that several readers share one request to a
// source. It is safe for use by many goroutines.
type Backlogs struct {
	// Request requests the backlog of a function from its source.
	Request func(ctx context.Context, function string) (triggers.Backlog, error)

	mu   sync.Mutex
	last map[string]*lastBacklog
}

// lastBacklog is the last backlog of a function. mu is held during a request.
type lastBacklog struct {
	mu sync.Mutex
	BacklogReading
}

// BacklogReading is a backlog at a moment.
type BacklogReading struct {
	at      time.Time
	Ready   int64     // negative: unknown
	AtLeast bool      // there may be more
	Oldest  time.Time // zero: unknown, or no message
	More    *triggers.BacklogMore
}

// ReadBacklog returns the backlog of a function, at most maxAge old. It takes at most
// BacklogTimeout.
func (b *Backlogs) ReadBacklog(ctx context.Context, function string, maxAge time.Duration) BacklogReading {
	last := b.lastOf(function)
	last.mu.Lock()
	defer last.mu.Unlock()
	if !last.at.IsZero() && time.Since(last.at) < maxAge {
		return last.BacklogReading
	}
	ctx, cancel := context.WithTimeout(ctx, BacklogTimeout)
	defer cancel()
	r := BacklogReading{at: time.Now(), Ready: -1}
	if got, err := b.Request(ctx, function); err == nil {
		r.Ready, r.AtLeast, r.Oldest, r.More = got.Ready, got.AtLeast, got.Oldest, got.More
	}
	last.BacklogReading = r
	return r
}

func (b *Backlogs) lastOf(function string) *lastBacklog {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last == nil {
		b.last = make(map[string]*lastBacklog)
	}
	if b.last[function] == nil {
		b.last[function] = new(lastBacklog)
	}
	return b.last[function]
}

// addTo adds the backlog to the counts of a function.
func (r BacklogReading) addTo(c *scaler.Counts, now time.Time) {
	if r.Ready < 0 {
		c.Backlog = scaler.Unreadable
		return
	}
	c.Backlog, c.AtLeast = r.Ready, r.AtLeast
	if !r.Oldest.IsZero() {
		c.Oldest = max(now.Sub(r.Oldest), 0)
	}
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
	BacklogReading{Ready: b.Ready, AtLeast: b.AtLeast, Oldest: b.Oldest}.addTo(c, now)
	c.Unsettled = max(c.Unsettled, b.Unsettled)
}
