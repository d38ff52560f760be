package process

import "slices"

// Cause is the reason why a worker was replaced.
type Cause string

// The causes.
const (
	CauseExit     Cause = "exit"          // it ended, with any status
	CauseSignal   Cause = "signal"        // a signal killed it
	CauseMemory   Cause = "oom_suspect"   // a SIGKILL that drover did not send: usually out of memory
	CauseOOM      Cause = "oom"           // it reached its memory limit, and the kernel killed it
	CauseFiles    Cause = "temporary"     // its temporary directory became too large, and it was killed
	CauseConfine  Cause = "confine"       // its confinement could not be put in force
	CauseProtocol Cause = "protocol"      // it broke the protocol, and was killed
	CauseTimeout  Cause = "timeout"       // a call ignored its cancellation, and it was killed
	CauseHung     Cause = "hung"          // it was stopped or hung in the kernel, and was killed
	CauseStart    Cause = "start_timeout" // the code did not load in time
	CauseReaper   Cause = "reaper"        // the reaper died, and all of its processes were killed

	// It was recycled because it reached a limit.
	CauseInvocations Cause = "max_invocations"
	CauseAnonymous   Cause = "max_memory"
	CauseAge         Cause = "max_age"
	CauseIdle        Cause = "max_idle"

	// It had calls of a function that was quarantined.
	CauseBlocked Cause = "blocked"
	// It ran calls under settings that were reverted because calls failed.
	CauseUndone Cause = "undone"
	// Its share of the cores has changed, which libraries read when they are loaded.
	CauseCoreShare Cause = "core_share"
)

// Causes lists all causes.
var Causes = []Cause{
	CauseExit, CauseSignal, CauseMemory, CauseOOM, CauseFiles, CauseConfine, CauseProtocol, CauseTimeout, CauseHung, CauseStart, CauseReaper,
	CauseInvocations, CauseAnonymous, CauseAge, CauseIdle, CauseBlocked, CauseUndone, CauseCoreShare,
}

// WithoutFault reports whether the worker was replaced without a fault.
func (c Cause) WithoutFault() bool {
	return slices.Contains([]Cause{CauseInvocations, CauseAnonymous, CauseAge, CauseIdle, CauseBlocked, CauseUndone, CauseCoreShare}, c)
}
