package workers

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/handlers/workers/worker"
)

// finishing bounds how long calls that had started in the shared workers may run before those
// workers are replaced.
const finishing = time.Second

// quarantine moves a function that blocks the event loop repeatedly. If the function waits,
// it runs in threads of the workers, each with its own loop, so that other functions can run
// meanwhile. If it computes, it gets its own worker processes: a second pool, which
// lives as long as the first. There it blocks only its own calls.
type quarantine struct {
	pool  *Pool
	moved atomic.Pointer[map[string]quarantined] // by function; changed with mu held

	mu       sync.Mutex
	lifetime context.Context // of the pools; nil while none can be started
	moving   map[string]bool // functions that are being moved, were moved, or must not be moved
	pools    sync.WaitGroup
}

// quarantined is a function with its own workers.
type quarantined struct {
	pool    *Pool
	handler *Handler
}

// allowMoves allows functions to be moved until stop is called, which ends their pools.
func (q *quarantine) allowMoves(ctx context.Context) (stop func()) {
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lifetime = life
	return func() {
		q.mu.Lock()
		q.lifetime = nil
		q.mu.Unlock()
		cancel()
		q.pools.Wait()
	}
}

// workersFor returns the number of workers of a quarantined function if the others have wanted
// workers: one fewer, so that a core is left for the others.
func workersFor(wanted int) int { return max(wanted-1, min(wanted, 1)) }

// movedFunctions returns the functions with their own workers, by name.
func (q *quarantine) movedFunctions() map[string]quarantined {
	if m := q.moved.Load(); m != nil {
		return *m
	}
	return nil
}

// handlerOf returns the handler to which a function was moved; nil if it was not.
func (q *quarantine) handlerOf(function string) *Handler {
	if m := q.moved.Load(); m != nil {
		return (*m)[function].handler
	}
	return nil
}

// scaleAll adapts the quarantined functions' workers to the number of the others.
func (q *quarantine) scaleAll(wanted int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, own := range q.movedFunctions() {
		own.pool.Scale(workersFor(wanted))
	}
}

// shareCores gives the quarantined functions' workers the same share of the cores as the others.
func (q *quarantine) shareCores(share int) {
	for _, own := range q.movedFunctions() {
		own.pool.ApplySettings(Settings{CoreShare: share})
	}
}

// startMove starts moving a function, at most once. It does not wait for the move.
func (q *quarantine) startMove(function string, why Blocked) {
	p := q.pool
	q.mu.Lock()
	defer q.mu.Unlock()
	index := p.code.indexOf(function)
	if q.lifetime == nil || p.roster.hasEnded() || q.moving[function] || index < 0 {
		return
	}
	life := q.lifetime
	if tunable, _ := p.code.capabilities(); tunable && !why.Computes && !why.GIL { // others can run while it waits
		q.moving[function] = true
		q.pools.Go(func() { q.moveToThreads(life, uint16(index), why) })
		return
	}
	if len(p.cfg.Functions) == 1 {
		return // no other function is affected
	}
	cfg := p.cfg
	cfg.Functions = p.cfg.Functions[index : index+1]
	q.moving[function] = true
	cfg.Settings = p.Settings()
	cfg.Settings.Processes = max(workersFor(cfg.Settings.Processes), 1)
	cfg.OnBlocked = BlockedWarn
	cfg.Reaper, cfg.Template, cfg.Spare, cfg.Lagged = p.launcher.starter.Reaper, false, Spare{}, nil
	own := New(cfg)
	own.blocks = p.blocks
	q.pools.Go(func() { _ = own.Run(life) }) // Run returns no error
	q.pools.Go(func() { q.moveFunction(life, uint16(index), own, why) })
}

