package instances

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/autoscale"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/scaler"
	"github.com/drover-run/drover/triggers"
)

// Fleet is the parent's view of its instances: their reports, added up, and the sources, whose
// backlogs it requests. It is safe for use by many goroutines.
type Fleet struct {
	provisioner scaler.Provisioner
	log         *slog.Logger
	full        chan struct{} // receives when all slots of a function are in use

	mu      sync.Mutex
	sources map[string]triggers.Trigger // by function
	last    map[int]Report              // by instance
	ended   Report                      // the sum of the instances that have ended
	version int                         // of the configuration; each reload adds one
	sent    map[int]int                 // the version that each instance has
}

// NewFleet returns a fleet without instances. SetProvisioner must be called before it is
// used.
func NewFleet(sources map[string]triggers.Trigger, log *slog.Logger) *Fleet {
	f := &Fleet{
		log: log, full: make(chan struct{}, 1), sent: make(map[int]int),
		last: make(map[int]Report), ended: Report{make(map[string]FunctionReport), make(map[string]apps.Status)},
	}
	f.UseSources(sources)
	return f
}

// SetProvisioner sets what starts and stops the instances.
func (f *Fleet) SetProvisioner(p scaler.Provisioner) { f.provisioner = p }

// SlotsFull receives when all slots of a function are in use in an instance.
func (f *Fleet) SlotsFull() <-chan struct{} { return f.full }

// UseSources sets the sources of a new version of the configuration, by function.
func (f *Fleet) UseSources(sources map[string]triggers.Trigger) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sources = sources
	f.version++
	for name := range sources {
		if _, known := f.ended.Functions[name]; !known {
			f.ended.Functions[name] = FunctionReport{FunctionStatus: api.FunctionStatus{Name: name, Latency: new(telemetry.Latencies), Age: new(telemetry.Latencies)}}
		}
	}
}

// SourceOf returns the source of a function; nil if there is none.
func (f *Fleet) SourceOf(name string) triggers.Trigger {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sources[name]
}

// MarkSent records that an instance was sent the current configuration or, with next, the
// one that follows.
func (f *Fleet) MarkSent(id int, next bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sent[id] = f.version
	if next {
		f.sent[id]++
	}
}

