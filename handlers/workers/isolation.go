package workers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// isolation tells a message that kills its worker from those that were in flight
// beside it: each is tried alone, one after the other, in a worker of their own.
type isolation struct {
	turn    sync.Mutex // held by the one that is being tried
	waiting sync.WaitGroup

	mu     sync.Mutex
	queued int
	worker *worker // for the next one, if it survived the last

	trying atomic.Pointer[worker] // the same, for those who can't wait for mu
}

// current is the isolated worker; nil if there is none.
func (i *isolation) current() *worker { return i.trying.Load() }

func (i *isolation) run(ctx context.Context, h *Handler, m *triggers.Message) ([]byte, error) {
	i.mu.Lock()
	i.queued++
	i.mu.Unlock()
	i.waiting.Add(1)
	defer i.waiting.Done()
	i.turn.Lock()
	defer i.turn.Unlock()
	defer i.leave()
	for {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("it waited for its turn to be tried alone: %w", handlers.ErrNotTried)
		}
		w, err := i.isolated(ctx, h.pool)
		if err != nil {
			return nil, err
		}
		output, err := h.try(ctx, w, m)
		var lost *lostError
		if errors.As(err, &lost) {
			if lost.again {
				continue
			}
			h.pool.log.Error("this message kills its worker", "function", h.name, "message", m.ID, "error", lost.how)
			return nil, lost.how
		}
		return output, err
	}
}

// leave stops the isolated worker after the last.
func (i *isolation) leave() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.queued--; i.queued == 0 && i.worker != nil {
		i.worker.stop(stopGrace)
		i.worker = nil
		i.trying.Store(nil)
	}
}

// isolated returns the worker for suspects, started if there is none.
func (i *isolation) isolated(ctx context.Context, p *Pool) (*worker, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.worker != nil && i.worker.usable() {
		return i.worker, nil
	}
	p.mu.Lock()
	ended := p.ended
	p.mu.Unlock()
	if ended {
		return nil, handlers.ErrNotTried
	}
	w, err := p.startWorker()
	if err != nil {
		return nil, errors.Join(err, handlers.ErrNotTried)
	}
	limit := time.NewTimer(p.cfg.StartTimeout)
	defer limit.Stop()
	select {
	case <-w.loaded:
		if w.ready != nil {
			i.worker = w
			i.trying.Store(w)
			return w, nil
		}
		err = &handlers.Misloaded{Summary: w.failed.Summary, Detail: w.failed.Detail}
	case <-w.gone:
		err = errors.Join(w.reason, handlers.ErrNotTried)
	case <-limit.C:
		err = fmt.Errorf("the code did not load within %v: %w", p.cfg.StartTimeout, handlers.ErrNotTried)
	case <-ctx.Done():
		err = handlers.ErrNotTried
	}
	w.kill(CauseStart, err)
	w.done.Wait()
	return nil, err
}

// wait returns when nobody is being tried any more.
func (i *isolation) wait() { i.waiting.Wait() }
