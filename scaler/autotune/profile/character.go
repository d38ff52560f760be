package profile

import (
	"math"
	"time"

	"github.com/drover-run/drover/scaler/autotune/pool"
)

// character has the measurements of one function over time.
type character struct {
	kind        Kind
	async       bool
	cpu         float64 // s per call
	heldShare   float64 // held / wall time
	heldCPU     float64 // CPU / held
	held        float64 // s per call
	least       float64 // s: the shortest mean wall time of a sample
	looks, gil  float64
	stuck       time.Duration // since when calls are in flight and none has ended
	strange     int           // consecutive samples with another CPU time per call
	crowd       float64       // the stretch factor of its calls when their share was estimated
	beyondCores bool          // its calls used more than one core of a worker
	recalled    bool          // from Learned; only the kind is known
}

// tiny is the occupancy of a thread, per call, below which the CPU time is not measured separately.
const tiny = 100 * time.Microsecond

// addCalls takes the function's part of a sample.
func (c *character) addCalls(f pool.Function, steady bool, trusted trust, stretched float64, s pool.Sample) {
	c.looks, c.gil = 0.98*c.looks+float64(f.Looks), 0.98*c.gil+float64(f.HeldGIL)
	if f.Done > 0 {
		wall := f.AllWall.Seconds() / float64(f.Done)
		if c.least *= forgets; c.least == 0 || wall < c.least {
			c.least = wall
		}
	}
	if f.Measured == 0 || f.Wall <= 0 {
		c.seeStuck(f, s)
		return
	}
	c.stuck = 0
	calls := float64(f.Measured)
	if f.Held.Seconds()/calls < tiny.Seconds() {
		f.CPU = f.Held // a call this short waits for nothing, and clocks are too coarse for it
	}
	cpu, wall := f.CPU.Seconds()/calls, f.Wall.Seconds()/calls
	share := math.Min(cpu/wall, 1)
	if c.recalled { // only the kind is known; the measurements are used unchanged
		k := c.kind
		*c = character{kind: k, async: f.Async, cpu: cpu, held: f.Held.Seconds() / calls, least: c.least, looks: c.looks, gil: c.gil, beyondCores: k.ReleasesGIL}
		c.heldCPU = math.Min(float64(f.CPU)/math.Max(float64(f.Held), 1), 1)
		if k.NeverAwaits {
			c.heldShare = 1
		}
	}
	if c.kind.Sure > 0 && (cpu > Otherwise*c.cpu+1e-4 || c.cpu > Otherwise*cpu+1e-4) {
		// One call may differ from the others; consecutive samples are a different function.
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
	case !steady: // the workers changed
		return
	case trusted == alone || trusted == light && k.Sure < sure:
		if k.Sure < sure { // measurements under contention count less
			weight = 1
		}
		k.CPU += weight * (share - k.CPU)
		c.heldShare += weight * (heldShare - c.heldShare)
		k.Sure = math.Min(math.Max(k.Sure, sure)+0.1, 1)
	case trusted == light:
		// Calls come in bursts, and then wait for each other. A lower share counts less.
		if share < k.CPU {
			weight = 0.03
		}
		k.CPU += weight * (share - k.CPU)
		c.heldShare += weight * (heldShare - c.heldShare)
		k.Sure = math.Min(k.Sure+0.05, 0.9)
	case fresh || k.Sure < sure && stretched <= c.crowd:
		// The less contention, the better the estimate.
		k.CPU += weight * (math.Min(share*stretched, 1) - k.CPU)
		c.heldShare += weight * (heldShare - c.heldShare)
		c.crowd = stretched * 1.1
		k.Sure = math.Max(k.Sure, unsure)
	default: // the wall time is an upper bound
		k.CPU = math.Max(k.CPU, share)
		c.heldShare = math.Max(c.heldShare, heldShare)
	}
	// An estimate that lasts becomes more certain.
	if k.Sure < Known+0.1 {
		k.Sure += 0.02
	}
	c.nameKind()
}

// seeStuck detects a function that waits long before its first call ends.
func (c *character) seeStuck(f pool.Function, s pool.Sample) {
	switch {
	case c.kind.Sure > 0 || f.InFlight < 0.5 || s.Ready == 0:
		c.stuck = 0
	case c.stuck == 0:
		c.stuck = s.At
	case s.At-c.stuck >= 2*time.Second:
		c.kind.CPU, c.kind.Sure = math.Min(s.CPU/f.InFlight, 1), Known
		c.nameKind()
		c.kind.Sure = Known
	}
}

// nameKind derives the kind from the measurements.
func (c *character) nameKind() {
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
		case part <= released && k.CPU >= computing: // time spent waiting is not sampled
			k.ReleasesGIL = true
		case part >= held:
			k.ReleasesGIL, c.beyondCores = false, false
		}
	}
	if c.beyondCores {
		k.ReleasesGIL = true
	}
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
