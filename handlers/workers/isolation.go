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
	turn    chan struct{} // has room for the one that is being tried
	queued  atomic.Int64  // those that are, or wait for it
	waiting sync.WaitGroup
	worker  atomic.Pointer[worker] // for the next one, if it survived the last; set by the one whose turn it is
}

// current is the isolated worker; nil if there is none.
func (i *isolation) current() *worker { return i.worker.Load() }

func (i *isolation) run(ctx context.Context, h *Handler, m *triggers.Message) ([]byte, error) {
	i.queued.Add(1)
	i.waiting.Add(1)
	defer i.waiting.Done()
	defer i.leave()
	select {
	case i.turn <- struct{}{}:
		defer func() { <-i.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("it waited for its turn to be tried alone: %w", handlers.ErrNotTried)
	}
	for {
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
	if i.queued.Add(-1) > 0 {
		return
	}
	select {
	case i.turn <- struct{}{}:
		i.stop()
		<-i.turn
	default: // another has come, and is the last now
	}
}

// stop ends the isolated worker, if there is one.
func (i *isolation) stop() {
	if w := i.worker.Swap(nil); w != nil {
		w.stop(stopGrace)
	}
}

// isolated returns the worker for suspects, started if there is none.
func (i *isolation) isolated(ctx context.Context, p *Pool) (*worker, error) {
	if w := i.current(); w != nil && w.usable() {
		return w, nil
	}
	i.stop()
	p.mu.Lock()
	ended := p.ended
	p.mu.Unlock()
	if ended || ctx.Err() != nil {
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
			i.worker.Store(w)
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
