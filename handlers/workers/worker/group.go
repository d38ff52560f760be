package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/profiling"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

// Function is one function of the app. Name is drover's, and unique in the pool.
type Function struct {
	Name, Module, Function string
	// SessionState passes the state of the message's session to it.
	SessionState bool
	// Results sets the handling of its results; with the zero value they are sent.
	Results protocol.Results
	// Outputs are the names of its named outputs, in the order of the configuration.
	Outputs []string
	// Origin passes the source's own fields of each message to it.
	Origin bool
	// Azure describes a function of a function app; nil for other functions.
	Azure json.RawMessage
	// Reply is set if its results answer requests whose senders wait: the worker may send them in
	// parts.
	Reply bool
	// Batch is the maximum number of messages of a call; 0: it takes one message, not a batch.
	Batch int
}

// Settings bound the concurrency in each worker.
type Settings struct {
	Threads    int
	Coroutines int
	Threaded   []uint16 // the async functions that run in threads, by index
}

// Config is common to the workers of one pool. Its functions may be called from many goroutines,
// and must not block. Lagged, Blocking and Imported may be nil.
type Config struct {
	App       string // the directory of the code
	Functions []Function
	MaxFrame  int // in bytes
	// Unmeasured disables the measurement of calls.
	Unmeasured bool
	// WatchLoop makes workers report blocks of their event loop.
	WatchLoop bool
	// Debugged is set if a debugger may stop a worker: it sends no heartbeats, and its log goes to its
	// standard output and error.
	Debugged bool
	Log      *slog.Logger

	// Settings returns the current settings.
	Settings func() Settings
	// Changed is called when a worker has answered LOAD, has no more calls while it
	// retires, has taken the number of calls set by NotifyAt, or has ended. A lock of the worker
	// may be held during the call.
	Changed func()
	// RoomChanged is called when the number of calls that a worker takes has changed.
	RoomChanged func()
	// Retired is called when a worker has requested its replacement, and gets no more calls.
	Retired func(process.Cause)
	// Blocked receives each block of an event loop that counts: when it ends, and also once before
	// if it lasts a second.
	Blocked func(BlockReport)

	// Lagged receives how long a callback waited for a worker's event loop, ten times a second
	// while the loop is busy.
	Lagged func(wait time.Duration)
	// Blocking receives each block when a worker reports it.
	Blocking func(Block)
	// Imported receives the files that a worker has loaded.
	Imported func(paths []string)
}

// Group creates the workers of one pool, and sums up their measures.
type Group struct {
	cfg     Config
	average atomic.Int64 // recent average duration of a call, in nanoseconds
	size    atomic.Int64 // recent average size of a body, in bytes

	mu   sync.Mutex
	live map[*Worker]struct{}
	past []Measures // of workers that have ended

	profile  *profiling.Session // nil: none runs
	profiles int64              // how many have begun
}

// NewGroup returns a group without workers.
func NewGroup(cfg Config) *Group {
	return &Group{cfg: cfg, live: make(map[*Worker]struct{}), past: make([]Measures, len(cfg.Functions))}
}

// addWorker includes a worker's calls in the sums.
func (g *Group) addWorker(w *Worker) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.live[w] = struct{}{}
}

// removeWorker keeps the sums of a worker that has ended.
func (g *Group) removeWorker(w *Worker) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.live, w)
	addSums(g.past, w)
	if g.profile != nil {
		g.profile.Leave(profiled{w})
	}
}

// addSums adds the measures of a worker's calls.
func addSums(to []Measures, w *Worker) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.sums {
		to[i].add(w.sums[i])
	}
}

// AddMeasures adds the measures of calls that ran in workers of another group. function is an index.
func (g *Group) AddMeasures(function int, sums Measures) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.past[function].add(sums)
}

// Measures returns the sums over all workers since the group began, in the order of
// Config.Functions. Function and Async are not set.
func (g *Group) Measures() []Measures {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := slices.Clone(g.past)
	for w := range g.live {
		addSums(out, w)
	}
	return out
}

// Interrupt sends SIGINT to the workers, as Ctrl-C does in a terminal. A worker without a terminal
// ignores it.
func (g *Group) Interrupt() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for w := range g.live {
		w.Process.Signal(syscall.SIGINT)
	}
}

// ErrProfiled is the error of a profile while another one runs.
var ErrProfiled = errors.New("another profile runs in its workers; wait for its end")

// Profile samples the stacks of a function's calls for a time, in all workers, also in those that start
// meanwhile. If ctx ends first, the workers stop to sample, and Profile returns the error of ctx. Other errors
// are ErrProfiled, profiling.ErrUnsupported, and that the pool has no such function.
func (g *Group) Profile(ctx context.Context, function string, length time.Duration) (profiling.Result, error) {
	index := slices.IndexFunc(g.cfg.Functions, func(f Function) bool { return f.Name == function })
	if index < 0 {
		return profiling.Result{}, fmt.Errorf("the pool has no function %q", function)
	}
	g.mu.Lock()
	if g.profile != nil {
		g.mu.Unlock()
		return profiling.Result{}, ErrProfiled
	}
	g.profiles++
	g.profile = profiling.New(g.profiles, uint16(index))
	profile := g.profile
	for w := range g.live {
		if runsCalls(w) {
			profile.Join(profiled{w})
		}
	}
	g.mu.Unlock()
	defer g.setProfile(nil)
	return profile.Run(ctx, length)
}

