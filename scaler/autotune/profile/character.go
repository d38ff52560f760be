package profile

import (
	"math"
	"time"

	"github.com/drover-run/drover/scaler/autotune/pool"
)

// character has the measurements of one function over time.
type character struct {
	kind      Kind
	async     bool
	cpu       float64 // s per call
	heldShare float64 // held / wall time
	heldCPU   float64 // CPU / held, without delays
	held      float64 // s per call, without delays
	least     float64 // s: the shortest mean wall time of a sample
	gil       gilEvidence
	spread    spread
	stuck     time.Duration // since when calls are in flight and none has ended
	strange   int           // consecutive samples with another CPU time per call
	other     int           // consecutive samples that show another kind
	calm      bool          // the kind was measured while nothing disturbed the machine
	crowd     float64       // the stretch factor of its calls when their share was estimated
	recalled  bool          // from Learned; only the kind is known
	usage     usage         // of the pool
}

// observation is a sample, and what is known of the conditions under which it was taken.
type observation struct {
	pool.Sample
	Conditions
	trusted   trust
	stretched float64
}

// addCalls takes the function's part of a sample.
func (c *character) addCalls(f pool.Function, o observation) {
	c.gil.addLooks(f, o.Disturbed)
	if f.Done > 0 {
		wall := f.AllWall.Seconds() / float64(f.Done)
		if c.least *= forgets; c.least == 0 || wall < c.least {
			c.least = wall
		}
	}
	if f.Measured == 0 || f.Wall <= 0 {
		c.seeStuck(f, o)
		return
	}
	c.stuck = 0
	c.spread.addCalls(f)
	calls := float64(f.Measured)
	held, delays := heldTimes(f, o.Sample)
	if held/calls < tiny.Seconds() {
		f.CPU = f.Held // a call this short waits for nothing, and clocks are too coarse for it
		f.Examined = pool.Examined{}
		held, delays = f.Held.Seconds(), 0
	}
	cpu := f.CPU.Seconds() / calls
	share, examined := ownShares(f, o.Sample)
	if f.Async {
		own := shareOf(f.CPU.Seconds(), f.Wall.Seconds()-delays)
		share = shares{own, own, own}
	}
	if c.recalled { // only the kind is known; the measurements are used unchanged
		c.takeRecalled(f, cpu, held/calls)
	}
	if c.kind.Sure > 0 && !c.spread.differs && (cpu > Otherwise*c.cpu+1e-4 || c.cpu > Otherwise*cpu+1e-4) {
		// One call may differ from the others; consecutive samples are a different function.
		if c.strange++; c.strange < strangeEnough(o.Disturbed) {
			return
		}
		c.spread.addReset(o.At)
		*c = character{async: f.Async, spread: c.spread}
	}
	c.strange = 0
	weight := c.sampleWeight()
	c.cpu += weight * (cpu - c.cpu)
	c.held += weight * (held/calls - c.held)
	c.heldCPU += weight * (shareOf(f.CPU.Seconds(), held) - c.heldCPU)
	heldShare := math.Min(float64(f.Held)/float64(f.Wall), 1)
	switch {
	case !o.Steady: // the workers changed
		return
	case o.Disturbed && c.calm && (!examined || f.Async): // the share was measured in better conditions
		return
	case examined && !f.Async:
		c.addOwnShare(share, heldShare, o)
	default:
		c.addWallShare(share.least, heldShare, o)
	}
	// An estimate that lasts becomes more certain.
	if c.kind.Sure < Known+0.1 {
		c.kind.Sure += 0.02
	}
	c.nameKind(o)
}

// takeRecalled takes the first measurements of a function whose kind is known from before.
func (c *character) takeRecalled(f pool.Function, cpu, held float64) {
	k, gil := c.kind, c.gil
	gil.beyondCores = k.ReleasesGIL
	*c = character{kind: k, async: f.Async, cpu: cpu, held: held, least: c.least, gil: gil, calm: k.Sure >= sure}
	c.spread.differs = k.Differs
	c.heldCPU = math.Min(float64(f.CPU)/math.Max(float64(f.Held), 1), 1)
	if k.NeverAwaits {
		c.heldShare = 1
	}
}

const (
	// recent is the weight of a sample in the means, and slowly its weight for a function whose
	// messages differ.
	recent = 0.2
	slowly = 0.02
	// fewThreads is the number of threads up to which the estimate of the wait for the GIL is used.
	// With more, only its bounds are.
	fewThreads = 2
	// contended is the uncertainty of a share from which on calls compete for the GIL.
	contended = 0.1
)

// strangeEnough returns how many consecutive samples with another CPU time per call are a different
// function.
func strangeEnough(disturbed bool) int {
	if disturbed {
		return 12
	}
	return 3
}

// sampleWeight returns the weight of a sample in the means.
func (c *character) sampleWeight() float64 {
	switch {
	case c.kind.Sure == 0:
		return 1
	case c.spread.differs:
		return slowly
	}
	return recent
}

