// Package workers is the handler that runs functions in worker processes: a Pool
// for each app, a Handler for each function. A worker is any command that speaks
// the protocol in docs/worker-protocol.md on its file descriptor 3.
//
// A pool lives as long as its Run. Handle is called from many goroutines.
package workers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/handlers/sandbox"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

// Function is one function of the app. Name is drover's, and unique in the pool.
type Function struct {
	Name, Module, Function string
	// SessionState gives it the state of its messages' sessions.
	SessionState bool
	// Results is what becomes of what it returns; the zero value has it sent.
	Results protocol.Results
}

// Config is a pool. Zero values are the defaults given here.
type Config struct {
	App     string // the directory of the code
	Command process.Command
	// Settings are those to begin with: 1 process, 1 thread, 512 coroutines.
	Settings  Settings
	Functions []Function
	// Unmeasured has workers not measure what calls use.
	Unmeasured bool
	// StartTimeout bounds the loading of the code; two minutes.
	StartTimeout time.Duration
	// KillGrace is how long a worker has to obey a cancellation before it is
	// killed; five seconds.
	KillGrace time.Duration
	Recycle   Recycle
	// Template has workers forked from a process that has loaded the code, where
	// the worker and the code allow it.
	Template bool
	// MaxFrame is the largest frame in bytes, either way; protocol.DefaultMax.
	MaxFrame int
	// Lagged is told how long a callback had to wait for a worker's event loop, ten
	// times a second while it has something to do. nil drops it.
	Lagged func(wait time.Duration)
	// OnBlocked is what is done about functions that block the event loop.
	OnBlocked OnBlocked
	// Blocking is told of each block, when it is noticed and when it is over; it does not
	// wait. nil drops it.
	Blocking func(Block)
	// Moved is told that a function's room is elsewhere from now on, since it is kept
	// apart: its share is to be moved there. nil drops it.
	Moved func(function string, to *handlers.Slots)
	// Died gets each call that was in flight in a worker that died, with others, before it
	// runs again: with its context, and how the worker died. It does not wait. nil drops it.
	Died func(ctx context.Context, how error)
	// Imported gets the files that workers have loaded, as protocol.ImportedFrame has them,
	// from many goroutines. nil: workers do not name them.
	Imported func(paths []string)
	// Reaper starts the processes; nil: the pool has one of its own.
	Reaper *childproc.Reaper
	// Confine is what the processes are held to; nil is nothing.
	Confine *sandbox.Confinement
	Log     *slog.Logger
}

// Pool is the worker processes of one app.
type Pool struct {
	cfg     Config
	log     *slog.Logger
	starter *process.Starter // whose Reaper Run sets

	// Room in flight, by the kind of function: the two do not take each other's.
	sync, async *handlers.Slots

	nudges  chan struct{} // for Run: look around
	busy    chan struct{} // for the watch: there are calls in flight
	waiting atomic.Int64  // calls that wait for a worker
	awake   atomic.Bool   // whether the watch looks already
	average atomic.Int64  // how long a call takes, lately, in nanoseconds
	loaded  chan struct{} // closed when the first worker is ready, or none will be

	mu       sync.Mutex
	wanted   int
	settings Settings // but for the processes, which are wanted
	tunable  bool     // whether threads can change while workers run
	measured map[*worker]struct{}
	past     []Measures      // of the workers that are gone
	workers  []*worker       // those that Run started and that are not known to be gone
	startUp  time.Duration   // of the workers, lately; 0 until one was ready
	kinds    map[string]bool // by function: whether it is async; set when loaded
	misload  *handlers.LoadError
	template *worker // that workers are forked from; nil if there is none, now
	unforked string  // why none are, though they should be
	forkable bool    // whether they could be
	ended    bool
	changed  chan struct{} // closed and replaced when any of the above changes
	restarts map[process.Cause]int

	suspects *isolation // messages that may have killed or blocked a worker
	killers  *isolation // messages that have
	records  records
	blocks   *blocks

	// Functions that are kept apart: where their pools live, which of them there are,
	// and which are on their way; the last two guarded by mu, but for reading.
	apartIn context.Context
	aparts  sync.WaitGroup
	aparted atomic.Pointer[map[string]apart]
	moving  map[string]bool

	threaded []uint16 // async functions that run in threads, of which only the end changes; guarded by mu
}

const (
	// healthy is how long a worker must live for the back-off to begin anew.
	healthy = 10 * time.Second
	// lookEvery is how often the workers are looked at while one is missing.
	lookEvery = 50 * time.Millisecond
	// ahead is how much work is queued in a worker to hide the way to it and
	// back: what it completes in this time.
	ahead = 10 * time.Millisecond
	// maxExtra bounds that, in messages.
	maxExtra = 2048
	// drainGrace is how long a worker has to end that has nothing in flight: two seconds
	// for what its app does at the end, and one to end.
	drainGrace = 3 * time.Second
	// stopGrace is how long a stopped worker has to end, before SIGTERM, and
	// then again before SIGKILL.
	stopGrace = 2 * time.Second
)