func (g *Group) setProfile(to *profiling.Session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.profile = to
}

// joinProfile makes a worker that has become ready sample, if a profile runs.
func (g *Group) joinProfile(w *Worker) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.profile != nil && runsCalls(w) {
		g.profile.Join(profiled{w})
	}
}

// receiveProfile passes the result of a worker to the running profile.
func (g *Group) receiveProfile(w *Worker, f *protocol.ProfiledFrame) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.profile != nil {
		g.profile.Receive(profiled{w}, f)
	}
}

// profiled is a worker during a profile.
type profiled struct{ *Worker }

// Label implements profiling.Worker.
func (p profiled) Label() string { return fmt.Sprintf("worker %d", p.Process.PID) }

// SendFrame implements profiling.Worker.
func (p profiled) SendFrame(frame []byte) { p.queueFrame(frame) }

// runsCalls reports whether a worker has loaded the code, and is no template.
func runsCalls(w *Worker) bool {
	select {
	case <-w.Loaded:
	default:
		return false
	}
	isTemplate := w.forked != nil && w.HasCapability(protocol.CanFork)
	return w.Ready != nil && (!isTemplate || w.Ready.Unforkable != "")
}

func (g *Group) helloFrame() protocol.HelloFrame {
	can := []string{protocol.CanStats, protocol.CanSessionState, protocol.CanFork, protocol.CanProfile}
	if !g.cfg.Debugged {
		can = append(can, protocol.CanLog, protocol.CanHeartbeat)
	}
	if !g.cfg.Unmeasured {
		can = append(can, protocol.CanMeasures)
	}
	if g.cfg.WatchLoop {
		can = append(can, protocol.CanBlocked)
	}
	if g.cfg.Imported != nil {
		can = append(can, protocol.CanImports)
	}
	if slices.ContainsFunc(g.cfg.Functions, func(f Function) bool { return f.Reply }) {
		can = append(can, protocol.CanStream)
	}
	return protocol.HelloFrame{Protocol: protocol.Version, MaxFrame: g.cfg.MaxFrame, Capabilities: can}
}

func (g *Group) loadFrame(template bool) protocol.LoadFrame {
	now := g.cfg.Settings()
	l := protocol.LoadFrame{Template: template, App: g.cfg.App, Threads: now.Threads, Coroutines: now.Coroutines}
	for _, f := range g.cfg.Functions {
		if f.Reply && f.Results == protocol.Dropped {
			f.Results = "" // the sender of the request gets it, although there is no output
		}
		l.Functions = append(l.Functions, protocol.Function{
			Name: f.Name, Module: f.Module, Function: f.Function, Results: f.Results,
			Outputs: f.Outputs, Origin: f.Origin, Azure: f.Azure, Reply: f.Reply, Batch: f.Batch,
		})
	}
	return l
}

// incompatibilityOf returns why a worker cannot serve the pool; "" if it can.
func (g *Group) incompatibilityOf(w *protocol.WelcomeFrame) string {
	if w.Protocol != protocol.Version {
		return fmt.Sprintf("the worker has protocol %d, this daemon %d: use a matching worker", w.Protocol, protocol.Version)
	}
	for _, f := range g.cfg.Functions {
		for _, need := range f.needs() {
			if need.needed && !slices.Contains(w.Capabilities, need.capability) {
				return fmt.Sprintf("function %s needs %s, which the %s worker does not support (capability %s)", f.Name, need.what, w.Language, need.capability)
			}
		}
	}
	return ""
}

// need is a capability of workers that a function may need.
type need struct {
	needed           bool
	capability, what string
}

func (f Function) needs() []need {
	return []need{
		{f.SessionState, protocol.CanSessionState, "session_state"},
		{len(f.Outputs) > 0, protocol.CanOutputs, "named outputs"},
		{f.Origin, protocol.CanOrigin, "the source's own fields"},
		{f.Batch > 0, protocol.CanBatch, "batches"},
		{f.Azure != nil, protocol.CanAzure, "the programming model of Azure Functions"},
	}
}

// checkReady compares a READY with the LOAD that it answers.
func (g *Group) checkReady(ready *protocol.ReadyFrame) error {
	if got, want := len(ready.Functions), len(g.cfg.Functions); got != want {
		return fmt.Errorf("%w: it was asked for %d functions and has %d", protocol.ErrProtocol, want, got)
	}
	for i, f := range ready.Functions {
		switch want := g.cfg.Functions[i].Name; {
		case f.Name != want:
			return fmt.Errorf("%w: a READY whose function %d is %.100q, where LOAD has %q there", protocol.ErrProtocol, i, f.Name, want)
		case f.Kind != "sync" && f.Kind != "async":
			return fmt.Errorf("%w: a READY with %q of kind %.100q, where there are sync and async", protocol.ErrProtocol, f.Name, f.Kind)
		}
	}
	return nil
}

// functionName returns the name of a function; "" for a negative index.
func (g *Group) functionName(index int) string {
	if index < 0 {
		return ""
	}
	return g.cfg.Functions[index].Name
}
