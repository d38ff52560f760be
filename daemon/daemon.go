// Package daemon is where the parts meet: it wires triggers to handlers as the
// configuration says, runs the dispatcher, stops in order, and holds the command
// line. A Go program with functions of its own calls Main, or New and Run.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/autoscale"
	"github.com/drover-run/drover/daemon/internal/bodymemory"
	"github.com/drover-run/drover/daemon/internal/dispatch"
	"github.com/drover-run/drover/daemon/internal/instances"
	"github.com/drover-run/drover/daemon/internal/sources"
	"github.com/drover-run/drover/daemon/internal/status"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/scaler"
	"github.com/drover-run/drover/scaler/local"
	"github.com/drover-run/drover/triggers"
)

// ErrCutShort is returned if messages were in flight when a stop's drain deadline passed, or
// when the stop was forced. They were released without using an attempt, or will be
// redelivered when their leases expire; none is lost.
var ErrCutShort = errors.New("stopped before everything in flight was finished")

// cutShortGrace is how long handlers have to return after their context ended;
// it is longer than what a pool needs to kill a worker (5 s).
const cutShortGrace = 10 * time.Second

// Daemon is one instance. Make it with New; call Run once.
type Daemon struct {
	cfg         *configs.Config // as at the start; config has what a reload made of it
	log         *slog.Logger
	env         configs.Env
	environ     func() []string
	funcs       handlers.Funcs
	triggers    map[string]triggers.Trigger
	connections map[string]*sources.Connection
	hurry       <-chan struct{}
	onReady     func()
	program     *local.Command // what runs an instance; nil: none is run
	parent      string         // the data directory whose embedded servers are shared; empty: our own

	level *slog.LevelVar // the log's, if it can be changed

	reread  func(instead []byte) (*configs.Config, error) // the configuration, as it is now
	reloads chan reloadRequest
	over    chan struct{} // closed when Run returns

	mu        sync.Mutex
	open      *parts // nil before the daemon runs
	functions []*apps.Function
	fleet     *instances.Fleet // of instances, where they do the work
	reloaded  status.Reload
	traces    *telemetry.Traces // nil: nothing is traced

	standstill dispatch.Standstill

	decisions   autoscale.Decisions
	stores      stores
	loops       *autoscale.Loops // set before the parts are opened
	backlogs    autoscale.Backlogs
	appRegistry apps.Registry
	budget      *triggers.Budget // of the bodies that are held; set before the parts are opened
	main        bool             // this process is the daemon's alone
	logs        *telemetry.LogBuffer
	paused      map[string]time.Time // by function, until when, where instances do the work
	phase       atomic.Value         // the phase, a string
}

// Option changes how a daemon is made.
type Option func(*Daemon)

// WithFuncs offers Go functions to `handler: {go: NAME}`.
func WithFuncs(funcs handlers.Funcs) Option { return func(d *Daemon) { d.funcs = funcs } }

// WithLogger sets where the daemon logs; by default it does not.
func WithLogger(log *slog.Logger) Option { return func(d *Daemon) { d.log = log } }

// WithEnv sets the environment: lookup is asked for single variables, such as
// VIRTUAL_ENV and PATH, and environ is what worker processes get. By default both
// are empty.
func WithEnv(lookup configs.Env, environ func() []string) Option {
	return func(d *Daemon) { d.env, d.environ = lookup, environ }
}

// WithTrigger gives a function a trigger that the program made, in place of the
// one in its configuration. The daemon closes it.
func WithTrigger(function string, t triggers.Trigger) Option {
	return func(d *Daemon) { d.triggers[function] = t }
}

// WithConnection gives a connection that the program made, in place of the one
// in the configuration. The daemon does not close it.
func WithConnection(name string, c *sources.Connection) Option {
	return func(d *Daemon) { d.connections[name] = c }
}

// WithHurry cuts a stop short when the channel is closed.
func WithHurry(hurry <-chan struct{}) Option { return func(d *Daemon) { d.hurry = hurry } }

// WithReady is called once, when everything is loaded and connected and the
// daemon begins to receive.
func WithReady(ready func()) Option { return func(d *Daemon) { d.onReady = ready } }

// WithInstances says what runs one instance, where a configuration asks for
// several: a program that calls Main, with the argument instance.
func WithInstances(program local.Command) Option {
	return func(d *Daemon) { d.program = &program }
}

// WithWholeProcess lets the daemon set the percentage of the garbage collector by the
// memory that messages take: the process runs nothing else.
func WithWholeProcess() Option { return func(d *Daemon) { d.main = true } }

// withParent has the daemon be one of several instances, which share what is
// embedded in their parent.
func withParent(dataDir string) Option {
	return func(d *Daemon) { d.parent, d.reread = dataDir, d.regreeted }
}

// New returns a daemon for a configuration that Load or Complete made whole.
func New(cfg *configs.Config, options ...Option) *Daemon {
	d := &Daemon{
		cfg:         cfg,
		log:         slog.New(slog.DiscardHandler),
		env:         func(string) (string, bool) { return "", false },
		environ:     func() []string { return nil },
		triggers:    make(map[string]triggers.Trigger),
		connections: make(map[string]*sources.Connection),
		onReady:     func() {},
		reloads:     make(chan reloadRequest),
		over:        make(chan struct{}),
	}
	d.reread = d.readAgain
	d.backlogs.Ask = d.Backlog
	for _, o := range options {
		o(d)
	}
	d.logs = telemetry.NewLogBuffer()
	d.log = slog.New(d.logs.Handler(d.log.Handler()))
	return d
}

// Run runs the daemon of a configuration until ctx ends; see Daemon.Run.
func Run(ctx context.Context, cfg *configs.Config, options ...Option) error {
	return New(cfg, options...).Run(ctx)
}

