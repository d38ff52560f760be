package autotune

import "time"

// The kinds of functions.
const (
	KindUnknown  = ""
	KindCPU      = "cpu"      // computes
	KindBlocking = "blocking" // waits, and keeps a thread while it does
	KindAsync    = "async"    // waits on the event loop
	KindMixed    = "mixed"    // computes and waits
)

// Kind is what is known of a function.
type Kind struct {
	// Kind is one of the constants.
	Kind string `json:"kind"`
	// CPU is the part of a call's time that it computes, if it had the machine to
	// itself, and Waits the rest; both 0 where the kind is unknown.
	CPU   float64 `json:"cpu"`
	Waits float64 `json:"waits"`
	// ReleasesGIL says that it computes without holding the GIL, so that threads of one
	// process share the cores.
	ReleasesGIL bool `json:"releases_gil,omitempty"`
	// NeverAwaits says that an async function has the event loop to itself from its
	// start to its end.
	NeverAwaits bool `json:"never_awaits,omitempty"`
	// BlocksLoop says that an async function keeps the event loop from turning for long.
	BlocksLoop bool `json:"blocks_loop,omitempty"`
	// Sure is how sure that is, 0 to 1: a call's wall contains its waiting for the GIL
	// and for a core, so what was measured while those were short counts more.
	Sure float64 `json:"sure"`
}

const (
	// computing and waiting are the shares of CPU from which, and up to which, a
	// function is of one kind alone.
	computing = 0.75
	waiting   = 0.15
	// known is how sure a kind must be to be acted on.
	known = 0.3
	// unsure is how sure an estimate in a crowd is at first.
	unsure = 0.2
	// forgets is how the shortest time of a call grows with each sample that does not
	// prove it: it may be longer by now. It doubles within six minutes.
	forgets = 1.0005
	// sure is how sure one is that was seen with the machine to itself.
	sure = 0.5
	// throughout is the part of an async call's time for which it has the event loop,
	// from which on it is taken to await nothing.
	throughout = 0.9
	// lightly is the part of a core that a process may use for its calls not to wait
	// much for each other.
	lightly = 0.3
	// blocked is for how long a call must have the loop for others to feel it.
	blocked = 10 * time.Millisecond
	// looksEnough is how many looks tell about the GIL, and held and released are the
	// parts of them at which it was held that tell the one and the other.
	looksEnough = 10
	held        = 0.6
	released    = 0.3
	// otherwise is by what factor the CPU of a call must change for the function to be
	// taken for another.
	otherwise = 2.5
)

// nature finds out the kinds of all functions of a pool.
type nature map[string]*character

// see takes a sample; steady says that nothing changed while it was taken.
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

// together tells who releases the GIL by what a worker's calls use at once.
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

// of is what is known of a function; nothing is the zero value.
func (n nature) of(name string) Kind {
	if c := n[name]; c != nil && c.kind.Sure >= known {
		return c.kind
	}
	return Kind{}
}

// least is the shortest that calls of the slowest function have taken, in seconds.
func (n nature) least(functions []Function) (seconds float64) {
	for _, f := range functions {
		if c := n[f.Name]; c != nil && (f.InFlight > 0 || f.Done > 0) {
			seconds = max(seconds, c.least)
		}
	}
	return seconds
}

// words says what the functions do.
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
