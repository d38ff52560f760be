// Package daemon runs one daemon: it connects triggers to handlers as the configuration says, runs
// the dispatcher, reloads and stops. A Go program with functions of its own calls Run, or New and
// Daemon.Run. The command line is package cli.
package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/autoscale"
	"github.com/drover-run/drover/daemon/internal/dispatch"
	"github.com/drover-run/drover/daemon/internal/instances"
	"github.com/drover-run/drover/daemon/internal/sources"
	"github.com/drover-run/drover/daemon/internal/status"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/scaler"
	"github.com/drover-run/drover/triggers"
)

// Daemon is one instance. Make it with New; call Run once.
type Daemon struct {
	options
	cfg     *configs.Config // as at the start; currentConfig() returns the current one
	logs    *telemetry.LogBuffer
	reloads chan reloadRequest
	ended   chan struct{} // closed when Run returns
	phase   phase

	standstill  dispatch.Standstill
	stores      stores
	decisions   autoscale.Decisions
	backlogs    autoscale.Backlogs
	loops       *autoscale.Loops // set before the resources are opened
	appRegistry apps.Registry

	mu        sync.Mutex // guards the fields below
	open      *resources // nil before the daemon runs
	functions []*apps.Function
	fleet     *instances.Fleet  // of the instances that do the work; nil if this daemon does it
	budget    *triggers.Budget  // of message bodies; set before the resources are opened
	traces    *telemetry.Traces // nil: nothing is traced
	reloaded  status.Reload
	paused    map[string]time.Time // until when, by function, if instances do the work
}

// New returns a daemon for a configuration from Load or Complete.
func New(cfg *configs.Config, opts ...Option) *Daemon {
	d := &Daemon{
		options: options{
			log:         slog.New(slog.DiscardHandler),
			env:         func(string) (string, bool) { return "", false },
			environ:     func() []string { return nil },
			triggers:    make(map[string]triggers.Trigger),
			connections: make(map[string]*sources.Connection),
			onReady:     func() {},
			started:     telemetry.ProcessStart,
		},
		cfg: cfg, logs: telemetry.NewLogBuffer(), reloads: make(chan reloadRequest), ended: make(chan struct{}),
	}
	for _, option := range opts {
		option(&d.options)
	}
	d.backlogs.Request = d.Backlog
	d.log = slog.New(d.logs.NewHandler(d.log.Handler()))
	return d
}

// InFlight counts the messages that were received and are not settled.
func (d *Daemon) InFlight() int64 {
	var n int64
	for _, f := range d.runningFunctions() {
		n += f.Stats.InFlight()
	}
	if fleet := d.currentFleet(); fleet != nil {
		for _, s := range fleet.FunctionStatuses() {
			n += s.InFlight
		}
	}
	return n
}

// currentFleet returns the instances that this daemon runs; nil if it does the work itself.
func (d *Daemon) currentFleet() *instances.Fleet {
	return readLocked(d, func() *instances.Fleet { return d.fleet })
}

// Instances counts the instances that this daemon runs; ok is false if it does
// the work itself.
func (d *Daemon) Instances() (count scaler.Count, ok bool) {
	if fleet := d.currentFleet(); fleet != nil {
		return fleet.CountInstances(), true
	}
	return scaler.Count{}, false
}

func (d *Daemon) runningFunctions() []*apps.Function {
	return readLocked(d, func() []*apps.Function { return slices.Clone(d.functions) })
}

// The types of a daemon's reports, in Go and as the JSON of its admin API.
type (
	// Latencies is a distribution of durations.
	Latencies = telemetry.Latencies
	// LogLine is a line of the log that is about a function.
	LogLine = telemetry.LogLine
	// FunctionStatus counts what one function did, and reports its state.
	FunctionStatus = api.FunctionStatus
	// FunctionCounts counts the messages of one function.
	FunctionCounts = api.FunctionCounts
	// FunctionOverview is a function's status, and its backlog.
	FunctionOverview = api.FunctionOverview
	// FunctionKind is how a function spends the time of its calls, as measured.
	FunctionKind = api.FunctionKind
	// FunctionProblem is a problem that an operator must fix.
	FunctionProblem = api.FunctionProblem
	// AppOverview is how much of an app runs at once, and why.
	AppOverview = api.AppOverview
	// UndoneChange is a change of an app's settings that drover reverted.
	UndoneChange = api.UndoneChange
	// StatusReport is the answer of /v1/status.
	StatusReport = api.StatusReport
	// InstancesStatus counts instances.
	InstancesStatus = api.InstancesStatus
	// ReloadStatus reports the outcome of reloads.
	ReloadStatus = api.ReloadStatus
	// Changes are the functions that a reload changed.
	Changes = api.Changes
	// Explanation is the reason why a function or a message waits.
	Explanation = api.Explanation
	// Explanations is the answer of /v1/explain.
	Explanations = api.Explanations
	// Health is the answer of /healthz and /readyz.
	Health = api.Health
	// Problem is the answer to a request that failed.
	Problem = api.Problem
)

// Backlog requests the backlog of a function from its source.
func (d *Daemon) Backlog(ctx context.Context, name string) (triggers.Backlog, error) {
	for _, f := range d.runningFunctions() {
		if f.Name == name {
			return f.Trigger.Backlog(ctx)
		}
	}
	if fleet := d.currentFleet(); fleet != nil && fleet.SourceOf(name) != nil {
		return fleet.SourceOf(name).Backlog(ctx)
	}
	return triggers.Backlog{}, fmt.Errorf("no function %q is running", name)
}

// currentConfig returns the configuration that the daemon runs now.
func (d *Daemon) currentConfig() *configs.Config {
	if p := d.currentResources(); p != nil {
		return p.cfg
	}
	return d.cfg
}

func (d *Daemon) currentResources() *resources {
	return readLocked(d, func() *resources { return d.open })
}

// setOpen sets the resources that the daemon closes when it ends.
func (d *Daemon) setOpen(p *resources) {
	d.logs.SetApps(functionsOfApps(p.cfg))
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open = p
}

// setRunning sets the resources whose functions run. ending are functions that were removed and
// still drain.
func (d *Daemon) setRunning(p *resources, ending ...*apps.Function) {
	functions := append(p.sortedFunctions(), ending...)
	d.logs.SetApps(functionsOfApps(p.cfg))
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open, d.functions = p, functions
	d.appRegistry.UseSet(p.apps)
}

// functionsOfApps returns the names of the functions of each app, by the name of the app and by
// its directory: log lines have one of them.
func functionsOfApps(cfg *configs.Config) map[string][]string {
	out := make(map[string][]string)
	for name, f := range cfg.Functions {
		if c, found := f.Handler.Code(); found {
			out[c.App] = append(out[c.App], name)
			out[cfg.Apps[c.App].Dir] = append(out[cfg.Apps[c.App].Dir], name)
		}
	}
	return out
}

// Summary returns the state of the daemon in one line. It takes the locks that messages take, so
// it blocks while one of those is stuck.
func (d *Daemon) Summary() string {
	var received, done, failed, inFlight int64
	for _, s := range d.Status() {
		received, done, failed, inFlight = received+s.Received, done+s.Done, failed+s.Failed, inFlight+s.InFlight
	}
	for _, f := range d.runningFunctions() {
		f.Share.Room()
	}
	for _, p := range d.appRegistry.CurrentPools() {
		p.Stats()
	}
	return fmt.Sprintf("%s: received %d, done %d, failed %d, in flight %d", d.phase.get(), received, done, failed, inFlight)
}
