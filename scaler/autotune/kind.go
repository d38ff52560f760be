package autotune

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
	// Sure is the confidence, 0 to 1. The wall time of a call includes waiting for the GIL and for
	// a core, so measurements with little of that count more.
	Sure float64 `json:"sure"`
}

const (
	// computing and waiting are the bounds of the kinds, as shares of CPU: at least computing is
	// cpu, at most waiting is blocking or async, and mixed is between them.
	computing = 0.75
	waiting   = 0.15
	// known is the least confidence in a kind that is used.
	known = 0.3
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
	// looksEnough is the number of GIL samples that suffice for a conclusion. held and released are
	// the fractions of them in which the GIL was held: from held on the function holds the GIL, and
	// up to released it releases it.
	looksEnough = 10
	held        = 0.6
	released    = 0.3
	// otherwise is the factor by which a call's CPU time must change to make the function another
	// one.
	otherwise = 2.5
)

// nature has the measurements of all functions of a pool, by name.
type nature map[string]*character

// see takes a sample; steady reports that nothing changed while it was taken.
func (n nature) see(s Sample, steady bool) {
	trusted := none
	if steady {
		trusted = trustIn(s)
	}
	stretched := n.stretched(s)
	for _, f := range s.Functions {
		c := n[f.Name]
		if c == nil {
			c = &character{}
			n[f.Name] = c
		}
		if c.async != f.Async && !c.recalled {
			*c = character{async: f.Async}
		}
		c.see(f, steady, trusted, stretched, s)
	}
	n.together(s)
}

// together detects a function that releases the GIL: its calls use more than one core of a worker.
func (n nature) together(s Sample) {
	if s.Ready == 0 || s.CPU < 1.2*float64(s.Ready) {
		return
	}
	var most *character
	var use, all float64
	for _, f := range s.Functions {
		c := n[f.Name]
		u := c.cpu * float64(f.Done)
		all += u
		if u > use {
			most, use = c, u
		}
	}
	if most != nil && use > 0.7*all && most.kind.CPU > waiting && !most.async {
		most.beyondCores = true
		most.name()
	}
}

// of returns the kind of a function; the zero value if it is unknown.
func (n nature) of(name string) Kind {
	if c := n[name]; c != nil && c.kind.Sure >= known {
		return c.kind
	}
	return Kind{}
}

// least returns the shortest time of a call of the slowest active function, in seconds.
func (n nature) least(functions []Function) (seconds float64) {
	for _, f := range functions {
		if c := n[f.Name]; c != nil && (f.InFlight > 0 || f.Done > 0) {
			seconds = max(seconds, c.least)
		}
	}
	return seconds
}

// words describes what the functions do.
func (n nature) words(functions []Function) string {
	var text string
	for i, f := range functions {
		if i > 0 {
			text += ", "
		}
		text += f.Name
		switch k := n.of(f.Name); {
		case k.Kind == KindUnknown:
			text += " (unknown)"
		case k.NeverAwaits:
			text += " (async, and never awaits)"
		default:
			text += " (" + k.Kind + ")"
		}
	}
	return text
}