// New returns a pool; Run starts it.
func New(cfg Config) *Pool {
	def := func(v *int, value int) {
		if *v <= 0 {
			*v = value
		}
	}
	def(&cfg.Settings.Processes, 1)
	def(&cfg.Settings.Threads, 1)
	def(&cfg.Settings.Coroutines, 512)
	def(&cfg.MaxFrame, protocol.DefaultMax)
	if cfg.StartTimeout <= 0 {
		cfg.StartTimeout = 2 * time.Minute
	}
	if cfg.KillGrace <= 0 {
		cfg.KillGrace = 5 * time.Second
	}
	log := cfg.Log.With("app", cfg.App)
	return &Pool{
		cfg:     cfg,
		log:     log,
		starter: &process.Starter{Command: cfg.Command, Confine: cfg.Confine, Log: log},
		sync:    handlers.NewSlots(0),
		async:   handlers.NewSlots(0),
		nudges:  make(chan struct{}, 1),
		busy:    make(chan struct{}, 1),
		loaded:  make(chan struct{}),
		changed: make(chan struct{}),
		wanted:  cfg.Settings.Processes,
		kinds:   make(map[string]bool),

		settings: cfg.Settings,
		measured: make(map[*worker]struct{}),
		past:     make([]Measures, len(cfg.Functions)),

		restarts: make(map[process.Cause]int),
		blocks:   new(blocks),
		moving:   make(map[string]bool),
		suspects: newIsolation(suspectLanes),
		killers:  newIsolation(killerLanes),
	}
}

func (p *Pool) hello() protocol.HelloFrame {
	can := []string{protocol.CanLog, protocol.CanStats, protocol.CanSessionState, protocol.CanFork, protocol.CanHeartbeat}
	if !p.cfg.Unmeasured {
		can = append(can, protocol.CanMeasures)
	}
	if p.cfg.OnBlocked != BlockedOff {
		can = append(can, protocol.CanBlocked)
	}
	if p.cfg.Imported != nil {
		can = append(can, protocol.CanImports)
	}
	return protocol.HelloFrame{Protocol: protocol.Version, MaxFrame: p.cfg.MaxFrame, Capabilities: can}
}

func (p *Pool) load(template bool) protocol.LoadFrame {
	now := p.Settings()
	l := protocol.LoadFrame{Template: template, App: p.cfg.App, Threads: now.Threads, Coroutines: now.Coroutines}
	for _, f := range p.cfg.Functions {
		l.Functions = append(l.Functions, protocol.Function{Name: f.Name, Module: f.Module, Function: f.Function, Results: f.Results})
	}
	return l
}

// unfit says why a worker cannot serve this pool; "" if it can.
func (p *Pool) unfit(w *protocol.WelcomeFrame) string {
	if w.Protocol != protocol.Version {
		return fmt.Sprintf("the worker speaks protocol %d, this daemon %d: use a worker made for it", w.Protocol, protocol.Version)
	}
	for _, f := range p.cfg.Functions {
		if f.SessionState && !slices.Contains(w.Capabilities, protocol.CanSessionState) {
			return fmt.Sprintf("function %s has session_state, which the %s worker can not", f.Name, w.Language)
		}
	}
	return ""
}

func (p *Pool) nudge() {
	select {
	case p.nudges <- struct{}{}:
	default:
	}
}