// moveToThreads makes the workers run a function in their threads.
func (q *quarantine) moveToThreads(ctx context.Context, index uint16, why Blocked) {
	p := q.pool
	function := p.cfg.Functions[index].Name
	p.code.setAsync(function, false)
	settings, began := p.settings.runInThreads(index), time.Now()
	members, _ := p.roster.snapshot()
	for _, m := range members {
		m.ApplySettings()
	}
	if p.cfg.Moved != nil {
		p.cfg.Moved(function, p.slots.sync)
	}
	p.log.LogAttrs(ctx, slog.LevelWarn, "function moved to threads, since it blocks the event loop: it runs there until a reload or a restart replaces the app's workers",
		slog.String("function", function), slog.String("place", why.Place), slog.Int("threads", settings.Threads), slog.String("instead", why.Advice()))
	q.replaceWorkers(ctx, members, index, began)
}

// moveFunction waits until another pool is ready, and redirects a function's calls to it.
func (q *quarantine) moveFunction(ctx context.Context, index uint16, own *Pool, why Blocked) {
	p := q.pool
	function := p.cfg.Functions[index].Name
	err := own.WaitReady(ctx)
	var h *Handler
	if err == nil {
		h, err = own.HandlerOf(function)
	}
	if err != nil {
		if ctx.Err() == nil {
			p.log.Error("function not quarantined: its worker processes did not start", "function", function, "error", err)
		}
		return
	}
	members, began := q.redirectCalls(function, quarantined{own, h})
	if p.cfg.Moved != nil {
		p.cfg.Moved(function, h.Slots())
	}
	for _, m := range members {
		m.RevokeUnstarted(index)
	}
	p.log.LogAttrs(ctx, slog.LevelWarn, "function quarantined, since it blocks the event loop: it has its own worker processes until a reload or a restart replaces the app's workers",
		slog.String("function", function), slog.String("place", why.Place), slog.Int("workers", own.Settings().Processes), slog.String("instead", why.Advice()))
	q.replaceWorkers(ctx, members, index, began)
}

// redirectCalls redirects a function's calls to its own workers. It returns the shared workers, and
// the time of the redirection.
func (q *quarantine) redirectCalls(function string, own quarantined) (members []*member, began time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	next := maps.Clone(q.movedFunctions())
	if next == nil {
		next = make(map[string]quarantined)
	}
	next[function] = own
	q.moved.Store(&next)
	members, wanted := q.pool.roster.snapshot()
	q.shareCores(q.pool.launcher.starter.CoreShare())
	own.pool.Scale(workersFor(wanted))
	return members, time.Now()
}

// preventMove prevents a function from being moved, and moves it back if it was. It reports
// whether it was.
func (q *quarantine) preventMove(index int) (back bool) {
	p := q.pool
	function := p.cfg.Functions[index].Name
	q.mu.Lock()
	defer q.mu.Unlock()
	q.moving[function] = true // add moves each function only once
	if p.settings.runOnLoop(uint16(index)) {
		p.code.setAsync(function, true)
		back = true
	}
	if own, is := q.movedFunctions()[function]; is {
		next := maps.Clone(q.movedFunctions())
		delete(next, function)
		q.moved.Store(&next)
		for _, sums := range own.pool.ownMeasures() { // it has only this function
			p.launcher.group.AddMeasures(index, sums)
		}
		own.pool.Scale(0)
		back = true
	}
	return back
}

// replaceWorkers waits, and then replaces workers that still run calls of a moved function: these
// calls started on the event loop, and may block it again.
func (q *quarantine) replaceWorkers(ctx context.Context, members []*member, function uint16, began time.Time) {
	limit := time.NewTimer(finishing)
	defer limit.Stop()
	select {
	case <-limit.C:
	case <-ctx.Done():
		return
	}
	for _, m := range members {
		m.EachCall(func(c *worker.Call) {
			if c.Function == function && c.SubmittedAt().Before(began) {
				m.mustReplace.Store(true)
			}
		})
	}
	q.pool.roster.wakeReconciler()
}

// functionNames returns the names of the moved functions, sorted.
func (q *quarantine) functionNames() []string {
	return slices.Sorted(slices.Values(slices.Concat(q.pool.ThreadedFunctions(), slices.Collect(maps.Keys(q.movedFunctions())))))
}
