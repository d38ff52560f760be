package workers

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

// This file moves a function that blocks the event loop over and over. Where it waits
// others can run meanwhile: it runs in threads of the workers, each with a loop of its
// own. Where it computes, it gets worker processes of its own: a pool beside the pool,
// which lives as long as that. There it still waits for itself, and nobody else does.

const (
	// offence is how long a block is that counts as one, and after offences of them
	// within within a function is moved.
	offence  = 100 * time.Millisecond
	offences = 3
	within   = time.Minute
	// finishing is how long calls that had begun in the others' workers have to end,
	// before those workers are replaced.
	finishing = time.Second
)

// apart is a function that has been moved, or is being moved.
type apart struct {
	pool    *Pool
	handler *Handler
}

// offends notes a block, and reports whether its function is to be moved.
func (b *blocks) offends(function string, took time.Duration, now time.Time) bool {
	if took < offence || function == "" {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.offences == nil {
		b.offences = make(map[string][]time.Time)
	}
	of := append(slices.Clone(b.offences[function]), now)
	if len(of) > offences {
		of = of[1:]
	}
	b.offences[function] = of
	return len(of) == offences && now.Sub(of[0]) <= within
}

// beside is how many workers a function has that is kept apart, where the others have
// so many: one less, so that a core is left to them.
func beside(wanted int) int { return max(wanted-1, min(wanted, 1)) }

// keepApart moves a function, once. It does not wait for that.
func (p *Pool) keepApart(function string, why Blocked) {
	p.mu.Lock()
	defer p.mu.Unlock()
	index := slices.IndexFunc(p.cfg.Functions, func(f Function) bool { return f.Name == function })
	if p.cfg.OnBlocked != BlockedIsolate || p.ended || p.apartIn == nil || p.moving[function] || index < 0 {
		return
	}
	if !why.Computes && !why.GIL && p.tunable { // others can run while it waits
		p.moving[function] = true
		life := p.apartIn
		p.aparts.Go(func() { p.toThreads(life, uint16(index), why) })
		return
	}
	if len(p.cfg.Functions) == 1 {
		return // there is nobody who waits for it
	}
	cfg := p.cfg
	cfg.Functions = p.cfg.Functions[index : index+1]
	p.moving[function] = true
	cfg.Settings = p.settings
	cfg.Settings.Processes = max(beside(p.wanted), 1)
	cfg.OnBlocked = BlockedWarn
	cfg.Reaper, cfg.Template, cfg.Lagged = p.starter.Reaper, false, nil
	own := New(cfg)
	own.blocks = p.blocks
	life := p.apartIn
	p.aparts.Go(func() { _ = own.Run(life) }) // it returns none
	p.aparts.Go(func() { p.move(life, function, own, why) })
}

// toThreads has the workers run a function in their threads.
func (p *Pool) toThreads(ctx context.Context, index uint16, why Blocked) {
	function := p.cfg.Functions[index].Name
	p.mu.Lock()
	p.kinds[function] = false
	p.threaded = append(p.threaded, index)
	workers, threads, began := p.workers, p.settings.Threads, time.Now()
	p.mu.Unlock()
	settings := p.Settings()
	for _, w := range workers {
		w.set(settings)
	}
	if p.cfg.Moved != nil {
		p.cfg.Moved(function, p.sync)
	}
	p.log.LogAttrs(ctx, slog.LevelWarn, "a function that blocks the event loop runs in threads from now on, until the app's workers are replaced by a reload or a restart",
		slog.String("function", function), slog.String("place", why.Place), slog.Int("threads", threads), slog.String("instead", why.Instead()))
	p.replaceThose(ctx, workers, function, began)
}

func (p *Pool) threadedNow() []uint16 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.threaded
}

// Threaded are the names of the async functions that run in threads, since they block
// the event loop.
func (p *Pool) Threaded() []string {
	var out []string
	for _, index := range p.threadedNow() {
		out = append(out, p.cfg.Functions[index].Name)
	}
	return out
}

// move has a function's calls go to another pool, when that is ready.
func (p *Pool) move(ctx context.Context, function string, own *Pool, why Blocked) {
	err := own.Ready(ctx)
	var h *Handler
	if err == nil {
		h, err = own.Handler(function)
	}
	if err != nil {
		if ctx.Err() == nil {
			p.log.Error("a function that blocks the event loop was to be kept apart from others, and cannot be", "function", function, "error", err)
		}
		return
	}
	p.mu.Lock()
	next := maps.Clone(p.apart())
	if next == nil {
		next = make(map[string]apart)
	}
	next[function] = apart{own, h}
	p.aparted.Store(&next)
	workers, began := p.workers, time.Now()
	own.Scale(beside(p.wanted))
	p.mu.Unlock()
	if p.cfg.Moved != nil {
		p.cfg.Moved(function, h.Slots())
	}
	for i, f := range p.cfg.Functions {
		if f.Name == function {
			for _, w := range workers {
				w.away(uint16(i))
			}
		}
	}
	p.log.LogAttrs(ctx, slog.LevelWarn, "a function that blocks the event loop is kept apart: its calls go to worker processes of its own, until the app's workers are replaced by a reload or a restart",
		slog.String("function", function), slog.String("place", why.Place), slog.Int("workers", own.Settings().Processes), slog.String("instead", why.Instead()))
	p.replaceThose(ctx, workers, function, began)
}

// replaceThose has workers replaced in which calls of a function that was moved go on
// after a while: they have begun on the event loop, and may block it again.
func (p *Pool) replaceThose(ctx context.Context, workers []*worker, function string, began time.Time) {
	limit := time.NewTimer(finishing)
	defer limit.Stop()
	select {
	case <-limit.C:
	case <-ctx.Done():
		return
	}
	for _, w := range workers {
		if w.runs(function, began) {
			w.unwanted.Store(true)
		}
	}
	p.nudge()
}

// runs reports whether a function has calls in flight in a worker that it was given
// before a time.
func (w *worker) runs(function string, before time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.calls {
		if c != nil && c.handler.name == function && c.submitted.Before(before) {
			return true
		}
	}
	return false
}

// apart are the functions that were moved, by name.
func (p *Pool) apart() map[string]apart {
	if m := p.aparted.Load(); m != nil {
		return *m
	}
	return nil
}

// Apart are the names of the functions that have worker processes of their own, and
// how many each.
func (p *Pool) Apart() map[string]int {
	out := make(map[string]int)
	for name, a := range p.apart() {
		out[name] = a.pool.Stats().Ready
	}
	return out
}

// moved is the handler that a function's calls go to since it was moved; nil if it
// was not.
func (h *Handler) moved() *Handler {
	if m := h.pool.aparted.Load(); m != nil {
		if a, is := (*m)[h.name]; is {
			return a.handler
		}
	}
	return nil
}

// away has a worker give back what it has not begun of a function.
func (w *worker) away(function uint16) {
	if !w.usable() || !w.can(protocol.CanSettings) {
		return
	}
	frame, err := protocol.AppendJSON(nil, protocol.Set, protocol.SettingsFrame{
		Threads: int(w.threads.Load()), Coroutines: w.pool.Settings().Coroutines, Away: []uint16{function},
	})
	if err != nil {
		return // a frame of some bytes
	}
	w.send(frame)
}

// slotsOf is where a function's room is.
func (h *Handler) slotsOf() *handlers.Slots {
	if own := h.moved(); own != nil {
		return own.Slots()
	}
	if h.Async() {
		return h.pool.async
	}
	return h.pool.sync
}
