// Package spare keeps one worker of a pool in reserve: it has loaded the code, and is idle. When
// another worker dies, it takes over at once, while the replacement starts.
//
// A pool has one Keeper. One goroutine, the pool's reconciler, calls Step and Stop. The other
// methods may be called from any goroutine.
package spare

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/worker"
)

const (
	// defaultAfter is the default of Config.After.
	defaultAfter = 10 * time.Second
	// checkMemoryEvery is how often Config.Fits is called.
	checkMemoryEvery = 30 * time.Second
	// A spare worker that dies, or does not load the code, is replaced after minDelay, and later and later
	// up to maxDelay. One that has lived for healthy starts the series again.
	minDelay = time.Second
	maxDelay = 5 * time.Minute
	healthy  = time.Minute
)

// Config configures a Keeper.
type Config struct {
	// Start starts a worker, which then loads the code.
	Start func() (*worker.Worker, error)
	// StartTimeout bounds the loading of the code.
	StartTimeout time.Duration
	// After is how long the pool must have had all of its workers before the spare one starts: it
	// must not compete with them, and a pool that ends soon needs none. The default is ten seconds.
	After time.Duration
	// Fits reports whether memory allows a spare worker. It gets the memory of a worker in bytes, and
	// is called by Step only. If it is nil, there is always a spare worker.
	Fits func(memory uint64) bool
	// Changed is called when Step should be called again.
	Changed func()
	Log     *slog.Logger
}

// Keeper keeps the spare worker of a pool. A nil Keeper never has one.
type Keeper struct {
	cfg      Config
	backoff  *backoff.ExponentialBackOff
	stopping sync.WaitGroup

	mu          sync.Mutex
	spare       *worker.Worker // nil if there is none
	wanted      bool           // the pool can use one
	ended       bool
	settledAt   time.Time // since when the pool has all of its workers; zero: it has not
	nextStart   time.Time // no spare worker is started before this time
	memoryCheck time.Time // when Fits is called next
	refused     bool      // memory did not allow one the last time
}

// New returns a Keeper without a spare worker.
func New(cfg Config) *Keeper {
	if cfg.After <= 0 {
		cfg.After = defaultAfter
	}
	return &Keeper{cfg: cfg, backoff: backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(minDelay), backoff.WithMaxInterval(maxDelay), backoff.WithMaxElapsedTime(0))}
}

// Pool is the state of the pool at a Step.
type Pool struct {
	Wanted  bool  // it can use a spare worker
	Settled bool  // it has all of its workers
	PIDs    []int // of those that are ready; the spare worker is expected to need as much memory as the largest
}

