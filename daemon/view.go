package daemon

import (
	"maps"
	"slices"
	"time"

	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/status"
	"github.com/drover-run/drover/daemon/internal/telemetry"
)

// usageReported is how old the resource usage of processes may be in the reports of an instance,
// and usageFresh in an answer.
const (
	usageFresh    = time.Second
	usageReported = 5 * time.Second
)

// view returns what the package status reports of.
func (d *Daemon) view() *status.View {
	return &status.View{
		Phase: d.inPhase, Config: d.config, Running: d.running, Fleet: d.instances,
		Apps:   func() map[string]apps.Status { return d.appRegistry.Statuses(usageFresh) },
		Reload: d.lastReload, Bodies: d.bodies, Traces: d.tracing, StoreNames: d.stores.Names, StoreProblem: d.stores.problem,
		Backlogs: &d.backlogs, Logs: d.logs, Decisions: &d.decisions, DataDir: d.dataDir, Log: d.log,
	}
}

// dataDir is read only when it is used: a program may ask for the status before Run has completed
// the configuration.
func (d *Daemon) dataDir() string { return d.cfg.DataDir }

// enter starts a phase, such as api.PhaseRunning.
func (d *Daemon) enter(phase string) { d.phase.Store(phase) }

func (d *Daemon) inPhase() string {
	if p, ok := d.phase.Load().(string); ok {
		return p
	}
	return api.PhaseStarting
}

// tracing returns where spans are sent; nil if nothing is traced.
func (d *Daemon) tracing() *telemetry.Traces {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.traces
}

// Status reports on every function, by name. It is empty before the daemon is ready.
func (d *Daemon) Status() []FunctionStatus { return d.view().FunctionStatuses() }

// Apps reports how much of each app runs at once, and why, by name. It is empty before
// the daemon is ready, and for apps of which nothing is measured yet.
func (d *Daemon) Apps() []AppOverview { return status.AppOverviews(d.view().AppStatuses()) }

// Kind returns how a function spends the time of its calls, as measured; nil before anything is,
// and if no worker process runs it.
func (d *Daemon) Kind(function string) *FunctionKind {
	return status.KindOf(d.view().AppStatuses(), function)
}

// names returns the names of the configured functions, sorted.
func (d *Daemon) names() []string { return slices.Sorted(maps.Keys(d.config().Functions)) }