// Ready waits until the first worker has loaded the code. The error is a
// *handlers.LoadError if it does not load, or ctx.Err().
func (p *Pool) Ready(ctx context.Context) error {
	select {
	case <-p.loaded:
	case <-ctx.Done():
		return ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.misload != nil {
		return p.misload
	}
	if p.ended {
		return errors.New("the pool has ended")
	}
	return nil
}

// usable reports whether the worker has loaded the code and lives.
func (w *worker) usable() bool {
	select {
	case <-w.loaded:
	default:
		return false
	}
	select {
	case <-w.gone:
		return false
	default:
		return w.ready != nil && !w.retiring.Load()
	}
}

// change tells those who wait that something changed; p.mu is held.
func (p *Pool) change() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// Run keeps the wanted number of workers until ctx ends; then it stops them and
// returns when the last process is gone. Start, crash and replacement are one
// path: whatever is missing is started. Workers whose code does not load are not
// started again: Ready and Handle tell why, and Run goes on waiting for ctx.
func (p *Pool) Run(ctx context.Context) error {
	if p.starter.Reaper = p.cfg.Reaper; p.starter.Reaper == nil {
		p.starter.Reaper = childproc.New(p.log)
		defer p.starter.Reaper.Close()
	}
	aparts, stopAparts := context.WithCancel(context.WithoutCancel(ctx))
	defer p.aparts.Wait()
	defer stopAparts()
	p.mu.Lock()
	p.apartIn = aparts
	p.mu.Unlock()
	watching, stopWatch := context.WithCancel(context.WithoutCancel(ctx))
	var watch sync.WaitGroup
	watch.Go(func() { p.watch(watching) })
	defer watch.Wait()
	defer stopWatch()
	defer p.stopAll()
	pause := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(100*time.Millisecond), backoff.WithMaxInterval(30*time.Second), backoff.WithMaxElapsedTime(0))
	run := &reconciler{pool: p, pause: pause, since: make(map[*worker]time.Time)}
	defer run.stopping.Wait()
	defer run.endTemplate()
	for {
		run.step()
		var wait time.Duration // 0: for a nudge
		if s := p.Stats(); (s.Ready < s.Wanted || s.Retiring > 0) && !p.halted() {
			wait = lookEvery
		} else if p.cfg.Recycle.timed() {
			wait = recycleEvery
		}
		if !run.again.IsZero() {
			until := max(time.Until(run.again), time.Millisecond)
			if wait == 0 || until < wait {
				wait = until
			}
		}
		var again <-chan time.Time
		if wait > 0 {
			again = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.nudges:
		case <-again:
		}
	}
}

// halted reports whether no more workers are started, as the code does not load.
func (p *Pool) halted() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.misload != nil
}

// halt starts no more workers. Where the code loaded once, nobody waits for Ready
// any more, so it is logged; p.mu is held.
func (p *Pool) halt(m *handlers.LoadError) {
	p.misload = m
	if len(p.kinds) > 0 {
		p.log.Error("the code does not load any more; no worker is started until the daemon is", "error", m.Summary, "detail", m.Detail)
	}
	p.change()
}

// noteLoaded takes what a worker said when it had loaded the code, or had not.
func (p *Pool) noteLoaded(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.failed != nil && p.misload == nil {
		p.halt(&handlers.LoadError{Summary: w.failed.Summary, Detail: w.failed.Detail})
	}
	if w.ready != nil && len(p.kinds) == 0 {
		for i, f := range p.cfg.Functions {
			p.kinds[f.Name] = w.ready.Functions[i].Kind == "async"
		}
		p.tunable = slices.Contains(w.welcome.Capabilities, protocol.CanSettings)
		p.forkable = slices.Contains(w.welcome.Capabilities, protocol.CanFork) && w.ready.Unforkable == ""
		p.log.Debug("workers load", "language", w.welcome.Language, "version", w.welcome.Version)
	}
	select {
	case <-p.loaded:
	default:
		if p.misload != nil || len(p.kinds) > 0 {
			close(p.loaded)
		}
	}
}

// extraFor is how many messages are queued in a worker beyond those that run, by
// how long a call takes: for functions of microseconds enough to hide the round
// trip, for long ones none, so that no message waits behind another while a
// worker is idle.
func extraFor(average time.Duration, threads int) int {
	return int(min(ahead*time.Duration(threads)/max(average, time.Microsecond), maxExtra))
}

// resize sets the room in flight to what the ready workers have.
func (p *Pool) resize() {
	p.mu.Lock()
	defer p.mu.Unlock()
	sync, async := 0, 0
	for _, w := range p.workers {
		if w.usable() {
			extra := int(w.extra.Load())
			sync += int(w.threads.Load()) + extra
			async += p.settings.Coroutines + extra
		}
	}
	if p.wanted == 0 && sync == 0 {
		// The first message has a worker started.
		sync, async = p.settings.Threads, p.settings.Coroutines
	}
	if p.misload != nil {
		// One message of each function finds out, and stops it: without room the
		// functions would wait for ever, and nobody would know why.
		sync, async = max(sync, 1), max(async, 1)
	}
	if sync != p.sync.Capacity() {
		p.sync.Resize(sync)
	}
	if async != p.async.Capacity() {
		p.async.Resize(async)
	}
}

// stopAll ends the workers; what is in flight in them was cancelled or finished
// by those who called Handle.
func (p *Pool) stopAll() {
	p.mu.Lock()
	workers := p.workers
	p.ended = true
	p.change()
	select {
	case <-p.loaded:
	default:
		close(p.loaded)
	}
	p.mu.Unlock()
	var all sync.WaitGroup
	for _, w := range workers {
		all.Go(func() { w.stop(stopGrace) })
	}
	all.Wait()
	p.suspects.wait()
	p.killers.wait()
}
