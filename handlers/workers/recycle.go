package workers

import (
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/recycle"
	"github.com/drover-run/drover/handlers/workers/worker"
)

// Recycle sets limits after which a worker is replaced although it works, for code that leaks. One
// worker is replaced at a time. It gets messages until its replacement has loaded the code, so it
// may exceed its limit a little.
type Recycle = recycle.Limits

// member is a worker of a pool, with its counters for the limits.
type member struct {
	*worker.Worker
	mustReplace atomic.Bool // it must be replaced

	// Used by the reconciler only.
	stopping      bool // it is being stopped
	startRecorded bool // its start-up was recorded
	counters      recycle.Counters
}

// newMember returns the record of a worker that was just started.
func newMember(w *worker.Worker, limits Recycle) *member {
	m := &member{Worker: w, counters: recycle.NewCounters()}
	if n := m.counters.FirstCheck(limits); n > 0 {
		w.NotifyAt(n)
	}
	return m
}

// recycler chooses the workers to be recycled, one after the other.
type recycler struct {
	limits    Recycle
	outdated  func(*worker.Worker) bool // reports that its share of the cores has changed
	startUp   time.Duration             // of a recent worker
	nextDue   time.Time                 // when the next worker is old enough to be recycled; zero: none waits for it
	recycling *member                   // being recycled; nil if none is
	cause     process.Cause
}

// limitReached returns why a worker must be replaced; "" if it need not.
func (r *recycler) limitReached(m *member, now time.Time) process.Cause {
	taken, _ := m.CallCounts()
	cause, next := m.counters.Check(r.limits, recycle.Use{Calls: taken, Busy: m.InFlight() > 0, PID: m.Process.PID, StartUp: r.startUp}, now)
	if next.Calls > 0 {
		m.NotifyAt(next.Calls)
	}
	if !next.At.IsZero() && (r.nextDue.IsZero() || next.At.Before(r.nextDue)) {
		r.nextDue = next.At
	}
	switch {
	case m.mustReplace.Load():
		return process.CauseBlocked
	case r.outdated(m.Worker):
		return process.CauseCoreShare
	}
	return cause
}

// chooseWorker chooses a worker to be recycled, unless one is being recycled. It returns the number
// of workers to run. Once enough others are ready, replaced is the worker to retire, and r.cause is
// the reason.
func (r *recycler) chooseWorker(members []*member, wanted int) (target int, replaced *member) {
	now := time.Now()
	usable, due, why := 0, (*member)(nil), process.Cause("")
	stays := false
	for _, m := range members {
		if !m.IsUsable() {
			continue
		}
		if m == r.recycling {
			stays = true
			continue
		}
		usable++
		if r.recycling == nil && due == nil {
			if why = r.limitReached(m, now); why != "" {
				due = m
			}
		}
	}
	if !stays {
		r.recycling = nil
	}
	if due != nil {
		usable--
		r.recycling, r.cause = due, why
	}
	if r.recycling == nil {
		return wanted, nil
	}
	if usable < wanted {
		return wanted + 1, nil
	}
	replaced, r.recycling = r.recycling, nil
	return wanted, replaced
}
