package workers

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/worker"
)

// Recycle says when a worker is replaced though nothing is wrong with it, for code
// that leaks. Zero values are never. Of each limit a worker is given between nine
// tenths and the whole, by chance, so that workers that started together do not end
// together. One is replaced at a time, and takes messages until the one in its place
// has loaded the code; so it may do a little more than its limit says.
type Recycle struct {
	// MaxInvocations is not obeyed before a worker has lived 0.5 s, and ten times as
	// long as one takes to load the code: recycling is to cost a tenth at most.
	MaxInvocations int
	// MaxMemory is of anonymous memory, in bytes: what it has read of files is not
	// its own, and the kernel takes that back when it needs to.
	MaxMemory uint64
	MaxAge    time.Duration
	// MaxIdle is how long it may have nothing to do, once it had something.
	MaxIdle time.Duration
}

const (
	// jitter is the part of a limit that is left to chance.
	jitter = 0.1
	// minLives is how many times as long as one takes to load the code a worker
	// lives at least, whatever it has done.
	minLives = 10
	// minLife is the same where that is nothing, since it is forked: to fork one, and
	// to end one, is about 10 ms of processor time.
	minLife = 500 * time.Millisecond
	// recycleEvery is how often age, memory and idleness are looked at.
	recycleEvery = time.Second
)

// timed reports whether limits can be reached without a call.
func (r Recycle) timed() bool { return r.MaxMemory > 0 || r.MaxAge > 0 || r.MaxIdle > 0 }

// member is a worker of a pool, and what is known of it against the limits.
type member struct {
	*worker.Worker
	unwanted atomic.Bool // it is to be replaced

	// The reconciler's.
	leaving  bool // it is being stopped
	noted    bool // its start-up was
	counters recycleCounters
}

// newMember returns the record of a worker that was just started.
func newMember(w *worker.Worker, limits Recycle) *member {
	m := &member{Worker: w, counters: recycleCounters{share: 1 - jitter*rand.Float64()}}
	if limit := m.counters.limit(limits); limit > 0 {
		w.NotifyAt(max(limit/2, 1))
	}
	return m
}

// recycleCounters are what a worker has done, against the limits.
type recycleCounters struct {
	share   float64 // of each limit
	readied time.Time
	seen    int // calls, when they were read last
	quiet   time.Time
	weighed time.Time // when its memory was read
}

// limit is how many invocations the worker is given.
func (c *recycleCounters) limit(r Recycle) int {
	if r.MaxInvocations == 0 {
		return 0
	}
	return max(int(c.share*float64(r.MaxInvocations)), 1)
}

// recycler chooses the workers to be recycled, one after the other.
type recycler struct {
	limits  Recycle
	startUp time.Duration // of a worker, lately
	again   time.Time     // when one is old enough to be recycled; zero: none waits for it
	old     *member       // that is being recycled; nil if none is
	cause   process.Cause
}

// limitReached returns which of the limits a worker has reached; "" if none.
func (r *recycler) limitReached(m *member, now time.Time) process.Cause {
	taken, _ := m.Calls()
	cause, notifyAt := r.countReached(&m.counters, taken, now)
	if notifyAt > 0 {
		m.NotifyAt(notifyAt)
	}
	if cause != "" {
		return cause
	}
	cause = r.timeReached(&m.counters, taken, m.InFlight() > 0, now)
	switch {
	case m.unwanted.Load():
		return process.CauseBlocked
	case cause != "":
		return cause
	case r.limits.MaxMemory > 0 && now.Sub(m.counters.weighed) >= recycleEvery:
		m.counters.weighed = now
		if float64(process.AnonymousMemory(m.Process.PID)) >= m.counters.share*float64(r.limits.MaxMemory) {
			return process.CauseAnonymous
		}
	}
	return ""
}

// countReached checks the number of invocations, and returns at how many to do so again.
func (r *recycler) countReached(c *recycleCounters, taken int, now time.Time) (cause process.Cause, notifyAt int) {
	if r.limits.MaxInvocations == 0 {
		return "", 0
	}
	// The replacement is to be ready when the worker comes to the limit.
	limit := c.limit(r.limits)
	left := limit - taken
	ahead := min(float64(limit)/2, float64(taken)*float64(r.startUp)/float64(max(now.Sub(c.readied), 1)))
	old := c.readied.Add(max(minLives*r.startUp, minLife))
	switch {
	case float64(left) > ahead:
		return "", max(taken+1, limit-int(ahead))
	case now.Before(old):
		if r.again.IsZero() || old.Before(r.again) {
			r.again = old
		}
		return "", 0
	}
	return process.CauseInvocations, 0
}

// timeReached checks age and idleness.
func (r *recycler) timeReached(c *recycleCounters, taken int, busy bool, now time.Time) process.Cause {
	if taken != c.seen || busy {
		c.seen, c.quiet = taken, now
	}
	scaled := func(limit time.Duration) time.Duration { return time.Duration(c.share * float64(limit)) }
	switch {
	case r.limits.MaxAge > 0 && now.Sub(c.readied) >= scaled(r.limits.MaxAge):
		return process.CauseAge
	case r.limits.MaxIdle > 0 && taken > 0 && now.Sub(c.quiet) >= scaled(r.limits.MaxIdle):
		return process.CauseIdle
	}
	return ""
}

// choose chooses a worker to be recycled, unless one is being recycled. It returns how many
// workers there are to be, and the worker that is to take no more calls, when the others are
// as many as are wanted: cause is why.
func (r *recycler) choose(members []*member, wanted int) (target int, replaced *member) {
	now := time.Now()
	usable, due, why := 0, (*member)(nil), process.Cause("")
	stays := false
	for _, m := range members {
		if !m.Usable() {
			continue
		}
		if m == r.old {
			stays = true
			continue
		}
		usable++
		if r.old == nil && due == nil {
			if why = r.limitReached(m, now); why != "" {
				due = m
			}
		}
	}
	if !stays {
		r.old = nil
	}
	if due != nil {
		usable--
		r.old, r.cause = due, why
	}
	if r.old == nil {
		return wanted, nil
	}
	if usable < wanted {
		return wanted + 1, nil
	}
	replaced, r.old = r.old, nil
	return wanted, replaced
}
