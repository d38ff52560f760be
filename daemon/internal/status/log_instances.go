package status

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

// newInstancesEvery is the time between two checks for new instances.
const newInstancesEvery = time.Second

// instanceLogs reads the lines of a function in all instances, each line once.
type instanceLogs struct {
	view    *View
	request api.LogRequest

	mu       sync.Mutex
	lastSeen map[int]time.Time // of each instance's latest line
	followed map[int]bool      // the instances that are followed
}

func newInstanceLogs(v *View, asked api.LogRequest) *instanceLogs {
	return &instanceLogs{view: v, request: asked, lastSeen: make(map[int]time.Time), followed: make(map[int]bool)}
}

// readBefore returns the latest lines of all instances and of the daemon itself, own, in the
// order of their times.
func (i *instanceLogs) readBefore(ctx context.Context, own []telemetry.LogLine) []telemetry.LogLine {
	ctx, cancel := context.WithTimeout(ctx, autoscale.BacklogTimeout)
	defer cancel()
	var mu sync.Mutex
	var reading sync.WaitGroup
	for _, id := range i.view.Fleet().InstanceIDs() {
		reading.Go(func() {
			i.readOne(ctx, id, max(i.request.Last, 1), false, func(line telemetry.LogLine) { // at least one: its time separates old lines from new ones
				mu.Lock()
				defer mu.Unlock()
				own = append(own, line)
			})
		})
	}
	reading.Wait()
	slices.SortStableFunc(own, func(a, b telemetry.LogLine) int { return a.Time.Compare(b.Time) })
	return own[max(len(own)-i.request.Last, 0):]
}

// followAll delivers new lines, also of instances that start later, until ctx ends. An instance
// that replaces one that ended has its ID.
func (i *instanceLogs) followAll(ctx context.Context, f *telemetry.Subscription) {
	var reading sync.WaitGroup
	defer reading.Wait()
	tick := time.NewTicker(newInstancesEvery)
	defer tick.Stop()
	for {
		for _, id := range i.view.Fleet().InstanceIDs() {
			i.mu.Lock()
			known := i.followed[id]
			i.followed[id] = true
			i.mu.Unlock()
			if known {
				continue
			}
			reading.Go(func() {
				i.readOne(ctx, id, telemetry.KeptLines, true, f.DeliverLine)
				i.mu.Lock()
				defer i.mu.Unlock()
				delete(i.followed, id)
			})
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// readOne calls each with the lines of an instance that were not read before.
func (i *instanceLogs) readOne(ctx context.Context, id, last int, follow bool, each func(telemetry.LogLine)) {
	i.mu.Lock()
	since := i.lastSeen[id]
	i.mu.Unlock()
	asked := i.request
	asked.Last, asked.Follow = last, follow
	client := admin.NewSocketClient(instances.InstanceDir(i.view.DataDir(), id))
	err := client.StreamLog(ctx, asked.RequestPath(), func(line telemetry.LogLine) {
		if !line.Time.After(since) {
			return
		}
		i.mu.Lock()
		if line.Time.After(i.lastSeen[id]) {
			i.lastSeen[id] = line.Time
		}
		i.mu.Unlock()
		line.Instance = id
		each(line)
	})
	if err != nil && ctx.Err() == nil {
		i.view.Log.Debug("cannot read an instance's log", "instance", id, "error", err)
	}
}
