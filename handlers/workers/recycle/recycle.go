// Package recycle decides when a worker is replaced although it works: at limits, for code that leaks.
//
// A pool has one Counters for each worker, and checks them in one goroutine.
package recycle

import (
	"math/rand/v2"
	"time"

	"github.com/drover-run/drover/handlers/workers/process"
)

// Limits are the limits of each worker. A zero value is no limit. Each worker gets a random part of each
// limit, between nine tenths and the whole, so that workers that started together do not end together.
type Limits struct {
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
	// Every is the interval for checking age, memory and idleness.
	Every = time.Second
)

// NeedsTimer reports whether limits can be reached without a call.
func (l Limits) NeedsTimer() bool { return l.MaxMemory > 0 || l.MaxAge > 0 || l.MaxIdle > 0 }

// Counters are a worker's counters for the limits.
type Counters struct {
	limitShare   float64 // the random part of each limit
	readyAt      time.Time
	lastCalls    int // calls at the last check
	idleSince    time.Time
	memoryReadAt time.Time // when its memory was read last
}

// NewCounters returns the counters of a worker that was just started.
func NewCounters() Counters { return Counters{limitShare: 1 - jitter*rand.Float64()} }

// SetReady records that the worker has loaded the code.
func (c *Counters) SetReady(now time.Time) { c.readyAt, c.idleSince = now, now }

// FirstCheck returns the number of calls at which Check is called first; 0 if calls have no limit.
func (c *Counters) FirstCheck(l Limits) int {
	if limit := c.invocationLimit(l); limit > 0 {
		return max(limit/2, 1)
	}
	return 0
}

// invocationLimit returns the number of invocations that the worker may have.
func (c *Counters) invocationLimit(l Limits) int {
	if l.MaxInvocations == 0 {
		return 0
	}
	return max(int(c.limitShare*float64(l.MaxInvocations)), 1)
}

// Use is the state of a worker at a check.
type Use struct {
	Calls   int  // that it has taken
	Busy    bool // calls are in flight
	PID     int
	StartUp time.Duration // how long a recent worker took to load the code
}

// Next is when a worker must be checked again, beside Every; a zero value is no such time.
type Next struct {
	Calls int // the number of its calls
	At    time.Time
}

// Check returns the limit that a worker has reached, "" if none, and when to check again.
func (c *Counters) Check(l Limits, u Use, now time.Time) (cause process.Cause, next Next) {
	cause, next = c.countReached(l, u, now)
	if byTime := c.timeReached(l, u, now); cause == "" {
		cause = byTime
	}
	if cause == "" && l.MaxMemory > 0 && now.Sub(c.memoryReadAt) >= Every {
		c.memoryReadAt = now
		if float64(process.AnonymousMemory(u.PID)) >= c.limitShare*float64(l.MaxMemory) {
			cause = process.CauseAnonymous
		}
	}
	return cause, next
}

// countReached checks the number of invocations.
func (c *Counters) countReached(l Limits, u Use, now time.Time) (cause process.Cause, next Next) {
	if l.MaxInvocations == 0 {
		return "", next
	}
	// The replacement must be ready when the worker reaches the limit.
	limit := c.invocationLimit(l)
	left := limit - u.Calls
	ahead := min(float64(limit)/2, float64(u.Calls)*float64(u.StartUp)/float64(max(now.Sub(c.readyAt), 1)))
	old := c.readyAt.Add(max(minLives*u.StartUp, minLife))
	switch {
	case float64(left) > ahead:
		return "", Next{Calls: max(u.Calls+1, limit-int(ahead))}
	case now.Before(old):
		return "", Next{At: old}
	}
	return process.CauseInvocations, next
}

// timeReached checks age and idleness.
func (c *Counters) timeReached(l Limits, u Use, now time.Time) process.Cause {
	if u.Calls != c.lastCalls || u.Busy {
		c.lastCalls, c.idleSince = u.Calls, now
	}
	scaled := func(limit time.Duration) time.Duration { return time.Duration(c.limitShare * float64(limit)) }
	switch {
	case l.MaxAge > 0 && now.Sub(c.readyAt) >= scaled(l.MaxAge):
		return process.CauseAge
	case l.MaxIdle > 0 && u.Calls > 0 && now.Sub(c.idleSince) >= scaled(l.MaxIdle):
		return process.CauseIdle
	}
	return ""
}
