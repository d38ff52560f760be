// Package daemon runs functions on the messages of queues: it receives, limits the concurrency, retries,
// dead-letters, and stops gracefully.
//
//	err := daemon.Run(ctx, nil, daemon.WithFunction("orders",
//		configs.Function{Trigger: configs.Trigger{NATS: &configs.NATSTrigger{}}}, handlers.JSON(handleOrder)))
//
// A Go program calls Run, or New and Daemon.Run, with a configuration from package configs and with
// options: its functions, its own triggers, its log. Package daemon/drovertest runs the same functions in
// tests. Package daemon/cli adds the command line. docs/go.md is the guide.
//
// Run, New, Check, the options and Daemon are stable: the changelog has every change. RunInstance,
// Greeting, OpenAPI and WithConnection are for drover's own commands, and may change.
package daemon

import (
	"cmp"
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
	"github.com/drover-run/drover/daemon/internal/program"
	"github.com/drover-run/drover/daemon/internal/status"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/scaler"
	"github.com/drover-run/drover/triggers"
)

// Daemon is one instance. Make it with New; call Run once.
type Daemon struct {
	input
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

// input has the arguments of New.
type input struct {
	given       program.Options
	completions *telemetry.Completions
	log         *slog.Logger
	cfg         *configs.Config // as at the start; Config() returns the current one
}

// New returns a daemon for a configuration from configs.Load or configs.New; nil means the defaults.
// The daemon completes the configuration, which must not be changed afterwards.
func New(cfg *configs.Config, opts ...Option) *Daemon {
	if cfg == nil {
		cfg = configs.New()
	}
	d := &Daemon{
		input: input{cfg: cfg, given: program.Options{
			Env:     func(string) (string, bool) { return "", false },
			Environ: func() []string { return nil },
			OnReady: func() {},
			Started: telemetry.ProcessStart,
		}},
		logs: telemetry.NewLogBuffer(), reloads: make(chan reloadRequest), ended: make(chan struct{}),
	}
	for _, option := range opts {
		option(&d.given)
	}
	d.completions = telemetry.NewCompletions(d.given.TerminalLog)
	d.backlogs.Request = d.Backlog
	d.log = slog.New(d.logs.NewHandler(cmp.Or(d.given.Log, slog.Default()).Handler()))
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
	if fleet := d.currentFleet(); fleet != nil {
		if b, known, err := fleet.Backlog(ctx, name); known {
			return b, err
		}
	}
	return triggers.Backlog{}, fmt.Errorf("no function %q is running", name)
}

// Config returns the current configuration. Do not change it.
func (d *Daemon) Config() *configs.Config {
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
	setLogging(d, p.cfg)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open = p
}

// setRunning sets the resources whose functions run. ending are functions that were removed and
// still drain.
func (d *Daemon) setRunning(p *resources, ending ...*apps.Function) {
	functions := append(p.sortedFunctions(), ending...)
	setLogging(d, p.cfg)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open, d.functions = p, functions
	d.appRegistry.UseSet(p.apps)
}

// setLogging applies the levels of a configuration to the log, and sets which functions the lines of
// an app belong to.
func setLogging(d *Daemon, cfg *configs.Config) {
	d.logs.SetApps(functionsOfApps(cfg))
	d.completions.Configure(cfg.Log.Done)
	all := telemetry.ParseLevel(cfg.Log.Level)
	lowest, own := all, make(map[string]slog.Level)
	for name, f := range cfg.Functions {
		if f.LogLevel != "" && f.LogLevel != "auto" {
			own[name] = telemetry.ParseLevel(f.LogLevel)
			lowest = min(lowest, own[name])
		}
	}
	d.logs.SetLevels(all, own)
	if d.given.Level != nil {
		d.given.Level.Set(lowest)
	}
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
