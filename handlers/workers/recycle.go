package workers

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/worker"
)

// Recycle sets limits after which a worker is replaced although it works, for code that leaks. A
// zero value is no limit. Each worker gets a random part of each limit, between nine tenths and
// the whole, so that workers that started together do not end together. One worker is replaced
// at a time. It gets messages until its replacement has loaded the code, so it may exceed
// its limit a little.
type Recycle struct {
	// MaxInvocations has no effect before a worker has lived for 0.5 s and ten times the time
	// to load the code: recycling may cost a tenth at most.
	MaxInvocations int
	// MaxMemory bounds anonymous memory, in bytes. Memory of files is not included: the
	// kernel reclaims it when necessary.
	MaxMemory uint64
	MaxAge    time.Duration
	// MaxIdle is how long it may be idle, once it has had a call.
	MaxIdle time.Duration
}

const (
	// jitter is the random part of a limit.
	jitter = 0.1
	// minLives is the minimum life of a worker, in multiples of the time to load the code.
	minLives = 10
	// minLife is the minimum life of a worker that loads in no time because it is forked: forking
	// and ending one takes about 10 ms of processor time.
	minLife = 500 * time.Millisecond
	// recycleEvery is the interval for checking age, memory and idleness.
	recycleEvery = time.Second
)

// needsTimer reports whether limits can be reached without a call.
func (r Recycle) needsTimer() bool { return r.MaxMemory > 0 || r.MaxAge > 0 || r.MaxIdle > 0 }

// member is a worker of a pool, with its counters for the limits.
type member struct {
	*worker.Worker
	mustReplace atomic.Bool // it must be replaced

	// Used by the reconciler only.
	stopping      bool // it is being stopped
	startRecorded bool // its start-up was recorded
	counters      recycleCounters
}

// newMember returns the record of a worker that was just started.
func newMember(w *worker.Worker, limits Recycle) *member {
	m := &member{Worker: w, counters: recycleCounters{limitShare: 1 - jitter*rand.Float64()}}
	if limit := m.counters.invocationLimit(limits); limit > 0 {
		w.NotifyAt(max(limit/2, 1))
	}
	return m
}

// recycleCounters are a worker's counters for the limits.
type recycleCounters struct {
	limitShare   float64 // the random part of each limit
	readyAt      time.Time
	lastCalls    int // calls at the last check
	idleSince    time.Time
	memoryReadAt time.Time // when its memory was read last
}

// invocationLimit returns the number of invocations that the worker may have.
func (c *recycleCounters) invocationLimit(r Recycle) int {
	if r.MaxInvocations == 0 {
		return 0
	}
	return max(int(c.limitShare*float64(r.MaxInvocations)), 1)
}

// recycler chooses the workers to be recycled, one after the other.
type recycler struct {
	limits    Recycle
	startUp   time.Duration // of a recent worker
	nextDue   time.Time     // when the next worker is old enough to be recycled; zero: none waits for it
	recycling *member       // being recycled; nil if none is
	cause     process.Cause
}

// limitReached returns the limit that a worker has reached; "" if none.
func (r *recycler) limitReached(m *member, now time.Time) process.Cause {
	taken, _ := m.CallCounts()
	cause, notifyAt := r.countReached(&m.counters, taken, now)
	if notifyAt > 0 {
		m.NotifyAt(notifyAt)
	}
	if cause != "" {
		return cause
	}
	cause = r.timeReached(&m.counters, taken, m.InFlight() > 0, now)
	switch {
	case m.mustReplace.Load():
		return process.CauseBlocked
	case cause != "":
		return cause
	case r.limits.MaxMemory > 0 && now.Sub(m.counters.memoryReadAt) >= recycleEvery:
		m.counters.memoryReadAt = now
		if float64(process.AnonymousMemory(m.Process.PID)) >= m.counters.limitShare*float64(r.limits.MaxMemory) {
			return process.CauseAnonymous
		}
	}
	return ""
}

// countReached checks the number of invocations, and returns the number at which to check again.
func (r *recycler) countReached(c *recycleCounters, taken int, now time.Time) (cause process.Cause, notifyAt int) {
	if r.limits.MaxInvocations == 0 {
		return "", 0
	}
	// The replacement must be ready when the worker reaches the limit.
	limit := c.invocationLimit(r.limits)
	left := limit - taken
	ahead := min(float64(limit)/2, float64(taken)*float64(r.startUp)/float64(max(now.Sub(c.readyAt), 1)))
	old := c.readyAt.Add(max(minLives*r.startUp, minLife))
	switch {
	case float64(left) > ahead:
		return "", max(taken+1, limit-int(ahead))
	case now.Before(old):
		if r.nextDue.IsZero() || old.Before(r.nextDue) {
			r.nextDue = old
		}
		return "", 0
	}
	return process.CauseInvocations, 0
}

// timeReached checks age and idleness.
func (r *recycler) timeReached(c *recycleCounters, taken int, busy bool, now time.Time) process.Cause {
	if taken != c.lastCalls || busy {
		c.lastCalls, c.idleSince = taken, now
	}
	scaled := func(limit time.Duration) time.Duration { return time.Duration(c.limitShare * float64(limit)) }
	switch {
	case r.limits.MaxAge > 0 && now.Sub(c.readyAt) >= scaled(r.limits.MaxAge):
		return process.CauseAge
	case r.limits.MaxIdle > 0 && taken > 0 && now.Sub(c.idleSince) >= scaled(r.limits.MaxIdle):
		return process.CauseIdle
	}
	return ""
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
