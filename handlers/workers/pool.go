// Package workers is the handler that runs functions in worker processes: a Pool
// for each app, a Handler for each function. A worker is any command that speaks
// the protocol in docs/worker-protocol.md on its file descriptor 3.
//
// A pool lives as long as its Run. Handle is called from many goroutines.
//
// Package worker has one worker and its connection, package process its process, and package
// suspects the messages that may have killed one. This package has the set of workers (roster,
// reconcile), the state of the app (code), the bounds of concurrency (settings), and the handling
// of functions that block the event loop (quarantine).
package workers

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/spare"
	"github.com/drover-run/drover/handlers/workers/suspects"
	"github.com/drover-run/drover/handlers/workers/worker"
)

// Pool has the worker processes of one app.
type Pool struct {
	cfg        Config
	log        *slog.Logger
	code       *code
	roster     roster
	settings   *settings
	slots      *poolSlots
	launcher   *launcher
	suspects   *suspects.Registry
	spare      *spare.Keeper
	blocks     *blocks
	quarantine quarantine
	watch      *watch
}

// New returns a pool; Run starts it.
func New(cfg Config) *Pool {
	cfg = cfg.withDefaults()
	log := cfg.Log.With("app", cfg.App)
	p := &Pool{
		cfg:      cfg,
		log:      log,
		code:     newCode(cfg.Functions, log),
		settings: &settings{now: worker.Settings{Threads: cfg.Settings.Threads, Coroutines: cfg.Settings.Coroutines}},
		blocks:   new(blocks),
	}
	p.roster = roster{
		code: p.code, wakeups: make(chan struct{}, 1), wanted: cfg.Settings.Processes,
		changed: make(chan struct{}), restarts: make(map[process.Cause]int),
	}
	p.slots = &poolSlots{roster: &p.roster, settings: p.settings, code: p.code, sync: handlers.NewSlots(0), async: handlers.NewSlots(0)}
	p.launcher = &launcher{
		starter: &process.Starter{Command: cfg.Command, Confine: cfg.Confine, Terminal: cfg.Terminal, Log: log},
		group: worker.NewGroup(worker.Config{
			App: cfg.App, Functions: cfg.Functions, MaxFrame: cfg.MaxFrame,
			Unmeasured: cfg.Unmeasured, WatchLoop: cfg.OnBlocked != BlockedOff, Debugged: cfg.Terminal != nil, Log: log,
			Settings: p.settings.current, Changed: p.roster.wakeReconciler, RoomChanged: p.slots.resizeSlots, Retired: p.roster.countRestart, Blocked: p.handleBlock,
			Lagged: cfg.Lagged, Blocking: cfg.Blocking, Imported: cfg.Imported,
		}),
		log: log,
	}
	p.launcher.starter.SetCoreShare(cfg.Settings.CoreShare)
	if cfg.Spare.Keep {
		p.spare = spare.New(spare.Config{
			Start: p.launcher.startWorker, StartTimeout: cfg.StartTimeout, After: cfg.Spare.After, Fits: cfg.Spare.Fits,
			Changed: p.roster.wakeReconciler, Log: log,
		})
	}
	p.suspects = suspects.New(suspects.Config{
		Functions: cfg.Functions, Start: p.startIsolated, TakeSpare: p.spare.Take, ReturnSpare: p.spare.Return, StartTimeout: cfg.StartTimeout, Log: log,
	})
	p.quarantine = quarantine{pool: p, moving: make(map[string]bool)}
	p.watch = newWatch(p.allWorkers, log)
	return p
}

// WaitReady waits until the first worker has loaded the code. It returns a
// *handlers.LoadError if the code does not load, or ctx.Err().
func (p *Pool) WaitReady(ctx context.Context) error {
	if err := p.code.waitSettled(ctx); err != nil {
		return err
	}
	if failure := p.code.loadFailure(); failure != nil {
		return failure
	}
	if p.roster.hasEnded() {
		return errEnded
	}
	return nil
}

// Run keeps the target number of workers running until ctx ends. Then it stops them, and returns
// when the last process has ended. Start, crash and replacement use one path: missing workers
// are started. If the code does not load, workers are not started again: WaitReady and Handle return
// the reason, and Run still waits for ctx.
func (p *Pool) Run(ctx context.Context) error {
	starter := p.launcher.starter
	if starter.Reaper = p.cfg.Reaper; starter.Reaper == nil {
		starter.Reaper = childproc.New(p.log)
		defer starter.Reaper.Close()
	}
	defer p.quarantine.allowMoves(ctx)()
	watching, stopWatch := context.WithCancel(context.WithoutCancel(ctx))
	var watch sync.WaitGroup
	watch.Go(func() { p.watch.watchCalls(watching) })
	defer watch.Wait()
	defer stopWatch()
	defer p.stopAll()
	reconciler := newReconciler(&p.roster, p.code, p.slots, p.launcher, p.spare, &p.cfg)
	defer reconciler.stop()
	reconciler.run(ctx)
	return nil
}

// stopAll stops the workers. The callers of Handle have cancelled or finished the calls in
// flight.
func (p *Pool) stopAll() {
	members := p.roster.markEnded()
	p.code.stopWaiting()
	var all sync.WaitGroup
	for _, m := range members {
		all.Go(m.Stop)
	}
	all.Wait()
	p.suspects.WaitIdle()
}

