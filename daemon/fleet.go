package daemon

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
	"github.com/drover-run/drover/scaler"
	"github.com/drover-run/drover/triggers"
)

// fleet is what is known of several instances together.
type fleet struct {
	provisioner scaler.Provisioner
	log         *slog.Logger
	// full is told when a function's slots have all been taken.
	full chan struct{}

	mu      sync.Mutex
	sources map[string]triggers.Trigger // by function
	last    map[int]instanceReport      // by instance
	gone    instanceReport              // what those did that have ended
	version int                         // of the configuration: one more for each reload
	told    map[int]int                 // by instance, the version that it has
}

func newFleet(sources map[string]triggers.Trigger, log *slog.Logger) *fleet {
	f := &fleet{
		log: log, full: make(chan struct{}, 1), told: make(map[int]int),
		last: make(map[int]instanceReport), gone: instanceReport{make(map[string]functionReport), make(map[string]apps.Status)},
	}
	f.use(sources)
	return f
}

// use makes those the sources, of a new version of the configuration.
func (f *fleet) use(sources map[string]triggers.Trigger) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sources = sources
	f.version++
	for name := range sources {
		if _, known := f.gone.Functions[name]; !known {
			f.gone.Functions[name] = functionReport{FunctionStatus: api.FunctionStatus{Name: name, Latency: new(Latencies), Age: new(Latencies)}}
		}
	}
}

// source is that of a function; nil where there is none.
func (f *fleet) source(name string) triggers.Trigger {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sources[name]
}

// tell notes that an instance is told of the configuration as it is now, or, with
// next, of the one that follows.
func (f *fleet) tell(id int, next bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told[id] = f.version
	if next {
		f.told[id]++
	}
}

// untold are the instances that have another version of the configuration, or, with
// next, all: by their numbers.
func (f *fleet) untold(next bool) (ids []int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id := range f.last {
		if next || f.told[id] != f.version {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// reported takes an instance's report.
func (f *fleet) reported(id int, load json.RawMessage) {
	var r instanceReport
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

// ended keeps what an instance did, when it has ended. What it had in flight then
// was given back, or will be.
func (f *fleet) ended(id int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, r := range f.last[id].Functions {
		r.Abandoned += r.InFlight
		r.InFlight, r.Slots, r.Used, r.Holding, r.Workers, r.Paused = 0, 0, 0, 0, 0, false
		r.Disconnected, r.ReceiveError, r.Gate, r.Problems = time.Time{}, "", "", nil
		f.gone.Functions[name] = f.gone.Functions[name].plus(r)
	}
	for name, s := range f.last[id].Apps {
		f.gone.Apps[name] = f.gone.Apps[name].Plus(s.Past())
	}
	delete(f.last, id)
}

// plus adds what another instance did.
func (r functionReport) plus(o functionReport) functionReport {
	sum := r
	sum.Name, sum.Handler = o.Name, o.Handler
	sum.Received += o.Received
	sum.Done += o.Done
	sum.Retried += o.Retried
	sum.Rejected += o.Rejected
	sum.Released += o.Released
	sum.Abandoned += o.Abandoned
	sum.InFlight += o.InFlight
	sum.Rejections = make(map[string]int64)
	for _, part := range []map[string]int64{r.Rejections, o.Rejections} {
		for why, n := range part {
			sum.Rejections[why] += n
		}
	}
	if !o.Disconnected.IsZero() && (r.Disconnected.IsZero() || o.Disconnected.Before(r.Disconnected)) {
		sum.Disconnected, sum.ReceiveError = o.Disconnected, o.ReceiveError
	}
	sum.Problems = mergeProblems(r.Problems, o.Problems)
	sum.ReceiveErrors += o.ReceiveErrors
	sum.Reconnects += o.Reconnects
	if r.Gate != api.GateShut && o.Gate != "" {
		sum.Gate = o.Gate
	}
	sum.Failed += o.Failed
	sum.Lost += o.Lost
	sum.Workers += o.Workers
	sum.Stopped = r.Stopped || o.Stopped
	sum.Paused, sum.PausedUntil = r.Paused || o.Paused, o.PausedUntil
	sum.Latency, sum.Age = r.Latency.Plus(o.Latency), r.Age.Plus(o.Age)
	sum.Taken += o.Taken
	sum.Slots += o.Slots
	sum.Used += o.Used
	sum.Holding += o.Holding
	return sum
}

// totals adds all instances up, by function.
func (f *fleet) totals() map[string]functionReport {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := maps.Clone(f.gone.Functions)
	for _, instance := range f.last {
		for name, r := range instance.Functions {
			out[name] = out[name].plus(r)
		}
	}
	return out
}

// apps adds the workers of all instances up, by app.
func (f *fleet) apps() map[string]apps.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := maps.Clone(f.gone.Apps)
	for _, instance := range f.last {
		for name, s := range instance.Apps {
			out[name] = out[name].Plus(s)
		}
	}
	return out
}

func (f *fleet) status() []api.FunctionStatus {
	totals := f.totals()
	out := make([]api.FunctionStatus, 0, len(totals))
	for _, name := range slices.Sorted(maps.Keys(totals)) {
		if source := f.source(name); source != nil { // a reload may have removed it
			s := totals[name].FunctionStatus
			s.Problems = mergeProblems(s.Problems, troublesOf(source))
			out = append(out, s)
		}
	}
	return out
}

// ids are those of the instances that have reported.
func (f *fleet) ids() []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.last))
}

// unlike are the instances whose functions are paused where they should not be, or
// are not where they should, by instance.
func (f *fleet) unlike(paused map[string]time.Time) map[int][]string {
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

func (f *fleet) count() scaler.Count {
	c, err := f.provisioner.Count(context.Background())
	if err != nil {
		return scaler.Count{Failing: err.Error()}
	}
	return c
}

// counts are what the scaler wants to know of a function.
func (f *fleet) counts(ctx context.Context, name string, r functionReport, now time.Time) scaler.Counts {
	received := r.Received - r.Abandoned // those are received again
	c := scaler.Counts{
		Received: received, Done: received - r.InFlight, Failed: r.Failed, Taken: float64(r.Taken) / 1e6,
		InFlight: r.InFlight, Slots: r.Slots, Used: r.Used,
		// What cannot be settled holds no slot, and what waits for a retry in an instance
		// would be tried early if that went.
		Unsettled: max(r.InFlight, r.Holding),
	}
	source := f.source(name)
	if r.Paused || source == nil { // what waits then is no reason for more
		return c
	}
	autoscale.AddBacklog(ctx, source, now, &c)
	return c
}
