package suspects

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/worker"
)

// Config configures a Registry. TakeSpare and ReturnSpare are optional.
type Config struct {
	Functions []worker.Function
	// Start starts an isolated worker. Its error is a handlers.ErrNotTried.
	Start func() (*worker.Worker, error)
	// TakeSpare returns a worker that has been started before; nil if there is none. Messages that are
	// known to kill their worker do not get it.
	TakeSpare func() *worker.Worker
	// ReturnSpare receives each worker that has no more messages, unless its messages were known to
	// kill. If it returns false, the worker is stopped.
	ReturnSpare func(*worker.Worker) (kept bool)
	// StartTimeout bounds the loading of the code.
	StartTimeout time.Duration
	Log          *slog.Logger
}

// isolation runs messages alone. Each lane has its own worker, and runs one message at a time. So a
// message that kills its worker is distinguished from those that were in flight with it, and
// kills no other worker.
type isolation struct {
	cfg *Config

	lanes   chan *worker.Worker // the free lanes: each is its worker, nil if it has none
	queued  atomic.Int64        // messages that run or wait for a lane
	waiting sync.WaitGroup

	stopping sync.Mutex // held while idle workers are stopped

	mu      sync.Mutex
	workers []*worker.Worker // those that are ready
	cohorts map[*worker.Worker]*cohort
}

const (
	// suspectLanes bounds the suspects tried at once, and killerLanes the messages that are
	// known to kill or block their worker.
	suspectLanes = 2
	killerLanes  = 4

	// returnLimit is how long isolated workers wait for a message whose time was up while they
	// loaded the code. It returns at once, with a new timeout; on a busy machine later.
	returnLimit = 10 * time.Second
)

func newIsolation(lanes int, cfg *Config) *isolation {
	i := &isolation{cfg: cfg, lanes: make(chan *worker.Worker, lanes), cohorts: make(map[*worker.Worker]*cohort)}
	for range lanes {
		i.lanes <- nil
	}
	return i
}

// readyWorkers returns the isolated workers that are ready.
func (i *isolation) readyWorkers() []*worker.Worker {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.workers)
}

// tryAlone tries a message alone until it has its own result, or until again returns false for
// the loss of the worker. Its error is a handlers.ErrRunAgain if the time of the message was up
// before a worker was ready. more is set if further messages follow soon, for which the worker stays.
func (i *isolation) tryAlone(ctx context.Context, try func(*worker.Worker) ([]byte, error), more bool, again func(*worker.Loss) bool) (output []byte, err error) {
	i.queued.Add(1)
	i.waiting.Add(1)
	defer i.waiting.Done()
	defer func() { i.leaveQueue(more || errors.Is(err, handlers.ErrRunAgain)) }()
	var w *worker.Worker
	select {
	case w = <-i.lanes:
	case <-ctx.Done():
		return nil, fmt.Errorf("its time was up before it could be tried alone: %w", handlers.ErrRunAgain)
	}
	defer func() { i.lanes <- w }()
	for {
		if w, err = i.ensureUsable(ctx, w); err != nil {
			return nil, err
		}
		renewTime(ctx)
		output, err = try(w)
		var lost *worker.Loss
		if !errors.As(err, &lost) {
			return output, err
		}
		if !again(lost) {
			return nil, lost.Err
		}
	}
}

// renewTime renews the time of a message that has waited for others.
func renewTime(ctx context.Context) {
	if attempt, is := ctx.(handlers.Renewable); is {
		attempt.Renew()
	}
}

// leaveQueue stops the isolated workers after the last message, later if it returns or others
// follow: otherwise it would never run if loading the code takes longer than its timeout.
func (i *isolation) leaveQueue(returns bool) {
	switch {
	case i.queued.Add(-1) > 0:
	case returns:
		time.AfterFunc(returnLimit, i.stopIdle)
	default:
		i.stopIdle()
	}
}

// stopIdle stops the isolated workers if there is no message for them.
func (i *isolation) stopIdle() {
	i.stopping.Lock()
	defer i.stopping.Unlock()
	if i.queued.Load() > 0 {
		return
	}
	for range cap(i.lanes) {
		select {
		case w := <-i.lanes:
			i.stopWorker(w)
			i.lanes <- nil
		default: // another message runs, and will be the last
			return
		}
	}
}

// stopWorker ends an isolated worker, if there is one, unless it becomes the spare worker.
func (i *isolation) stopWorker(w *worker.Worker) {
	if w == nil {
		return
	}
	i.mu.Lock()
	i.workers = slices.DeleteFunc(i.workers, func(other *worker.Worker) bool { return other == w })
	i.mu.Unlock()
	if i.cfg.ReturnSpare == nil || !i.cfg.ReturnSpare(w) {
		w.Stop()
	}
}

// startWorker takes the spare worker, or starts one.
func (i *isolation) startWorker() (*worker.Worker, error) {
	if i.cfg.TakeSpare != nil {
		if w := i.cfg.TakeSpare(); w != nil {
			i.cfg.Log.Debug("the spare worker runs messages whose worker died", "worker", w.Process.PID)
			return w, nil
		}
	}
	return i.cfg.Start()
}

// ensureUsable waits until a lane's worker is usable, and starts one if there is none. It returns
// the worker even with an error: if it is still loading the code when the time of a message is up,
// the next message uses it.
func (i *isolation) ensureUsable(ctx context.Context, w *worker.Worker) (*worker.Worker, error) {
	if w != nil && w.IsUsable() {
		return w, nil
	}
	if w == nil || w.IsFinished() {
		i.stopWorker(w)
		var err error
		if w, err = i.startWorker(); err != nil {
			return nil, err
		}
		i.mu.Lock()
		i.workers = append(i.workers, w)
		i.mu.Unlock()
	}
	limit := time.NewTimer(time.Until(w.Started.Add(i.cfg.StartTimeout)))
	defer limit.Stop()
	select {
	case <-w.Loaded:
		if w.Ready != nil {
			return w, nil
		}
		return w, &handlers.LoadError{Summary: w.Failed.Summary, Detail: w.Failed.Detail}
	case <-w.Gone:
		return w, errors.Join(w.Reason, handlers.ErrNotTried)
	case <-limit.C:
		err := fmt.Errorf("the code did not load within %v: %w", i.cfg.StartTimeout, handlers.ErrNotTried)
		w.Kill(process.CauseStart, err)
		return w, err
	case <-ctx.Done():
		return w, handlers.ErrRunAgain
	}
}

// waitIdle returns when no messages are being tried, and the isolated workers have ended.
func (i *isolation) waitIdle() {
	i.waiting.Wait()
	i.stopIdle()
}