// Step starts the spare worker if it is missing and due, and stops it if it is not wanted or memory
// is short. It returns when it must be called again at the latest; zero: when something changes.
func (k *Keeper) Step(now time.Time, p Pool) (next time.Time) {
	if k == nil {
		return time.Time{}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.wanted = p.Wanted && !k.ended
	k.checkSpare(now)
	switch {
	case !k.wanted:
		k.dropSpare()
		k.settledAt = time.Time{}
		return time.Time{}
	case k.spare != nil && !isLoaded(k.spare):
		return k.spare.Started.Add(k.cfg.StartTimeout)
	case k.spare != nil:
		if k.cfg.Fits == nil {
			return time.Time{}
		}
		if !now.Before(k.memoryCheck) && !k.fits(now, p) {
			k.dropSpare()
		}
		return k.memoryCheck
	case !p.Settled:
		k.settledAt = time.Time{}
		return time.Time{}
	}
	if k.settledAt.IsZero() {
		k.settledAt = now
	}
	due := k.settledAt.Add(k.cfg.After)
	if k.nextStart.After(due) {
		due = k.nextStart
	}
	if k.refused && k.memoryCheck.After(due) {
		due = k.memoryCheck
	}
	if now.Before(due) {
		return due
	}
	if k.cfg.Fits != nil && !k.fits(now, p) {
		return k.memoryCheck
	}
	var err error
	if k.spare, err = k.cfg.Start(); err != nil {
		k.spare = nil
		k.delayStart(now, "cannot start the spare worker; will try again", err)
		return k.nextStart
	}
	return k.spare.Started.Add(k.cfg.StartTimeout)
}

// fits asks whether memory allows a spare worker, and logs when that changes.
func (k *Keeper) fits(now time.Time, p Pool) bool {
	k.memoryCheck = now.Add(checkMemoryEvery)
	memory := uint64(0)
	for _, pid := range p.PIDs {
		memory = max(memory, process.AnonymousMemory(pid))
	}
	refused := !k.cfg.Fits(memory)
	if refused && !k.refused {
		k.cfg.Log.Info("no spare worker: memory is short", "worker_bytes", memory)
	}
	k.refused = refused
	return !refused
}

// checkSpare finds out whether the spare worker still lives and has loaded the code. k.mu is held.
func (k *Keeper) checkSpare(now time.Time) {
	w := k.spare
	if w == nil {
		return
	}
	select {
	case <-w.Gone:
		k.spare = nil
		if now.Sub(w.Started) > healthy {
			k.backoff.Reset()
		}
		k.stopping.Go(w.Wait)
		k.delayStart(now, "the spare worker died; it will be replaced", w.Reason)
		return
	default:
	}
	switch {
	case isLoaded(w) && w.Ready == nil:
		k.dropSpare()
		k.delayStart(now, "the spare worker did not load the code; the pool's workers continue", errors.New(w.Failed.Summary))
	case w.IsRetiring():
		k.dropSpare() // it has requested its replacement
	case !isLoaded(w) && now.Sub(w.Started) >= k.cfg.StartTimeout:
		w.Kill(process.CauseStart, fmt.Errorf("the code did not load within %v", k.cfg.StartTimeout))
	}
}

// delayStart delays the next start. k.mu is held.
func (k *Keeper) delayStart(now time.Time, what string, why error) {
	delay := k.backoff.NextBackOff()
	k.nextStart = now.Add(delay)
	k.cfg.Log.Warn(what, "error", why, "in", delay.Round(time.Millisecond))
}

// dropSpare stops the spare worker, if there is one. k.mu is held.
func (k *Keeper) dropSpare() {
	if w := k.spare; w != nil {
		k.spare = nil
		k.stopping.Go(w.Stop)
	}
}

// isLoaded reports whether a worker has answered LOAD.
func isLoaded(w *worker.Worker) bool {
	select {
	case <-w.Loaded:
		return true
	default:
		return false
	}
}

// Take removes the spare worker and returns it; nil if there is none. It may still load the code.
func (k *Keeper) Take() *worker.Worker {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	w := k.spare
	if w == nil || w.IsFinished() || isLoaded(w) && w.Ready == nil {
		return nil
	}
	k.spare, k.settledAt = nil, time.Time{}
	w.ApplySettings() // they may have changed since it started
	k.cfg.Changed()
	return w
}

// Return makes an idle worker the spare one. It reports false if the pool has no use for it, and the
// caller then stops the worker.
func (k *Keeper) Return(w *worker.Worker) (kept bool) {
	if k == nil {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.wanted || k.ended || k.spare != nil || !w.IsUsable() || w.InFlight() > 0 {
		return false
	}
	k.spare = w
	k.cfg.Changed()
	return true
}

// Drop stops the spare worker if which returns true for it. Another starts later. which must not call the
// Keeper.
func (k *Keeper) Drop(which func(*worker.Worker) bool) {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.spare == nil || !which(k.spare) {
		return
	}
	k.dropSpare()
	k.settledAt = time.Time{}
	k.cfg.Changed()
}

// IsReady reports whether there is a spare worker that has loaded the code.
func (k *Keeper) IsReady() bool {
	if k == nil {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.spare != nil && k.spare.IsUsable()
}

// Stop stops the spare worker, and returns when it has ended. Afterwards there is none.
func (k *Keeper) Stop() {
	if k == nil {
		return
	}
	k.mu.Lock()
	k.ended, k.wanted = true, false
	k.dropSpare()
	k.mu.Unlock()
	k.stopping.Wait()
}
