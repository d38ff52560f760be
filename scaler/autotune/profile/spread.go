package profile

import (
	"math"
	"slices"
	"time"

	"github.com/drover-run/drover/scaler/autotune/pool"
)

// spread shows whether the messages of a function differ: some calls compute many times as long as
// others, or some compute and others wait. Such a function has no single duration, and its means
// depend on which messages arrive.
type spread struct {
	sizes   float64 // the variance of the logarithm of the CPU time of calls in the same sample
	split   float64 // 0: every call computes the same part of its time; 1: a call computes or waits
	samples float64 // the weight of the samples in these
	resets  []time.Duration
	differs bool
}

const (
	// callsEnough is the number of calls in a sample that show how much they differ.
	callsEnough = 4
	// sizesDiffer and splitDiffers are the bounds from which on messages differ: the variance if half
	// of the calls compute six times as long as the others, and half of the split between calls that
	// only compute and calls that only wait. Below half of both, messages are alike again.
	sizesDiffer  = 0.8
	splitDiffers = 0.5
	// spreadWeight is the weight of a sample, and spreadEnough the weight of all that suffices.
	spreadWeight = 0.1
	spreadEnough = 0.5
	// A function whose work seems to change as often as resetsDiffer times within resetsOver has
	// messages that arrive in bursts of one sort.
	resetsDiffer = 3
	resetsOver   = 5 * time.Minute
	// atEnd is the part of the time, from either end, in which calls cannot be split.
	atEnd = 0.05
)

// addCalls adds the calls of a sample. The CPU time of tiny calls is not exact enough.
func (d *spread) addCalls(f pool.Function) {
	if f.Measured < callsEnough || f.Wall < time.Duration(f.Measured)*tiny {
		return
	}
	n := float64(f.Measured)
	mean := f.Spread.Log / n
	sizes := math.Max(f.Spread.LogSquares/n-mean*mean, 0)
	split, part := 0.0, math.Min(f.CPU.Seconds()/f.Wall.Seconds(), 1)
	if part > atEnd && part < 1-atEnd {
		split = math.Max((f.Spread.Shares/f.Wall.Seconds()-part*part)/(part*(1-part)), 0)
	}
	d.samples += spreadWeight * (1 - d.samples)
	d.sizes += spreadWeight / d.samples * (sizes - d.sizes)
	d.split += spreadWeight / d.samples * (split - d.split)
}

// addReset records that the function's work seems to have changed.
func (d *spread) addReset(at time.Duration) {
	d.resets = append(d.resets, at)
	if over := len(d.resets) - resetsDiffer; over > 0 {
		d.resets = slices.Delete(d.resets, 0, over)
	}
}

// checkDiffers updates whether messages differ. part is the fraction of a call's time that it computes:
// the CPU time of calls that wait does not matter.
func (d *spread) checkDiffers(at time.Duration, part float64) bool {
	changes := len(d.resets) == resetsDiffer && at-d.resets[0] < resetsOver
	most := math.Max(d.split/splitDiffers, 0)
	if part > waiting {
		most = math.Max(most, d.sizes/sizesDiffer)
	}
	switch {
	case changes || d.samples >= spreadEnough && most >= 1:
		d.differs = true
	case d.samples >= spreadEnough && most < 0.5:
		d.differs = false
	}
	return d.differs
}