// OutdatedIDs returns the IDs of the instances that have another version of the configuration
// or, with all, of all instances, in order.
func (f *Fleet) OutdatedIDs(all bool) (ids []int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id := range f.last {
		if all || f.sent[id] != f.version {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// AddReport records the report of an instance, a Report as JSON.
func (f *Fleet) AddReport(id int, load json.RawMessage) {
	var r Report
	if err := json.Unmarshal(load, &r); err != nil {
		f.log.Error("cannot read an instance's report", "instance", id, "error", err)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, now := range r.Functions {
		if before := f.last[id].Functions[name]; now.Slots > 0 && now.Used >= now.Slots && before.Used < before.Slots {
			select {
			case f.full <- struct{}{}:
			default:
			}
		}
	}
	f.last[id] = r
}

// InstanceEnded keeps the counts of an instance that has ended. Its messages in flight were
// released, or will be redelivered.
func (f *Fleet) InstanceEnded(id int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, r := range f.last[id].Functions {
		r.Abandoned += r.InFlight
		r.InFlight, r.Slots, r.Used, r.Holding, r.Waiting, r.Workers, r.Paused = 0, 0, 0, 0, 0, 0, false
		r.Disconnected, r.ReceiveError, r.Gate, r.Problems, r.NextDue = time.Time{}, "", "", nil, time.Time{}
		f.ended.Functions[name] = f.ended.Functions[name].Plus(r)
	}
	for name, s := range f.last[id].Apps {
		f.ended.Apps[name] = f.ended.Apps[name].Plus(s.PastCounts())
	}
	delete(f.last, id)
}

// Plus returns the sum of the reports of two instances on a function.
func (r FunctionReport) Plus(o FunctionReport) FunctionReport {
	sum := r
	sum.Name, sum.Handler = o.Name, o.Handler
	sum.Received += o.Received
	sum.Done += o.Done
	sum.Retried += o.Retried
	sum.Rejected += o.Rejected
	sum.Released += o.Released
	sum.Abandoned += o.Abandoned
	sum.InFlight += o.InFlight
	sum.Rejections, sum.Responses = addCounts(r.Rejections, o.Rejections), addCounts(r.Responses, o.Responses)
	if !o.Disconnected.IsZero() && (r.Disconnected.IsZero() || o.Disconnected.Before(r.Disconnected)) {
		sum.Disconnected, sum.ReceiveError = o.Disconnected, o.ReceiveError
	}
	sum.Problems = api.MergeProblems(r.Problems, o.Problems)
	sum.ReceiveErrors += o.ReceiveErrors
	sum.Reconnects += o.Reconnects
	if r.Gate != api.GateShut && o.Gate != "" {
		sum.Gate = o.Gate
	}
	sum.Batches = r.Batches.Plus(o.Batches)
	sum.Failed += o.Failed
	sum.Lost += o.Lost
	sum.Workers += o.Workers
	sum.SpareWorkers += o.SpareWorkers
	sum.Stopped = r.Stopped || o.Stopped
	sum.Paused, sum.PausedUntil = r.Paused || o.Paused, o.PausedUntil
	if o.NextDue.After(r.NextDue) { // an instance that has not run it last may not know
		sum.NextDue = o.NextDue
	}
	sum.Latency, sum.Age = r.Latency.Plus(o.Latency), r.Age.Plus(o.Age)
	sum.Taken += o.Taken
	sum.Slots += o.Slots
	sum.Used += o.Used
	sum.Holding += o.Holding
	sum.Waiting += o.Waiting
	return sum
}

// addCounts returns the sums of counts by name.
func addCounts(a, b map[string]int64) map[string]int64 {
	sum := make(map[string]int64, len(a))
	for _, part := range []map[string]int64{a, b} {
		for name, n := range part {
			sum[name] += n
		}
	}
	return sum
}

// FunctionTotals returns the sums of all instances, by function.
func (f *Fleet) FunctionTotals() map[string]FunctionReport {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := maps.Clone(f.ended.Functions)
	for _, instance := range f.last {
		for name, r := range instance.Functions {
			out[name] = out[name].Plus(r)
		}
	}
	return out
}

// AppStatuses returns the sums of all instances, by app.
func (f *Fleet) AppStatuses() map[string]apps.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := maps.Clone(f.ended.Apps)
	for _, instance := range f.last {
		for name, s := range instance.Apps {
			out[name] = out[name].Plus(s)
		}
	}
	return out
}

// FunctionStatuses returns the sums of all instances, in the order of the functions' names.
func (f *Fleet) FunctionStatuses() []api.FunctionStatus {
	totals := f.FunctionTotals()
	out := make([]api.FunctionStatus, 0, len(totals))
	for _, name := range slices.Sorted(maps.Keys(totals)) {
		if source := f.SourceOf(name); source != nil { // a reload may have removed it
			s := totals[name].FunctionStatus
			s.Problems = api.MergeProblems(s.Problems, apps.SourceProblems(source))
			out = append(out, s)
		}
	}
	return out
}

// InstanceIDs returns the IDs of the instances that have reported, in order.
func (f *Fleet) InstanceIDs() []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.last))
}

// PauseMismatches returns, by instance, the functions that should be paused and are not, or
// are and should not be.
func (f *Fleet) PauseMismatches(paused map[string]time.Time) map[int][]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make(map[int][]string)
	for id, instance := range f.last {
		for name, r := range instance.Functions {
			until, should := paused[name]
			if should != r.Paused || should && !until.Equal(r.PausedUntil) {
				out[id] = append(out[id], name)
			}
		}
	}
	return out
}

// CountInstances counts the instances.
func (f *Fleet) CountInstances() scaler.Count {
	c, err := f.provisioner.Count(context.Background())
	if err != nil {
		return scaler.Count{Failing: err.Error()}
	}
	return c
}

// functionCounts returns the counts of a function that the scaler needs.
func (f *Fleet) functionCounts(ctx context.Context, name string, r FunctionReport, now time.Time) scaler.Counts {
	received := r.Received - r.Abandoned // those are received again
	c := scaler.Counts{
		Received: received, Done: received - r.InFlight, Failed: r.Failed, Taken: float64(r.Taken) / 1e6,
		InFlight: r.InFlight, Slots: r.Slots, Used: r.Used,
		// Messages that cannot be settled hold no slot, but count. Messages that wait for a retry
		// in an instance would be retried early if that instance stopped.
		Unsettled: max(r.InFlight, r.Holding),
	}
	source := f.SourceOf(name)
	if r.Paused || source == nil { // messages that wait meanwhile need no more instances
		return c
	}
	autoscale.AddBacklog(ctx, source, now, &c)
	if c.Backlog != scaler.Unreadable {
		c.Backlog += r.Waiting
	}
	return c
}

// Backlog requests the backlog of a function from its source, and adds the messages that wait in
// instances. known is false if there is no such function.
func (f *Fleet) Backlog(ctx context.Context, name string) (b triggers.Backlog, known bool, err error) {
	source := f.SourceOf(name)
	if source == nil {
		return b, false, nil
	}
	if b, err = source.Backlog(ctx); err == nil {
		b.Ready += f.FunctionTotals()[name].Waiting
	}
	return b, true, err
}
