// Package profile finds out what the functions of a pool do by measurement, and which settings
// functions of these kinds start with. One goroutine at a time uses a value of Profiles.
package profile

import "time"

// The kinds of functions.
const (
	KindUnknown  = ""
	KindCPU      = "cpu"      // computes
	KindBlocking = "blocking" // waits, and occupies a thread meanwhile
	KindAsync    = "async"    // waits on the event loop
	KindMixed    = "mixed"    // computes and waits
)

// Kind is the measured behaviour of a function.
type Kind struct {
	// Kind is one of the constants.
	Kind string `json:"kind"`
	// CPU is the fraction of a call's time that it computes when it has the machine to itself, and
	// Waits the rest. Both are 0 if the kind is unknown.
	CPU   float64 `json:"cpu"`
	Waits float64 `json:"waits"`
	// ReleasesGIL reports that the function computes without holding the GIL, so that threads of
	// one process share the cores.
	ReleasesGIL bool `json:"releases_gil,omitempty"`
	// NeverAwaits reports that an async function occupies the event loop from its start to its end.
	NeverAwaits bool `json:"never_awaits,omitempty"`
	// BlocksLoop reports that an async function blocks the event loop for long.
	BlocksLoop bool `json:"blocks_loop,omitempty"`
	// Differs reports that its messages differ: some calls compute and others wait, or some compute
	// many times as long as others. CPU is a mean over many of them then.
	Differs bool `json:"differs,omitempty"`
	// Cores is how many cores a call uses with the current number of processes, if it computes with
	// threads of its own; else 0.
	Cores float64 `json:"cores,omitempty"`
	// Sure is the confidence, 0 to 1. The wall time of a call includes waiting for the GIL and for
	// a core, so measurements with little of that count more.
	Sure float64 `json:"sure"`
}

const (
	// computing and waiting are the bounds of the kinds, as shares of CPU: at least computing is
	// cpu, at most waiting is blocking or async, and mixed is between them.
	computing = 0.75
	waiting   = 0.15
	// Known is the least confidence in a kind that is used.
	Known = 0.3
	// unsure is the first confidence of an estimate under contention.
	unsure = 0.2
	// forgets is the factor by which the shortest time of a call grows with each sample that does
	// not confirm it, because the call may take longer by now. At four samples a second it doubles
	// within six minutes.
	forgets = 1.0005
	// sure is the confidence of a measurement with the machine to itself.
	sure = 0.5
	// throughout is the share of an async call's time on the event loop that counts as never
	// awaiting.
	throughout = 0.9
	// lightly is the CPU use of a process, in cores, below which its calls hardly delay each other.
	lightly = 0.3
	// blocked is the time on the event loop per call that delays other calls noticeably.
	blocked = 10 * time.Millisecond
	// Otherwise is the factor by which a call's CPU time must change to make the function another
	// one.
	Otherwise = 2.5
)

// Computes reports that the function gains nothing by more calls at once.
func (k Kind) Computes() bool { return k.Kind == KindCPU || k.NeverAwaits }
