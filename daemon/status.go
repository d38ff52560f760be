package daemon

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/scaler/autotune"
)

// This file is how things are, as they are told to operators.

// maxUndone bounds what is printed of one, in characters.
const maxUndone = 1000

// appOverview converts the status of an app; ok is false before it was measured.
func appOverview(name string, s apps.Status) (a api.AppOverview, ok bool) {
	t := s.Tuned
	if t == nil {
		return a, false
	}
	a = api.AppOverview{
		Name: name, Ready: s.Ready, Auto: []string{}, Phase: t.Phase, Note: t.Note,
		Processes: t.Settings.Processes, Threads: t.Settings.Threads, Coroutines: t.Settings.Coroutines,
	}
	for _, part := range []struct {
		name string
		auto bool
	}{{"processes", t.Processes}, {"threads", t.Threads}, {"coroutines", t.Coroutines}} {
		if part.auto {
			a.Auto = append(a.Auto, part.name)
		}
	}
	for _, u := range t.Undone {
		a.Undone = append(a.Undone, api.UndoneChange{
			Setting: u.Setting, Value: u.Value, Tried: u.Tried, Function: u.Function, Error: u.Error, Checked: u.Proved, Set: u.Key(), Text: u.Text(),
		})
	}
	return a, true
}

// measuredKind returns the kind of a function of an app; nil if it is unknown.
func measuredKind(s apps.Status, function string) *api.FunctionKind {
	if s.Tuned == nil {
		return nil
	}
	k, found := s.Tuned.Kinds[function]
	if !found || k.Kind == autotune.KindUnknown {
		return nil
	}
	return &api.FunctionKind{Kind: k.Kind, CPU: k.CPU, ReleasesGIL: k.ReleasesGIL, NeverAwaits: k.NeverAwaits, BlocksLoop: k.BlocksLoop, Sure: k.Sure}
}

// overviews are those of all apps of which there is one.
func overviews(statuses map[string]apps.Status) (out []api.AppOverview) {
	for _, name := range slices.Sorted(maps.Keys(statuses)) {
		if a, ok := appOverview(name, statuses[name]); ok {
			out = append(out, a)
		}
	}
	return out
}

// Apps reports on how much of each app runs at once, and why, by name. It is empty before
// the daemon is ready, and for apps of which nothing is measured yet.
func (d *Daemon) Apps() []api.AppOverview { return overviews(d.appStatuses()) }

// Kind is what a function does with its time, as measured; nil before anything is, and
// where no worker process runs it.
func (d *Daemon) Kind(function string) *api.FunctionKind { return kindIn(d.appStatuses(), function) }

// kindIn is what is known of a function, which is in one of the apps; nil if nothing.
func kindIn(statuses map[string]apps.Status, function string) *api.FunctionKind {
	for _, app := range statuses {
		if k := measuredKind(app, function); k != nil {
			return k
		}
	}
	return nil
}

// appStatuses describes the apps of all instances, by app.
func (d *Daemon) appStatuses() map[string]apps.Status {
	if fleet := d.instances(); fleet != nil {
		return fleet.AppStatuses()
	}
	return d.appRegistry.Statuses(usageFresh)
}

// usageFresh is how old the resource usage of processes may be in an answer, and
// usageReported in the reports of an instance.
const (
	usageFresh    = time.Second
	usageReported = 5 * time.Second
)

// statusFresh and scrapeFresh are how old a backlog may be that is answered with.
const (
	statusFresh = 900 * time.Millisecond
	scrapeFresh = 10 * time.Second
)

func statusRoutes(d *Daemon) []admin.Route {
	return []admin.Route{{
		ID: "getStatus", Method: http.MethodGet, Path: api.StatusPath, Help: "How the daemon and its functions are doing.",
		Answer: api.StatusReport{}, Handler: func(w http.ResponseWriter, r *http.Request) {
			admin.Answer(w, http.StatusOK, d.statusReport(r.Context()))
		},
	}}
}

func scaleRoutes(d *Daemon) []admin.Route {
	return []admin.Route{{
		ID: "getScale", Method: http.MethodGet, Path: api.ScalePath, Help: "The latest decisions of the scaler, by target.",
		Answer: map[string]api.Decided{}, Handler: func(w http.ResponseWriter, _ *http.Request) {
			admin.Answer(w, http.StatusOK, d.decisions.All())
		},
	}}
}

func (d *Daemon) statusReport(ctx context.Context) api.StatusReport {
	r := api.StatusReport{Phase: string(d.inPhase()), Since: telemetry.ProcessStart, Functions: []api.FunctionOverview{}}
	if c, ok := d.Instances(); ok {
		r.Instances = &api.InstancesStatus{Ready: c.Ready, Starting: c.Starting, Draining: c.Draining, Failing: c.Failing}
	}
	if reload := d.lastReload(); !reload.At.IsZero() {
		r.Reload = &reload.ReloadStatus
	}
	r.Problems = d.stores.problems()
	statuses := d.appStatuses()
	for _, s := range d.Status() {
		b := d.backlogs.Get(ctx, s.Name, statusFresh)
		f := api.FunctionOverview{FunctionStatus: s}
		if b.Ready >= 0 {
			f.Backlog = &b.Ready
		}
		if !b.Oldest.IsZero() {
			f.Oldest = max(time.Since(b.Oldest).Seconds(), 0)
		}
		f.Kind = kindIn(statuses, s.Name)
		r.Functions = append(r.Functions, f)
	}
	r.Apps = overviews(statuses)
	for _, name := range slices.Sorted(maps.Keys(statuses)) {
		if advice := statuses[name].Advice(); advice != "" {
			r.Advice = append(r.Advice, "app "+name+": "+advice)
		}
		for _, advice := range statuses[name].BlockedAdvice() {
			r.Advice = append(r.Advice, "app "+name+": "+advice)
		}
	}
	return r
}