// addOwnShare takes a share of the calls' own time, for a function that is not async.
func (c *character) addOwnShare(share shares, heldShare float64, o observation) {
	k := &c.kind
	weight, to, known := c.sampleWeight(), share.likely, k.Sure > 0
	if o.Settings.Threads > fewThreads {
		to = k.CPU
		if !known {
			to = share.least * o.stretched
		}
		to = math.Min(math.Max(to, share.least), share.most)
	}
	k.CPU += weight * (to - k.CPU)
	c.heldShare += weight * (heldShare - c.heldShare)
	switch {
	case share.most-share.least < contended:
		k.Sure = math.Min(math.Max(k.Sure, sure)+0.1, 1)
	case o.Settings.Threads <= fewThreads:
		k.Sure = math.Min(math.Max(k.Sure, Known)+0.05, 0.9)
	default:
		k.Sure = math.Max(k.Sure, unsure)
	}
}

// addWallShare takes a share of the calls' wall time, if their delays are not measured, and for async
// functions: their calls wait for each other on the event loop.
func (c *character) addWallShare(share, heldShare float64, o observation) {
	k := &c.kind
	fresh, weight := k.Sure == 0, c.sampleWeight()
	switch {
	case o.trusted == alone || o.trusted == light && k.Sure < sure:
		if k.Sure < sure { // measurements under contention count less
			weight = 1
		}
		k.CPU += weight * (share - k.CPU)
		c.heldShare += weight * (heldShare - c.heldShare)
		k.Sure = math.Min(math.Max(k.Sure, sure)+0.1, 1)
	case o.trusted == light:
		// Calls come in bursts, and then wait for each other. A lower share counts less.
		if share < k.CPU {
			weight = 0.03
		}
		k.CPU += weight * (share - k.CPU)
		c.heldShare += weight * (heldShare - c.heldShare)
		k.Sure = math.Min(k.Sure+0.05, 0.9)
	case fresh || k.Sure < sure && o.stretched <= c.crowd:
		// The less contention, the better the estimate.
		k.CPU += weight * (math.Min(share*o.stretched, 1) - k.CPU)
		c.heldShare += weight * (heldShare - c.heldShare)
		c.crowd = o.stretched * 1.1
		k.Sure = math.Max(k.Sure, unsure)
	default: // the wall time is an upper bound
		k.CPU = math.Max(k.CPU, share)
		c.heldShare = math.Max(c.heldShare, heldShare)
	}
}

// seeStuck detects a function that waits long before its first call ends.
func (c *character) seeStuck(f pool.Function, o observation) {
	switch {
	case c.kind.Sure > 0 || f.InFlight < 0.5 || o.Ready == 0:
		c.stuck = 0
	case c.stuck == 0:
		c.stuck = o.At
	case o.At-c.stuck >= 2*time.Second:
		c.kind.CPU, c.kind.Sure = math.Min(o.CPU/f.InFlight, 1), Known
		c.nameKind(o)
		c.kind.Sure = Known
	}
}

// nameKind derives the kind from the measurements.
func (c *character) nameKind(o observation) {
	k := &c.kind
	k.Waits = 1 - k.CPU
	k.Differs = c.spread.checkDiffers(o.At, k.CPU)
	if o.Disturbed && c.calm { // it was measured in better conditions
		c.other = 0
		return
	}
	k.NeverAwaits = c.async && c.heldShare >= throughout
	k.BlocksLoop = c.async && c.held >= blocked.Seconds() && (k.NeverAwaits || c.heldCPU < 0.5)
	c.adoptKind(c.measuredKind(), o.Disturbed)
	k.ReleasesGIL = c.gil.showsRelease(k.ReleasesGIL, k.CPU >= computing)
}

// measuredKind returns the kind that the measurements show.
func (c *character) measuredKind() string {
	share := c.kind.CPU
	if c.kind.NeverAwaits {
		share = c.heldCPU
	}
	switch {
	case share >= computing:
		return KindCPU
	case share > waiting:
		return KindMixed
	case c.async && !c.kind.NeverAwaits:
		return KindAsync
	}
	return KindBlocking
}

// lastsFor and lastsUnsure are the numbers of consecutive samples that must show another kind before
// it counts: lastsUnsure while the kind is only an estimate.
const (
	lastsFor    = 8
	lastsUnsure = 2
)

// adoptKind takes the kind that a sample shows.
func (c *character) adoptKind(to string, disturbed bool) {
	k := &c.kind
	switch {
	case k.Kind == to:
		c.other, c.calm = 0, c.calm || !disturbed && k.Sure >= sure
		return
	case k.Kind != KindUnknown && k.Sure >= Known:
		enough := lastsFor
		if k.Sure < sure {
			enough = lastsUnsure
		}
		if c.other++; c.other < enough {
			return
		}
	}
	k.Kind, c.other, c.calm = to, 0, !disturbed && k.Sure >= sure
}

// trust is how far the wall time of a call is its own, and not caused by other calls.
type trust int

const (
	none  trust = iota // calls wait for each other: the wall time is an upper bound
	light              // they could, but contention is low
	alone              // a process has one call at a time, and a core for it
)

func trustIn(s pool.Sample) trust {
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
