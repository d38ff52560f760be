package daemon

import (
	"cmp"
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/profiles"
	"github.com/drover-run/drover/daemon/internal/sources"
	"github.com/drover-run/drover/daemon/internal/status"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/triggers"
)

// reportMaxAge is the maximum age of the resource usage of processes in the reports of an
// instance, and usageMaxAge in an answer.
const (
	usageMaxAge  = time.Second
	reportMaxAge = 5 * time.Second
)

// readLocked returns the result of read, which it calls while the daemon's lock is held.
func readLocked[T any](d *Daemon, read func() T) T {
	d.mu.Lock()
	defer d.mu.Unlock()
	return read()
}

// statusView returns the state that package status reports.
func (d *Daemon) statusView() *status.View {
	return &status.View{
		Phase: d.phase.get, Config: d.Config, Running: d.runningFunctions, Fleet: d.currentFleet,
		Apps:   func() map[string]apps.Status { return d.appRegistry.AppStatuses(usageMaxAge) },
		Reload: func() status.Reload { return readLocked(d, func() status.Reload { return d.reloaded }) },
		Bodies: func() *triggers.Budget {
			return cmp.Or(readLocked(d, func() *triggers.Budget { return d.budget }), new(triggers.Budget))
		},
		Traces:     func() *telemetry.Traces { return readLocked(d, func() *telemetry.Traces { return d.traces }) },
		StoreNames: d.stores.Names, StoreProblem: d.stores.problemOf,
		Backlogs: &d.backlogs, Logs: d.logs, Decisions: &d.decisions, DataDir: func() string { return d.cfg.DataDir }, // Run may complete the configuration later
		Log: d.log,
	}
}

// profileView returns the state that package profiles uses.
func profileView(d *Daemon) *profiles.View {
	return &profiles.View{Config: d.Config, Running: d.runningFunctions, Fleet: d.currentFleet, DataDir: func() string { return d.cfg.DataDir }}
}

// Status reports on every function, by name. It is empty before the daemon is ready.
func (d *Daemon) Status() []FunctionStatus { return d.statusView().FunctionStatuses() }

// Report returns the answer of /v1/status: all functions with their backlogs, and all apps.
func (d *Daemon) Report(ctx context.Context) StatusReport { return d.statusView().NewReport(ctx) }

// Apps reports how much of each app runs at once, and why, by name. It is empty before
// the daemon is ready, and for apps without measurements.
func (d *Daemon) Apps() []AppOverview { return status.AppOverviews(d.statusView().AppStatuses()) }

// Interpreters returns the interpreters of a daemon's apps, each with its version and origin, by the name
// of the app. It is empty before the daemon is ready.
func Interpreters(d *Daemon) map[string]string {
	out := make(map[string]string)
	for name, app := range d.statusView().AppStatuses() {
		out[name] = app.Interpreter
	}
	return out
}

// phase is one of the phases in package api. The zero value is api.PhaseStarting.
type phase struct{ value atomic.Value }

func (p *phase) set(name string) { p.value.Store(name) }

func (p *phase) get() string {
	if name, ok := p.value.Load().(string); ok {
		return name
	}
	return api.PhaseStarting
}

// stores are the embedded servers, by connection.
type stores struct{ sources.Stores }

// problemOf returns the problem of a connection's store; nil if there is none.
func (s *stores) problemOf(connection string) *api.FunctionProblem {
	since, why := s.FailureOf(connection)
	if why == nil {
		return nil
	}
	return &api.FunctionProblem{Kind: api.ProblemStore, Text: fmt.Sprintf("connection %s: %v", connection, why), Since: since, Blocks: true}
}
