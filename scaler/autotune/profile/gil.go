package profile

import "github.com/drover-run/drover/scaler/autotune/pool"

// gilEvidence is what shows whether a function releases the GIL while it computes: the samples of the
// workers' GIL samplers, in batches, and the cores that its calls use together.
type gilEvidence struct {
	looks, held int64 // of the current batch
	// free and taken count consecutive batches that show that the GIL was free, or held.
	free, taken int
	seconds     float64 // of consecutive samples
	used        float64 // the CPU time of its calls in them, in cores of one worker × s
	beyondCores bool    // its calls used more than one core of a worker
}

const (
	// looksEnough is the number of GIL samples in a batch. heldPart and releasedPart are the
	// fractions of them in which the GIL was held: from heldPart on the function holds the GIL, and
	// up to releasedPart it releases it.
	looksEnough  = 20
	heldPart     = 0.6
	releasedPart = 0.3
	// freeBatches and takenBatches are the numbers of consecutive batches that must agree. A wrong
	// verdict that the GIL is released starts threads, so it takes more: about two seconds.
	freeBatches  = 4
	takenBatches = 2
	// beyond is the CPU use of a function in cores per worker, over beyondFor seconds, that only a
	// function that releases the GIL can have.
	beyond    = 1.2
	beyondFor = 1.0
)

// addLooks adds GIL samples. Those of a disturbed machine show nothing: a thread that waits for a core
// may hold the GIL, and one that samples may be late without it.
func (g *gilEvidence) addLooks(f pool.Function, disturbed bool) {
	if disturbed {
		return
	}
	g.looks, g.held = g.looks+f.Looks, g.held+f.HeldGIL
	if g.looks < looksEnough {
		return
	}
	part := float64(g.held) / float64(g.looks)
	g.looks, g.held = 0, 0
	switch {
	case part <= releasedPart:
		g.free, g.taken = g.free+1, 0
	case part >= heldPart:
		g.free, g.taken = 0, g.taken+1
	default:
		g.free, g.taken = 0, 0
	}
	if g.taken >= takenBatches {
		g.beyondCores = false
	}
}

// addUse adds the CPU time of the function's calls in a sample: cores per worker. A single sample
// proves nothing, because its length is not exact on a busy machine.
func (g *gilEvidence) addUse(cores, seconds float64) {
	g.used, g.seconds = g.used+cores*seconds, g.seconds+seconds
	if g.seconds < beyondFor {
		return
	}
	g.beyondCores = g.beyondCores || g.used >= beyond*g.seconds
	g.used, g.seconds = 0, 0
}

// dropUse forgets the samples of an interval that has not ended.
func (g *gilEvidence) dropUse() { g.used, g.seconds = 0, 0 }

// showsRelease returns whether the function releases the GIL, given the conclusion so far.
func (g *gilEvidence) showsRelease(releases, computes bool) bool {
	switch {
	case g.beyondCores:
		return true
	case g.taken >= takenBatches:
		return false
	case g.free >= freeBatches && computes: // time spent waiting is not sampled
		return true
	}
	return releases
}
