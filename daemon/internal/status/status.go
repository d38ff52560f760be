package status

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/scaler/autotune"
)

// appOverview converts the status of an app; ok is false before it was measured.
func appOverview(name string, s apps.Status) (a api.AppOverview, ok bool) {
	t := s.Tuned
	if t == nil {
		return a, false
	}
	a = api.AppOverview{
		Name: name, Ready: s.Ready, Auto: []string{}, Phase: t.Phase, Note: t.Note,
		Processes: t.Settings.Processes, Threads: t.Settings.Threads, Coroutines: t.Settings.Coroutines, CoreShare: t.CoreShare,
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
	return &api.FunctionKind{Kind: k.Kind, CPU: k.CPU, ReleasesGIL: k.ReleasesGIL, NeverAwaits: k.NeverAwaits, BlocksLoop: k.BlocksLoop, Differs: k.Differs, Cores: k.Cores, Sure: k.Sure}
}

// AppOverviews returns the overviews of apps that were measured, by name.
func AppOverviews(statuses map[string]apps.Status) (out []api.AppOverview) {
	for _, name := range slices.Sorted(maps.Keys(statuses)) {
		if a, ok := appOverview(name, statuses[name]); ok {
			out = append(out, a)
		}
	}
	return out
}

// KindOf returns the kind of a function that one of the apps runs; nil if it is unknown.
func KindOf(statuses map[string]apps.Status, function string) *api.FunctionKind {
	for _, app := range statuses {
		if k := measuredKind(app, function); k != nil {
			return k
		}
	}
	return nil
}

// NewReport returns the status of the daemon.
func (v *View) NewReport(ctx context.Context) api.StatusReport {
	r := api.StatusReport{Phase: v.Phase(), Since: telemetry.ProcessStart, Functions: []api.FunctionOverview{}}
	if c, ok := v.countInstances(); ok {
		r.Instances = &api.InstancesStatus{Ready: c.Ready, Starting: c.Starting, Draining: c.Draining, Failing: c.Failing}
	}
	if reload := v.Reload(); !reload.At.IsZero() {
		r.Reload = &reload.ReloadStatus
	}
	r.NotRun, r.Problems = v.notRun(), v.storeProblems()
	statuses, states := v.AppStatuses(), v.functionStates(time.Now())
	for _, s := range v.FunctionStatuses() {
		b := v.Backlogs.ReadBacklog(ctx, s.Name, statusMaxAge)
		f := api.FunctionOverview{FunctionStatus: s}
		if b.Ready >= 0 {
			f.Backlog = &b.Ready
		}
		if !b.Oldest.IsZero() {
			f.Oldest = max(time.Since(b.Oldest).Seconds(), 0)
		}
		f.Kind = KindOf(statuses, s.Name)
		f.State, f.Reason = v.stateOf(&f, states)
		r.Functions = append(r.Functions, f)
	}
	r.Apps = AppOverviews(statuses)
	for _, name := range slices.Sorted(maps.Keys(statuses)) {
		if advice := statuses[name].SettingsAdvice(); advice != "" {
			r.Advice = append(r.Advice, "app "+name+": "+advice)
		}
		for _, advice := range statuses[name].BlockedAdvice() {
			r.Advice = append(r.Advice, "app "+name+": "+advice)
		}
	}
	return r
}
