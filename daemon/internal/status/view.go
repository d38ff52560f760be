// Package status reports the state of a daemon: to operators as status, health and explanations,
// and to Prometheus as metrics. It counts nothing itself: it reads the state of other parts at
// each request, so it costs nothing while messages are handled.
package status

import (
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/autoscale"
	"github.com/drover-run/drover/daemon/internal/instances"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/scaler"
	"github.com/drover-run/drover/triggers"
)

// View is the state of a daemon that this package reports. Every field is set. The functions may
// be called from any goroutine at any time.
type View struct {
	Phase        func() string                                // api.PhaseStarting, api.PhaseRunning or api.PhaseStopping
	Config       func() *configs.Config                       // that runs now
	Running      func() []*apps.Function                      // those of this process; empty before the start
	Fleet        func() *instances.Fleet                      // nil if this process runs the functions itself
	Apps         func() map[string]apps.Status                // the worker processes of this process, by app
	Reload       func() Reload                                // the latest
	Bodies       func() *triggers.Budget                      // of message bodies
	Traces       func() *telemetry.Traces                     // nil if nothing is traced
	StoreNames   func() []string                              // the connections with an embedded server
	StoreProblem func(connection string) *api.FunctionProblem // nil if its store is fine, or there is none
	Backlogs     *autoscale.Backlogs
	Logs         *telemetry.LogBuffer
	Decisions    *autoscale.Decisions
	DataDir      func() string // has the directories of the instances
	Log          *slog.Logger
}

// Reload is the state of reloads.
type Reload struct {
	api.ReloadStatus
	LoadError bool // the last one was refused because code does not load
}

const (
	// statusMaxAge and scrapeMaxAge are the maximum ages of a backlog in an answer, and in a scrape.
	statusMaxAge = 900 * time.Millisecond
	scrapeMaxAge = 10 * time.Second
)

// FunctionStatuses reports on every function, by name, in all instances. It is empty before the
// daemon is ready.
func (v *View) FunctionStatuses() []api.FunctionStatus {
	if fleet := v.Fleet(); fleet != nil {
		return fleet.FunctionStatuses()
	}
	var out []api.FunctionStatus
	for _, f := range v.Running() {
		out = append(out, f.Status())
	}
	return out
}

// AppStatuses describes the apps of all instances, by app.
func (v *View) AppStatuses() map[string]apps.Status {
	if fleet := v.Fleet(); fleet != nil {
		return fleet.AppStatuses()
	}
	return v.Apps()
}

// countInstances counts the instances; ok is false if this process runs the functions itself.
func (v *View) countInstances() (count scaler.Count, ok bool) {
	if fleet := v.Fleet(); fleet != nil {
		return fleet.CountInstances(), true
	}
	return scaler.Count{}, false
}

// functionNames returns the names of the configured functions, sorted.
func (v *View) functionNames() []string { return slices.Sorted(maps.Keys(v.Config().Functions)) }

// notRun returns the functions of a function app that do not run.
func (v *View) notRun() (out []api.NotRun) {
	for _, f := range v.Config().NotRun {
		out = append(out, api.NotRun{Name: f.Function, Reason: f.Reason, Failed: f.Failed})
	}
	return out
}

// storeProblems returns the problems of all embedded stores.
func (v *View) storeProblems() (out []api.FunctionProblem) {
	for _, name := range v.StoreNames() {
		if p := v.StoreProblem(name); p != nil {
			out = append(out, *p)
		}
	}
	return out
}
