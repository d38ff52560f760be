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

// roster is which workers a pool has, and how many it is to have. The reconciler changes
// the first, anybody the second; calls wait in it for a worker.
type roster struct {
	code    *code
	nudges  chan struct{} // for the reconciler: something may have changed
	waiting atomic.Int64  // calls that wait for a worker

	mu       sync.Mutex
	members  []*member // those that were started and that are not known to be gone
	wanted   int
	ended    bool
	changed  chan struct{} // closed and replaced when any of the above, or the code, changes
	restarts map[process.Cause]int
	startUp  time.Duration // of the workers, lately; 0 until one was ready
}

var errEnded = errors.New("the pool has ended")

// nudge has the reconciler take a step.
func (r *roster) nudge() {
	select {
	case r.nudges <- struct{}{}:
	default:
	}
}

// announce wakes the calls that wait for a worker.
func (r *roster) announce() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.announceLocked()
}

func (r *roster) announceLocked() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// snapshot returns the workers, in a slice that does not change, and how many are wanted.
func (r *roster) snapshot() (members []*member, wanted int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.members, r.wanted
}

// replace sets the workers.
func (r *roster) replace(members []*member) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.members = members
	r.announceLocked()
}

// want sets how many workers are wanted.
func (r *roster) want(n int) {
	r.mu.Lock()
	changed := r.wanted != n
	r.wanted = n
	r.mu.Unlock()
	if changed {
		r.nudge()
	}
}

// leastBusy returns the worker with the least in flight. If there is none it is nil, and
// the error says why there will be none; without one, changed is closed when it is time to
// ask again, and a worker is started even if none is wanted.
func (r *roster) leastBusy() (best *worker.Worker, changed <-chan struct{}, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var least int64
	for _, m := range r.members {
		if !m.Usable() {
			continue
		}
		if n := m.InFlight(); best == nil || n < least {
			best, least = m.Worker, n
		}
	}
	if best != nil {
		return best, nil, nil
	}
	if failure := r.code.failure(); failure != nil {
		return nil, nil, failure
	}
	if r.ended {
		return nil, nil, fmt.Errorf("%w: %w", errEnded, handlers.ErrNotTried)
	}
	if r.wanted == 0 {
		r.wanted = 1
		r.nudge()
	}
	return nil, r.changed, nil
}

// pick waits for a worker.
func (r *roster) pick(ctx context.Context) (*worker.Worker, error) {
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

// markEnded has no call wait any more, and returns the workers.
func (r *roster) markEnded() []*member {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	r.announceLocked()
	return r.members
}

func (r *roster) hasEnded() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended
}

// settled reports whether as many workers are ready as are wanted, and none retires.
func (r *roster) settled() bool {
	s := r.stats()
	return s.Ready >= s.Wanted && s.Retiring == 0
}

// countRestart counts a worker that was started in place of another.
func (r *roster) countRestart(why process.Cause) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.restarts[why]++
}

// noteStartUp remembers how long a worker took to load the code.
func (r *roster) noteStartUp(took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.startUp = took
}

// Stats is the state of a pool.
type Stats struct {
	Wanted   int // see Scale
	Ready    int // workers that take messages
	Starting int
	Retiring int // workers that take no more, and end when they have finished
	// Restarts counts the workers that were started in place of others, by what
	// became of those.
	Restarts map[process.Cause]int
	InFlight int
	// Quarantined are the workers of functions that are quarantined; the numbers above, but
	// for Restarts and InFlight, are without them.
	Quarantined int
	PIDs        []int // of the ready workers
	// StartUp is how long a worker took to load the code, lately.
	StartUp time.Duration
	// Template says that workers are forked, Forkable that they could be, and
	// Unforked why they are not though the configuration says so.
	Template, Forkable bool
	Unforked           string
}

// stats returns what Stats has of the pool's own workers.
func (r *roster) stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Stats{Restarts: maps.Clone(r.restarts), Wanted: r.wanted, StartUp: r.startUp}
	for _, m := range r.members {
		switch {
		case m.Usable():
			s.Ready++
			s.PIDs = append(s.PIDs, m.Process.PID)
		case m.Retiring():
			s.Retiring++
		default:
			s.Starting++
			continue
		}
		s.InFlight += int(m.InFlight())
	}
	return s
}
