package suspects

import (
	"context"
	"fmt"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/worker"
)

// cohort is the calls that were in flight in a worker when it was killed from outside. They run again
// together, since perhaps none of them is at fault. The cohort uses one lane of its isolation.
type cohort struct {
	members int           // that run or wait; guarded by the isolation's mu
	leave   func()        // called when there are none left
	ready   chan struct{} // closed when worker or err is set
	worker  *worker.Worker
	err     error
}

// tryCohort tries a message together with the others of a lost worker. Its error is a
// handlers.ErrRunAgain if the time of the message was up before an isolated worker was ready.
func (i *isolation) tryCohort(ctx context.Context, lost *worker.Worker, try func(*worker.Worker) ([]byte, error)) ([]byte, error) {
	c := i.joinCohort(lost)
	defer i.leaveCohort(lost, c)
	select {
	case <-c.ready:
	case <-ctx.Done():
		return nil, fmt.Errorf("its time was up before it could be tried again: %w", handlers.ErrRunAgain)
	}
	if c.err != nil {
		return nil, c.err
	}
	renewTime(ctx)
	return try(c.worker)
}

// joinCohort adds a message to the cohort of a lost worker. The first one creates it.
func (i *isolation) joinCohort(lost *worker.Worker) *cohort {
	i.mu.Lock()
	defer i.mu.Unlock()
	c := i.cohorts[lost]
	if c == nil {
		ctx, cancel := context.WithCancel(context.Background())
		c = &cohort{leave: cancel, ready: make(chan struct{})}
		i.cohorts[lost] = c
		i.queued.Add(1)
		i.waiting.Go(func() { i.holdLane(ctx, c) })
	}
	c.members++
	return c
}

func (i *isolation) leaveCohort(lost *worker.Worker, c *cohort) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if c.members--; c.members == 0 {
		delete(i.cohorts, lost) // one that comes later gets a cohort of its own
		c.leave()
	}
}

// holdLane takes a lane for a cohort, and keeps it until ctx ends, when all members have left.
func (i *isolation) holdLane(ctx context.Context, c *cohort) {
	defer i.leaveQueue(false)
	var w *worker.Worker
	select {
	case w = <-i.lanes:
	case <-ctx.Done():
		return
	}
	w, c.err = i.ensureUsable(ctx, w)
	c.worker = w
	close(c.ready)
	<-ctx.Done()
	i.lanes <- w
}