// Run connects, loads, receives and handles until ctx ends; then it drains for
// at most the configured time and returns. The error is a *StartError when it
// could not start, ErrCutShort when the drain was too short, a joined
// *handlers.LoadError when no function could go on, and else nil.
//
// Stopping is two contexts: the first ends receiving, the second ends work. The
// pools stop after the work, and the triggers close last, since settlements
// travel on them.
func (d *Daemon) Run(ctx context.Context) (err error) {
	defer close(d.over)
	if err := d.cfg.Complete(d.env); err != nil {
		return &StartError{err}
	}
	if err := childproc.Room(apps.NeedsProcesses(d.cfg)); err != nil {
		return &StartError{err}
	}
	defer func() { err = d.aboutDataDir(err) }()
	if d.cfg.Scale.Instances.Scaled() {
		return d.supervise(ctx)
	}
	stopAdmin, err := d.serveAdmin()
	if err != nil {
		return &StartError{err}
	}
	defer stopAdmin()
	traces, err := openTraces(ctx, d.cfg.Traces, d.log)
	if err != nil {
		return &StartError{err}
	}
	d.mu.Lock()
	d.traces = traces
	d.mu.Unlock()
	defer traces.Stop()
	d.mu.Lock()
	d.budget = triggers.NewBudget(bodymemory.Limit(d.cfg))
	d.mu.Unlock()
	if d.main {
		defer bodymemory.RunBeside(ctx, func(ctx context.Context) { bodymemory.SetGC(ctx, d.budget) })()
	}
	d.loops = &autoscale.Loops{
		Running: d.running, Config: d.config, Backlogs: &d.backlogs, Decisions: &d.decisions,
		Store: autoscale.OpenStore(d.cfg.DataDir, d.log), Log: d.log,
	}
	parts := newParts(d, d.cfg, nil)
	d.hold(parts)
	defer func() { err = errors.Join(err, d.current().close(nil)) }()
	if err := parts.open(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // stopped while it started
		}
		return &StartError{err}
	}
	return d.dispatch(ctx, parts)
}

// Check returns what is wrong with a configuration on this machine and in this program as
// the error, and remarks as notes. It opens no connection and starts none of the user's
// code. Of the options it uses WithFuncs and WithEnv.
func Check(ctx context.Context, cfg *configs.Config, options ...Option) (notes []string, err error) {
	d := New(cfg, options...)
	return checkParts(ctx, cfg, d.funcs, d.env, d.environ())
}

// FuncsOf returns the Go functions that WithFuncs offers among options.
func FuncsOf(options ...Option) handlers.Funcs { return New(nil, options...).funcs }

// StartError reports that a daemon could not start, because of Err.
type StartError struct{ Err error }

func (e *StartError) Error() string { return e.Err.Error() }
func (e *StartError) Unwrap() error { return e.Err }

// dispatch runs the functions until ctx ends, and drains them.
func (d *Daemon) dispatch(ctx context.Context, p *parts) error {
	c := newCrew(ctx, d)
	defer c.leave()
	looking, endLook := context.WithCancel(context.WithoutCancel(ctx))
	var look sync.WaitGroup
	look.Go(func() { d.standstill.Run(looking) })
	defer look.Wait()
	defer endLook()
	d.use(p)
	d.scaleAndTune(p)
	for _, f := range p.inOrder() {
		c.start(f)
	}
	d.enter(api.PhaseRunning)
	d.log.Info("running", "functions", len(p.functions))
	d.onReady()
	for {
		select {
		case <-c.ended:
			if why, over := c.over(); over {
				return why
			}
		case r := <-d.reloads:
			p = d.reload(ctx, c, p, r)
		case <-ctx.Done():
			d.enter(api.PhaseStopping)
			return c.drain()
		}
	}
}

// scaleAndTune starts the loops over the pools that are new.
func (d *Daemon) scaleAndTune(p *parts) {
	d.loops.ScaleWorkers(p.cfg, p.apps.Pools())
	d.loops.TunePools(p.cfg, p.apps.Pools())
}

func detailOf(err error) string {
	var m *handlers.LoadError
	if errors.As(err, &m) {
		return m.Detail
	}
	return ""
}

// InFlight counts the messages that were received and are not settled.
func (d *Daemon) InFlight() int64 {
	var n int64
	for _, f := range d.running() {
		n += f.Stats.InFlight()
	}
	if fleet := d.instances(); fleet != nil {
		for _, s := range fleet.FunctionStatuses() {
			n += s.InFlight
		}
	}
	return n
}

// instances are those that this daemon runs; nil if it does the work itself.
func (d *Daemon) instances() *instances.Fleet {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fleet
}

// Instances counts the instances that this daemon runs; ok is false if it does
// the work itself.
func (d *Daemon) Instances() (count scaler.Count, ok bool) {
	if fleet := d.instances(); fleet != nil {
		return fleet.Count(), true
	}
	return scaler.Count{}, false
}

func (d *Daemon) running() []*apps.Function {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.functions)
}

// What a daemon reports, in Go and as the JSON of its admin API.
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

// Backlog asks a function's source what waits there.
func (d *Daemon) Backlog(ctx context.Context, name string) (triggers.Backlog, error) {
	for _, f := range d.running() {
		if f.Name == name {
			return f.Trigger.Backlog(ctx)
		}
	}
	if fleet := d.instances(); fleet != nil && fleet.Source(name) != nil {
		return fleet.Source(name).Backlog(ctx)
	}
	return triggers.Backlog{}, fmt.Errorf("no function %q is running", name)
}

// bodies is the budget; an empty one where others do the work, or before the start.
func (d *Daemon) bodies() *triggers.Budget {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.budget == nil {
		return new(triggers.Budget)
	}
	return d.budget
}
