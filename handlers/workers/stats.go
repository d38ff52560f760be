package workers

import (
	"maps"
	"slices"
	"time"
)

// Stats is the state of a pool.
type Stats struct {
	Wanted   int // see Scale
	Ready    int // workers that take messages
	Starting int
	Retiring int // workers that take no more, and end when they have finished
	// Restarts counts the workers that were started in place of others, by what
	// became of those.
	Restarts map[Cause]int
	InFlight int
	// Apart are the workers of functions that are kept apart; the numbers above, but
	// for Restarts and InFlight, are without them.
	Apart int
	PIDs  []int // of the ready workers
	// StartUp is how long a worker took to load the code, lately.
	StartUp time.Duration
	// Template says that workers are forked, Forkable that they could be, and
	// Unforked why they are not though the configuration says so.
	Template, Forkable bool
	Unforked           string
}

// Cause is what became of a worker that was replaced.
type Cause string

// The causes.
const (
	CauseExit     Cause = "exit"          // it ended, with whatever status
	CauseSignal   Cause = "signal"        // a signal killed it
	CauseMemory   Cause = "oom_suspect"   // SIGKILL, and not from us: out of memory, mostly
	CauseOOM      Cause = "oom"           // it came to its limit of memory, and the kernel killed it
	CauseFiles    Cause = "temporary"     // its temporary directory held too much, and it was killed
	CauseConfine  Cause = "confine"       // what it is to be held to could not be put in force
	CauseProtocol Cause = "protocol"      // it broke the protocol, and was killed
	CauseTimeout  Cause = "timeout"       // a call did not end when told to, and it was killed
	CauseHung     Cause = "hung"          // it was stopped or hung in the kernel, and was killed
	CauseStart    Cause = "start_timeout" // the code did not load in time
	CauseReaper   Cause = "reaper"        // the reaper died, and all of its processes were killed

	// It was recycled, as it came to a limit.
	CauseInvocations Cause = "max_invocations"
	CauseAnonymous   Cause = "max_memory"
	CauseAge         Cause = "max_age"
	CauseIdle        Cause = "max_idle"

	// It had calls of a function that is kept apart from now on.
	CauseBlocked Cause = "blocked"
	// It ran calls under settings that were undone since calls failed.
	CauseUndone Cause = "undone"
)

// Causes are all of them.
var Causes = []Cause{
	CauseExit, CauseSignal, CauseMemory, CauseOOM, CauseFiles, CauseConfine, CauseProtocol, CauseTimeout, CauseHung, CauseStart, CauseReaper,
	CauseInvocations, CauseAnonymous, CauseAge, CauseIdle, CauseBlocked, CauseUndone,
}

// Recycled reports whether nothing was wrong with the worker.
func (c Cause) Recycled() bool {
	return slices.Contains([]Cause{CauseInvocations, CauseAnonymous, CauseAge, CauseIdle, CauseBlocked, CauseUndone}, c)
}

// count counts a worker that was started in place of another.
func (p *Pool) count(why Cause) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.restarts[why]++
}

// Stats reports on the pool.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Stats{Restarts: maps.Clone(p.restarts), Wanted: p.wanted, StartUp: p.startUp, Template: p.template != nil, Forkable: p.forkable, Unforked: p.unforked}
	for _, w := range p.workers {
		switch {
		case w.usable():
			s.Ready++
			s.PIDs = append(s.PIDs, w.process.pid)
		case w.retiring.Load():
			s.Retiring++
		default:
			s.Starting++
			continue
		}
		s.InFlight += int(w.inFlight.Load())
	}
	for _, a := range p.apart() {
		own := a.pool.Stats()
		s.Apart += own.Ready + own.Starting
		s.InFlight += own.InFlight
		for cause, n := range own.Restarts {
			s.Restarts[cause] += n
		}
	}
	return s
}
