package concurrency

import (
	"math"
	"time"
)

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

// character is what is seen of one function over time.
type character struct {
	kind        Kind
	async       bool
	cpu         float64 // s of a call
	heldShare   float64 // held / wall
	heldCPU     float64 // CPU / held
	held        float64 // s of a call
	least       float64 // s: the shortest mean wall of a sample
	looks, gil  float64
	stuck       time.Duration // since when calls are in flight of which none ends
	strange     int           // samples in a row with another CPU per call
	crowd       float64       // by what its calls were stretched when their share was estimated
	beyondCores bool          // its calls used more than one core of a worker
	recalled    bool          // from an earlier life, of which only the kind is known
}

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

// trust is how far a call's wall is its own, and not what others make of it.
type trust int

const (
	none  trust = iota // calls wait for each other: the wall is too long, if anything
	light              // they could, but there is little to wait for
	alone              // a process has one call at a time, and a core for it
)

func trustIn(s Sample) trust {
	if s.Ready == 0 {
		return none
	}
	var inFlight float64
	var sync, async int
	for _, f := range s.Functions {
		inFlight += f.InFlight
		switch {
		case f.InFlight < 0.02 && f.Done == 0:
		case f.Async:
			async = s.Settings.Coroutines
		default:
			sync = s.Settings.Threads
		}
	}
	queued := !math.IsNaN(s.RunQueue) && s.RunQueue > 0.1*math.Max(inFlight, 0.1)
	full := s.CPU+s.Daemon+s.Others > 0.9*s.Cores
	switch {
	case sync+async <= 1 && !queued && (!full || float64(s.Ready) <= math.Ceil(s.Cores)):
		return alone
	case !full && !queued && s.CPU < lightly*float64(s.Ready):
		return light
	}
	return none
}

func (c *character) see(f Function, steady bool, trusted trust, stretched float64, s Sample) {
	c.looks, c.gil = 0.98*c.looks+float64(f.Looks), 0.98*c.gil+float64(f.HeldGIL)
	if f.Done > 0 {
		if wall := f.AllWall.Seconds() / float64(f.Done); c.least == 0 || wall < c.least {
			c.least = wall
		}
	}
	if f.Measured == 0 || f.Wall <= 0 {
		c.seeStuck(f, s)
		return
	}
	c.stuck = 0
	calls := float64(f.Measured)
	cpu, wall := f.CPU.Seconds()/calls, f.Wall.Seconds()/calls
	share := math.Min(cpu/wall, 1)
	if c.recalled { // only the kind is known; the rest is taken as it is
		k := c.kind
		*c = character{kind: k, async: f.Async, cpu: cpu, held: f.Held.Seconds() / calls, least: c.least, looks: c.looks, gil: c.gil, beyondCores: k.ReleasesGIL}
		c.heldCPU = math.Min(float64(f.CPU)/math.Max(float64(f.Held), 1), 1)
		if k.NeverAwaits {
			c.heldShare = 1
		}
	}
	if c.kind.Sure > 0 && (cpu > otherwise*c.cpu+1e-4 || c.cpu > otherwise*cpu+1e-4) {
		// One call may be unlike the others; a row of samples is another function.
		if c.strange++; c.strange < 3 {
			return
		}
		looks, gil := c.looks, c.gil
		*c = character{async: f.Async, looks: looks, gil: gil}
	}
	c.strange = 0
	fresh := c.kind.Sure == 0
	weight := 0.2
	if fresh {
		weight = 1
	}
	c.cpu += weight * (cpu - c.cpu)
	c.held += weight * (f.Held.Seconds()/calls - c.held)
	c.heldCPU += weight * (math.Min(float64(f.CPU)/math.Max(float64(f.Held), 1), 1) - c.heldCPU)
	heldShare := math.Min(float64(f.Held)/float64(f.Wall), 1)
	k := &c.kind
	switch {
	case !steady: // workers came or went meanwhile
		return
	case trusted == alone || trusted == light && k.Sure < sure:
		if k.Sure < sure { // what was seen under contention is worth less
			weight = 1
		}
		k.CPU += weight * (share - k.CPU)
		c.heldShare += weight * (heldShare - c.heldShare)
		k.Sure = math.Min(math.Max(k.Sure, sure)+0.1, 1)
	case trusted == light:
		// Calls come in bursts, and then wait for each other: those count that did least.
		if share < k.CPU {
			weight = 0.03
		}
		k.CPU += weight * (share - k.CPU)
		c.heldShare += weight * (heldShare - c.heldShare)
		k.Sure = math.Min(k.Sure+0.05, 0.9)
	case fresh || k.Sure < sure && stretched <= c.crowd:
		// The smaller the crowd, the better the estimate.
		k.CPU += weight * (math.Min(share*stretched, 1) - k.CPU)
		c.heldShare += weight * (heldShare - c.heldShare)
		c.crowd = stretched * 1.1
		k.Sure = math.Max(k.Sure, unsure)
	default: // the wall is too long, if anything
		k.CPU = math.Max(k.CPU, share)
		c.heldShare = math.Max(c.heldShare, heldShare)
	}
	// An estimate that is seen for long is worth something.
	if k.Sure < known+0.1 {
		k.Sure += 0.02
	}
	c.name()
}

// stretched is by what factor a call that computes takes longer than alone, as the
// others that may compute, too, want the same GIL and cores. It is what a call in a
// crowd is measured against: one that gets about as much CPU as it could computes;
// one that gets much less waits for something else.
func (n nature) stretched(s Sample) float64 {
	room := math.Max(s.Cores-s.Others-s.Daemon, 0.05*s.Cores)
	ready := float64(s.Ready)
	if ready == 0 || s.CPU < 0.85*math.Min(ready, room) {
		return 1
	}
	var runnable float64
	for _, f := range s.Functions {
		if c := n[f.Name]; c == nil || c.kind.Sure < sure || c.kind.CPU > waiting {
			runnable += f.InFlight
		}
	}
	return math.Max(runnable/ready, 1) / math.Min(1, room/ready)
}

// seeStuck tells a function that waits long before its first call ends.
func (c *character) seeStuck(f Function, s Sample) {
	switch {
	case c.kind.Sure > 0 || f.InFlight < 0.5 || s.Ready == 0:
		c.stuck = 0
	case c.stuck == 0:
		c.stuck = s.At
	case s.At-c.stuck >= 2*time.Second:
		c.kind.CPU, c.kind.Sure = math.Min(s.CPU/f.InFlight, 1), known
		c.name()
		c.kind.Sure = known
	}
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

// name makes the words of the numbers.
func (c *character) name() {
	k := &c.kind
	k.Waits = 1 - k.CPU
	k.NeverAwaits = c.async && c.heldShare >= throughout
	k.BlocksLoop = c.async && c.held >= blocked.Seconds() && (k.NeverAwaits || c.heldCPU < 0.5)
	share := k.CPU
	if k.NeverAwaits {
		share = c.heldCPU
	}
	switch {
	case share >= computing:
		k.Kind = KindCPU
	case share > waiting:
		k.Kind = KindMixed
	case c.async && !k.NeverAwaits:
		k.Kind = KindAsync
	default:
		k.Kind = KindBlocking
	}
	if c.looks >= looksEnough {
		switch part := c.gil / c.looks; {
		case part <= released && k.CPU > waiting:
			k.ReleasesGIL = true
		case part >= held:
			k.ReleasesGIL, c.beyondCores = false, false
		}
	}
	if c.beyondCores {
		k.ReleasesGIL = true
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
