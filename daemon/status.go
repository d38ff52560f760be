package daemon

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/scaler/autotune"
)

// This file is how things are, as they are told to operators.

// StatusReport is the answer of /v1/status.
type StatusReport struct {
	Phase     string             `json:"phase" desc:"starting, running or stopping"`
	Since     time.Time          `json:"since" desc:"when the process began"`
	Instances *InstancesStatus   `json:"instances,omitempty" desc:"if there are several"`
	Reload    *ReloadStatus      `json:"reload,omitempty" desc:"if one was requested"`
	Functions []FunctionOverview `json:"functions"`
	Problems  []FunctionProblem  `json:"problems,omitempty" desc:"problems of the daemon as a whole: the embedded server's store is disabled"`
	Apps      []AppOverview      `json:"apps,omitempty" desc:"the worker processes of each app"`
	Advice    []string           `json:"advice,omitempty" desc:"advice for the apps, from measurements"`
}

// AppOverview is how much of an app runs at once, and why.
type AppOverview struct {
	Name       string `json:"name"`
	Ready      int    `json:"ready" desc:"worker processes that receive messages"`
	Processes  int    `json:"processes" desc:"maximum number of worker processes"`
	Threads    int    `json:"threads" desc:"threads of each, for functions that are not async and for the executor of those that are"`
	Coroutines int    `json:"coroutines" desc:"async calls in flight in each"`
	// Auto are those of the three that measuring finds.
	Auto  []string `json:"auto" desc:"those of processes, threads and coroutines that are not set, but measured"`
	Phase string   `json:"phase" desc:"phase of the measurement: start, climb, trim, hold, idle, disturbed, memory or explicit"`
	Note  string   `json:"note" desc:"the reason, for people"`
	// Undone are changes of those that are undone.
	Undone []UndoneChange `json:"undone,omitempty" desc:"changes of the settings that drover reverted because calls failed after them"`
}

// UndoneChange is a change of an app's settings that is undone, since calls failed
// right after it.
type UndoneChange struct {
	Setting  string `json:"setting" desc:"processes, threads, coroutines or on_blocked"`
	Value    int    `json:"value,omitempty" desc:"the current value; missing for on_blocked"`
	Tried    int    `json:"tried,omitempty" desc:"the value under which calls failed"`
	Function string `json:"function" desc:"a function whose calls failed"`
	Error    string `json:"error" desc:"the error of one of them"`
	Checked  bool   `json:"checked" desc:"whether calls have succeeded without the change; false while that is being checked"`
	Set      string `json:"set" desc:"the key and value that prevent this change"`
	Text     string `json:"text" desc:"all of this in a sentence"`
}

// InstancesStatus counts instances.
type InstancesStatus struct {
	Ready    int    `json:"ready"`
	Starting int    `json:"starting"`
	Draining int    `json:"draining"`
	Failing  string `json:"failing,omitempty" desc:"why they do not start"`
}

// FunctionOverview is a function's status, and what waits at its source.
type FunctionOverview struct {
	FunctionStatus
	// Backlog is nil where the source does not tell.
	Backlog *int64        `json:"backlog,omitempty" desc:"messages ready at the source and not delivered; missing if the source does not report it"`
	Kind    *FunctionKind `json:"kind,omitempty" desc:"as measured; missing before that, and for functions without worker processes"`
	Oldest  float64       `json:"oldest_seconds,omitempty" desc:"age of the oldest of them; missing if there is none, or the source does not report it"`
}

// FunctionKind is what a function does with its time, as measured.
type FunctionKind struct {
	Kind        string  `json:"kind" desc:"cpu, blocking, async or mixed"`
	CPU         float64 `json:"cpu" desc:"fraction of a call's time in which it computes, on an otherwise idle machine"`
	ReleasesGIL bool    `json:"releases_gil" desc:"whether it releases the GIL while it computes"`
	NeverAwaits bool    `json:"never_awaits" desc:"whether it is async but never awaits"`
	BlocksLoop  bool    `json:"blocks_loop" desc:"whether it is async and blocks the event loop"`
	Sure        float64 `json:"sure" desc:"confidence, 0 to 1"`
}

// maxUndone bounds what is printed of one, in characters.
const maxUndone = 1000

// appOverview converts the status of an app; ok is false before it was measured.
func appOverview(name string, s apps.Status) (a AppOverview, ok bool) {
	t := s.Tuned
	if t == nil {
		return a, false
	}
	a = AppOverview{
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
		a.Undone = append(a.Undone, UndoneChange{u.Setting, u.Value, u.Tried, u.Function, u.Error, u.Proved, u.Key(), u.Text()})
	}
	return a, true
}

// measuredKind returns the kind of a function of an app; nil if it is unknown.
func measuredKind(s apps.Status, function string) *FunctionKind {
	if s.Tuned == nil {
		return nil
	}
	k, found := s.Tuned.Kinds[function]
	if !found || k.Kind == autotune.KindUnknown {
		return nil
	}
	return &FunctionKind{k.Kind, k.CPU, k.ReleasesGIL, k.NeverAwaits, k.BlocksLoop, k.Sure}
}

// overviews are those of all apps of which there is one.
func overviews(statuses map[string]apps.Status) (out []AppOverview) {
	for _, name := range slices.Sorted(maps.Keys(statuses)) {
		if a, ok := appOverview(name, statuses[name]); ok {
			out = append(out, a)
		}
	}
	return out
}

// Apps reports on how much of each app runs at once, and why, by name. It is empty before
// the daemon is ready, and for apps of which nothing is measured yet.
func (d *Daemon) Apps() []AppOverview { return overviews(d.appStatuses()) }

// Kind is what a function does with its time, as measured; nil before anything is, and
// where no worker process runs it.
func (d *Daemon) Kind(function string) *FunctionKind { return kindIn(d.appStatuses(), function) }

// kindIn is what is known of a function, which is in one of the apps; nil if nothing.
func kindIn(statuses map[string]apps.Status, function string) *FunctionKind {
	for _, app := range statuses {
		if k := measuredKind(app, function); k != nil {
			return k
		}
	}
	return nil
}

// Words says it for people.
func (k *FunctionKind) Words() string {
	if k == nil {
		return "-"
	}
	words := map[string]string{
		autotune.KindCPU: "CPU", autotune.KindBlocking: "blocking I/O", autotune.KindAsync: "async I/O", autotune.KindMixed: "mixed",
	}[k.Kind]
	switch {
	case k.NeverAwaits:
		words += ", never awaits"
	case k.BlocksLoop:
		words += ", blocks the loop"
	case k.ReleasesGIL:
		words += ", releases the GIL"
	}
	return words
}

// appStatuses describes the apps of all instances, by app.
func (d *Daemon) appStatuses() map[string]apps.Status {
	if fleet := d.instances(); fleet != nil {
		return fleet.apps()
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

func (d *Daemon) statusReport(ctx context.Context) StatusReport {
	r := StatusReport{Phase: string(d.inPhase()), Since: telemetry.ProcessStart, Functions: []FunctionOverview{}}
	if c, ok := d.Instances(); ok {
		r.Instances = &InstancesStatus{c.Ready, c.Starting, c.Draining, c.Failing}
	}
	if reload := d.reloadStatus(); !reload.At.IsZero() {
		r.Reload = &reload
	}
	r.Problems = d.stores.problems()
	statuses := d.appStatuses()
	for _, s := range d.Status() {
		b := d.backlogs.Get(ctx, s.Name, statusFresh)
		f := FunctionOverview{FunctionStatus: s}
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
