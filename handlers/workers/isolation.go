package workers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/triggers"
)

// isolation runs messages alone, each lane one at a time in a worker of its own: so a
// message that kills its worker is told from those that were in flight beside it, and
// kills nobody else's.
type isolation struct {
	lanes   chan *worker // the free ones: each is its worker, nil if it has none
	queued  atomic.Int64 // messages that run or wait for a lane
	waiting sync.WaitGroup

	mu      sync.Mutex
	workers []*worker // those that are ready
}

const (
	// suspectLanes is how many suspects are tried at once, and killerLanes how many
	// messages of which it is known that they kill their worker, or block it.
	suspectLanes = 2
	killerLanes  = 4
)

// maxForgiven is how often a message that runs alone may lose its worker to somebody
// else's SIGKILL or SIGSTOP before that counts as its own doing. The loss that brought it
// here does not count either.
const maxForgiven = 1

func newIsolation(lanes int) *isolation {
	i := &isolation{lanes: make(chan *worker, lanes)}
	for range lanes {
		i.lanes <- nil
	}
	return i
}

// current are the isolated workers.
func (i *isolation) current() []*worker {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.workers)
}

// run tries a message alone until it has an answer of its own.
func (i *isolation) run(ctx context.Context, h *Handler, m *triggers.Message) ([]byte, error) {
	i.queued.Add(1)
	i.waiting.Add(1)
	defer i.waiting.Done()
	defer i.leave()
	var w *worker
	select {
	case w = <-i.lanes:
	case <-ctx.Done():
		return nil, fmt.Errorf("its time was up before it could be tried alone: %w", handlers.ErrRunAgain)
	}
	defer func() { i.lanes <- w }()
	forgiven := 0
	for {
		var err error
		if w, err = i.isolated(ctx, h.pool, w); err != nil {
			return nil, err
		}
		if attempt, is := ctx.(handlers.Renewable); is {
			attempt.Renew() // it has waited for others
		}
		output, err := h.try(ctx, w, m)
		var lost *lostError
		switch {
		case !errors.As(err, &lost):
			return output, err
		case lost.again:
		case lost.outside && forgiven < maxForgiven && !h.pool.records.of(h, m).killer:
			forgiven++
			h.pool.log.Warn("an isolated worker was killed from outside, stopped or hung; its message runs again without using an attempt", "function", h.name, "message", m.ID)
		default:
			h.pool.records.note(h, m, func(r *record) { r.killer = true })
			h.pool.log.Error("this message kills its worker", "function", h.name, "message", m.ID, "error", lost.how)
			return nil, lost.how
		}
	}
}

// leave stops the isolated workers after the last message.
func (i *isolation) leave() {
	if i.queued.Add(-1) > 0 {
		return
	}
	for range cap(i.lanes) {
		select {
		case w := <-i.lanes:
			i.stop(w)
			i.lanes <- nil
		default: // another message has come, and is the last now
			return
		}
	}
}

// stop ends an isolated worker, if there is one.
func (i *isolation) stop(w *worker) {
	if w == nil {
		return
	}
	i.mu.Lock()
	i.workers = slices.DeleteFunc(i.workers, func(other *worker) bool { return other == w })
	i.mu.Unlock()
	w.stop(stopGrace)
}

// isolated waits until a lane's worker can be used, and starts one if there is none. It
// returns the lane's worker in any case: one that has not loaded the code when the time of
// a message is up, is there for the next.
func (i *isolation) isolated(ctx context.Context, p *Pool, w *worker) (*worker, error) {
	if w != nil && w.usable() {
		return w, nil
	}
	if w == nil || w.finished() {
		i.stop(w)
		p.mu.Lock()
		ended := p.ended
		p.mu.Unlock()
		if ended {
			return nil, handlers.ErrNotTried
		}
		var err error
		if w, err = p.startWorker(); err != nil {
			return nil, errors.Join(err, handlers.ErrNotTried)
		}
		i.mu.Lock()
		i.workers = append(i.workers, w)
		i.mu.Unlock()
	}
	limit := time.NewTimer(time.Until(w.begun.Add(p.cfg.StartTimeout)))
	defer limit.Stop()
	select {
	case <-w.loaded:
		if w.ready != nil {
			return w, nil
		}
		return w, &handlers.LoadError{Summary: w.failed.Summary, Detail: w.failed.Detail}
	case <-w.gone:
		return w, errors.Join(w.reason, handlers.ErrNotTried)
	case <-limit.C:
		err := fmt.Errorf("the code did not load within %v: %w", p.cfg.StartTimeout, handlers.ErrNotTried)
		w.kill(process.CauseStart, err)
		return w, err
	case <-ctx.Done():
		return w, handlers.ErrRunAgain
	}
}

// finished reports whether a worker takes no more.
func (w *worker) finished() bool {
	select {
	case <-w.gone:
		return true
	default:
		return w.retiring.Load()
	}
}

// wait returns when nobody is being tried any more.
func (i *isolation) wait() { i.waiting.Wait() }
