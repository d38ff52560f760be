package workers

import (
	"context"
	"log/slog"
	"maps"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

// This file moves a function that blocks the event loop over and over to worker
// processes of its own: a pool beside the pool, which lives as long as that. There it
// still waits for itself, and nobody else waits for it.

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
	of := append(b.offences[function], now)
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
	if p.cfg.OnBlocked != BlockedIsolate || p.ended || p.apartIn == nil || p.moving[function] {
		return
	}
	cfg := p.cfg
	cfg.Functions = nil
	for _, f := range p.cfg.Functions {
		if f.Name == function {
			cfg.Functions = []Function{f}
		}
	}
	if len(cfg.Functions) == 0 || len(p.cfg.Functions) == 1 {
		return // there is nobody who waits for it
	}
	p.moving[function] = true
	cfg.Settings = p.settings
	cfg.Settings.Processes = max(beside(p.wanted), 1)
	cfg.OnBlocked = BlockedWarn
	cfg.Reaper, cfg.Template, cfg.Lagged = p.reaper, false, nil
	own := New(cfg)
	own.blocks = p.blocks
	life := p.apartIn
	p.aparts.Go(func() { _ = own.Run(life) }) // it returns none
	p.aparts.Go(func() { p.move(life, function, own, why) })
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
	workers := p.workers
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
	limit := time.NewTimer(finishing)
	defer limit.Stop()
	select {
	case <-limit.C:
	case <-ctx.Done():
		return
	}
	for _, w := range workers {
		if w.runs(function) {
			w.unwanted.Store(true)
		}
	}
	p.nudge()
}

// runs reports whether a function has calls in flight in a worker.
func (w *worker) runs(function string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.calls {
		if c != nil && c.handler.name == function {
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
