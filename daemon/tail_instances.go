package daemon

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/autoscale"
	"github.com/drover-run/drover/daemon/internal/instances"
	"github.com/drover-run/drover/daemon/internal/telemetry"
)

// This file hands on the log lines of several instances, each line once.

// lookForInstances is how often new instances are looked for.
const lookForInstances = time.Second

// instanceLines are those of a function in all instances.
type instanceLines struct {
	d     *Daemon
	asked api.LogRequest

	mu    sync.Mutex
	seen  map[int]time.Time // of each instance's latest line
	known map[int]bool      // which are followed
}

func (d *Daemon) instanceLines(asked api.LogRequest) *instanceLines {
	return &instanceLines{d: d, asked: asked, seen: make(map[int]time.Time), known: make(map[int]bool)}
}

// before returns the last lines of all instances in the order of their times, and the
// daemon's own among them.
func (i *instanceLines) before(ctx context.Context, own []LogLine) []LogLine {
	ctx, cancel := context.WithTimeout(ctx, autoscale.BacklogTimeout)
	defer cancel()
	var mu sync.Mutex
	var reading sync.WaitGroup
	for _, id := range i.d.instances().IDs() {
		reading.Go(func() {
			i.read(ctx, id, max(i.asked.Last, 1), false, func(line LogLine) { // one tells from when on others are new
				mu.Lock()
				defer mu.Unlock()
				own = append(own, line)
			})
		})
	}
	reading.Wait()
	slices.SortStableFunc(own, func(a, b LogLine) int { return a.Time.Compare(b.Time) })
	return own[max(len(own)-i.asked.Last, 0):]
}

// follow hands on what comes, also from instances that come later, until ctx ends. An
// instance that takes the place of one that ended has its number.
func (i *instanceLines) follow(ctx context.Context, f *telemetry.Subscription) {
	var reading sync.WaitGroup
	defer reading.Wait()
	tick := time.NewTicker(lookForInstances)
	defer tick.Stop()
	for {
		for _, id := range i.d.instances().IDs() {
			i.mu.Lock()
			known := i.known[id]
			i.known[id] = true
			i.mu.Unlock()
			if known {
				continue
			}
			reading.Go(func() {
				i.read(ctx, id, telemetry.KeptLines, true, f.Deliver)
				i.mu.Lock()
				defer i.mu.Unlock()
				delete(i.known, id)
			})
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// read reads an instance's lines, but for those that were read before.
func (i *instanceLines) read(ctx context.Context, id, last int, follow bool, each func(LogLine)) {
	i.mu.Lock()
	since := i.seen[id]
	i.mu.Unlock()
	asked := i.asked
	asked.Last, asked.Follow = last, follow
	client := admin.NewSocketClient(instances.Dir(i.d.cfg.DataDir, id))
	err := client.StreamLog(ctx, asked.RequestPath(), func(line LogLine) {
		if !line.Time.After(since) {
			return
		}
		i.mu.Lock()
		if line.Time.After(i.seen[id]) {
			i.seen[id] = line.Time
		}
		i.mu.Unlock()
		line.Instance = id
		each(line)
	})
	if err != nil && ctx.Err() == nil {
		i.d.log.Debug("cannot read an instance's log", "instance", id, "error", err)
	}
}
