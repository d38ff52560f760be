package process

import "slices"

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
	CauseTimeout  Cause = "timeout"       // a call ignored its cancellation, and it was killed
	CauseHung     Cause = "hung"          // it was stopped or hung in the kernel, and was killed
	CauseStart    Cause = "start_timeout" // the code did not load in time
	CauseReaper   Cause = "reaper"        // the reaper died, and all of its processes were killed

	// It was recycled, as it came to a limit.
	CauseInvocations Cause = "max_invocations"
	CauseAnonymous   Cause = "max_memory"
	CauseAge         Cause = "max_age"
	CauseIdle        Cause = "max_idle"

	// It had calls of a function that was quarantined.
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
