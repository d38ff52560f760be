package workers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/worker"
)

// roster has the workers of a pool, and their target number. Only the reconciler changes the
// workers; any caller changes the target. Calls wait in it for a worker.
type roster struct {
	code    *code
	wakeups chan struct{} // for the reconciler: the state may have changed
	waiting atomic.Int64  // calls that wait for a worker

	mu       sync.Mutex
	members  []*member // started, and not known to have ended
	wanted   int
	ended    bool
	changed  chan struct{} // closed and replaced when any of the above, or the code, changes
	restarts map[process.Cause]int
	startUp  time.Duration // of a recent worker; 0 until one was ready
}

var errEnded = errors.New("the pool has ended")

// wakeReconciler makes the reconciler take a step.
func (r *roster) wakeReconciler() {
	select {
	case r.wakeups <- struct{}{}:
	default:
	}
}

// wakeCallers wakes the calls that wait for a worker.
func (r *roster) wakeCallers() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wakeCallersLocked()
}

func (r *roster) wakeCallersLocked() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// snapshot returns the workers, in a slice that does not change, and their target number.
func (r *roster) snapshot() (members []*member, wanted int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.members, r.wanted
}

// setMembers sets the workers.
func (r *roster) setMembers(members []*member) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.members = members
	r.wakeCallersLocked()
}

// setWanted sets the target number of workers.
func (r *roster) setWanted(n int) {
	r.mu.Lock()
	changed := r.wanted != n
	r.wanted = n
	r.mu.Unlock()
	if changed {
		r.wakeReconciler()
	}
}

// leastBusy returns the worker with the fewest calls in flight. If no worker is usable, best is nil,
// and err is the reason if none will be. Without err, a worker is started even if the target is 0,
// and the caller calls again when changed is closed.
func (r *roster) leastBusy() (best *worker.Worker, changed <-chan struct{}, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var least int64
	for _, m := range r.members {
		if !m.IsUsable() {
			continue
		}
		if n := m.InFlight(); best == nil || n < least {
			best, least = m.Worker, n
		}
	}
	if best != nil {
		return best, nil, nil
	}
	if failure := r.code.loadFailure(); failure != nil {
		return nil, nil, failure
	}
	if r.ended {
		return nil, nil, fmt.Errorf("%w: %w", errEnded, handlers.ErrNotTried)
	}
	if r.wanted == 0 {
		r.wanted = 1
		r.wakeReconciler()
	}
	return nil, r.changed, nil
}

// pickWorker waits for a worker.
func (r *roster) pickWorker(ctx context.Context) (*worker.Worker, error) {
	r.waiting.Add(1)
	defer r.waiting.Add(-1)
	for {
		w, changed, err := r.leastBusy()
		if w != nil || err != nil {
			return w, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("no worker became free: %w", handlers.ErrNotTried)
		}
	}
}

// markEnded ends the wait of all calls, and returns the workers.
func (r *roster) markEnded() []*member {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	r.wakeCallersLocked()
	return r.members
}

func (r *roster) hasEnded() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended
}

// isSettled reports whether the target number of workers is ready, and none is retiring.
func (r *roster) isSettled() bool {
	s := r.stats()
	return s.Ready >= s.Wanted && s.Retiring == 0
}

// countRestart counts a worker that was started to replace another.
func (r *roster) countRestart(why process.Cause) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.restarts[why]++
}

// recordStartUp records how long a worker took to load the code.
func (r *roster) recordStartUp(took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.startUp = took
}

// Stats is the state of a pool.
type Stats struct {
	Wanted   int // see Scale
	Ready    int // workers that take messages
	Starting int
	Retiring int // workers that get no more calls, and end when theirs have finished
	// Restarts counts the workers started as replacements, by what happened to the replaced
	// ones.
	Restarts map[process.Cause]int
	InFlight int
	// Quarantined counts the workers of quarantined functions. The other numbers, except for
	// Restarts and InFlight, do not include them.
	Quarantined int
	// Spare is 1 if a spare worker has loaded the code; Ready does not include it.
	Spare int
	PIDs  []int // of the ready workers
	// Outdated counts the ready workers that will be replaced, because their share of the cores has changed.
	Outdated int
	// StartUp is how long a recent worker took to load the code.
	StartUp time.Duration
	// Template is set if workers are forked, and Forkable if they could be. Unforked is why
	// they are not although the configuration requests it.
	Template, Forkable bool
	Unforked           string
}

// stats returns the part of Stats about the pool's own workers.
func (r *roster) stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Stats{Restarts: maps.Clone(r.restarts), Wanted: r.wanted, StartUp: r.startUp}
	for _, m := range r.members {
		switch {
		case m.IsUsable():
			s.Ready++
			s.PIDs = append(s.PIDs, m.Process.PID)
		case m.IsRetiring():
			s.Retiring++
		default:
			s.Starting++
			continue
		}
		s.InFlight += int(m.InFlight())
	}
	return s
}