// startIsolated starts a worker for messages that run alone.
func (p *Pool) startIsolated() (*worker.Worker, error) {
	if p.roster.hasEnded() {
		return nil, handlers.ErrNotTried
	}
	w, err := p.launcher.startWorker()
	if err != nil {
		return nil, errors.Join(err, handlers.ErrNotTried)
	}
	return w, nil
}

// allWorkers returns the workers that may have calls in flight.
func (p *Pool) allWorkers() []*worker.Worker {
	members, _ := p.roster.snapshot()
	all := make([]*worker.Worker, 0, len(members))
	for _, m := range members {
		all = append(all, m.Worker)
	}
	return append(all, p.suspects.Workers()...)
}

// GroupsOf returns the groups of the workers that run a function of a pool: the pool's, and that of the function's own
// workers while it is quarantined.
func GroupsOf(p *Pool, function string) []*worker.Group {
	groups := []*worker.Group{p.launcher.group}
	if own := p.quarantine.handlerOf(function); own != nil {
		groups = append(groups, own.pool.launcher.group)
	}
	return groups
}

// handleBlock handles a block of an event loop.
func (p *Pool) handleBlock(r worker.BlockReport) {
	often := r.Over && p.blocks.addBlock(r, time.Now())
	if !r.Reported {
		p.blocks.logFirst(r)
	}
	if often && p.cfg.OnBlocked == BlockedIsolate {
		p.quarantine.startMove(r.Function, blockedBy(r))
	}
}

// ownMeasures returns Measures without the workers of quarantined functions.
func (p *Pool) ownMeasures() []worker.Measures {
	out := p.launcher.group.Measures()
	for i, f := range p.cfg.Functions {
		out[i].Function, out[i].Async = f.Name, p.code.isAsync(f.Name)
	}
	return out
}

// Scale sets the number of workers. Missing ones are started. Of surplus ones, those with the
// fewest calls in flight stop when their calls have finished. With n = 0, the pool still offers
// the slots of one worker. The first message then starts a worker, and sets the number to one.
func (p *Pool) Scale(n int) {
	p.roster.setWanted(n)
	p.quarantine.scaleAll(n)
}

// ApplySettings changes the settings while the workers run; 0 keeps a setting. Calls in flight
// finish, and new ones wait until the new settings permit them. Threads change only in
// workers that support it (IsTunable), and in workers started later. If CoreShare changes, each worker is
// replaced, one after the other, as by Recycle.
func (p *Pool) ApplySettings(s Settings) {
	p.settings.set(s.Threads, s.Coroutines)
	if s.CoreShare > 0 && p.launcher.starter.SetCoreShare(s.CoreShare) {
		p.spare.Drop(p.launcher.isOutdated)
		p.quarantine.shareCores(s.CoreShare)
		p.roster.wakeReconciler()
	}
	members, _ := p.roster.snapshot()
	for _, m := range members {
		m.ApplySettings()
	}
	p.slots.resizeSlots()
	if s.Processes > 0 {
		p.Scale(s.Processes)
	}
}

// Settings returns the settings that were set last.
func (p *Pool) Settings() Settings {
	now := p.settings.current()
	_, wanted := p.roster.snapshot()
	return Settings{Processes: wanted, Threads: now.Threads, Coroutines: now.Coroutines, CoreShare: p.launcher.starter.CoreShare()}
}

// IsTunable reports whether threads can change while workers run. It is called after WaitReady.
func (p *Pool) IsTunable() bool {
	tunable, _ := p.code.capabilities()
	return tunable
}

// IsAsync reports whether a function of the pool runs on the event loop.
func (p *Pool) IsAsync(function string) bool { return p.code.isAsync(function) }

// FunctionNames returns the names of the functions, in the order of Config.Functions.
func (p *Pool) FunctionNames() []string { return p.code.functionNames() }

// ThreadedFunctions returns the names of the async functions that run in threads because they block
// the event loop.
func (p *Pool) ThreadedFunctions() []string {
	var out []string
	for _, index := range p.settings.current().Threaded {
		out = append(out, p.cfg.Functions[index].Name)
	}
	return out
}

// RenewWorkers replaces the workers, which finish their calls in flight and get no more. It removes
// what calls have left behind under other settings, such as a connection that belongs to a thread.
// If all is false, it replaces only workers that loaded the code with another number of threads
// than the current one.
func (p *Pool) RenewWorkers(all bool) {
	members, _ := p.roster.snapshot()
	threads := p.settings.current().Threads
	renewed := false
	for _, m := range members {
		if m.IsUsable() && (all || m.LoadedWith() != threads) && m.Retire() {
			p.roster.countRestart(process.CauseUndone)
			renewed = true
		}
	}
	p.spare.Drop(func(w *worker.Worker) bool { return all || w.LoadedWith() != threads })
	if renewed {
		p.slots.resizeSlots()
		p.roster.wakeReconciler()
	}
}

// PreventMove prevents a function from being moved for blocking the event loop, and moves it back
// if it was. In that case, it returns the function's slots, and the caller must call
// RenewWorkers(true). Otherwise it returns nil.
func (p *Pool) PreventMove(function string) (to *handlers.Slots) {
	index := p.code.indexOf(function)
	if index < 0 || !p.quarantine.preventMove(index) {
		return nil
	}
	return p.slots.async
}
