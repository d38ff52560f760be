package profile

import (
	"math"
	"time"

	"github.com/drover-run/drover/scaler/autotune/pool"
)

// A call is judged by its own time: its wall time without the time in which it was ready to run and
// could not, because it waited for a core or for the GIL, because the hypervisor ran others on its
// core, or because the CPU quota was used up.

// tiny is the occupancy of a thread, per call, below which the CPU time is not measured separately.
const tiny = 100 * time.Microsecond

// shares are the fraction of its own time that a call computes: an estimate, and its bounds. How long
// a call waits for the GIL is known only roughly.
type shares struct{ least, likely, most float64 }

// ownShares returns the shares of a function that is not async, and whether its delays were measured.
// If not, its own time is all that is not known to be lost.
func ownShares(f pool.Function, s pool.Sample) (of shares, examined bool) {
	e := f.Examined
	if e.Wall <= 0 {
		only := shareOf(f.CPU.Seconds(), f.Wall.Seconds()-lostTime(f.CPU.Seconds(), 0, s))
		return shares{only, only, only}, false
	}
	cpu, delayed := e.CPU.Seconds(), e.Delayed.Seconds()
	own := e.Wall.Seconds() - delayed - lostTime(cpu, delayed, s)
	return shares{
		least:  shareOf(cpu, own),
		likely: shareOf(cpu, own-e.Locked.Seconds()),
		most:   shareOf(cpu, own-max(e.Locked, e.LockedMost).Seconds()),
	}, true
}

// heldTimes returns, for an async function, how long its calls occupied the event loop without their
// delays, and how long the delays were, in seconds.
func heldTimes(f pool.Function, s pool.Sample) (own, delays float64) {
	held := f.Held.Seconds()
	if e := f.Examined; e.Wall > 0 {
		delays = held * math.Min((e.Delayed+e.Locked).Seconds()/e.Wall.Seconds(), 1)
	}
	delays += lostTime(f.CPU.Seconds(), delays, s)
	own = math.Max(held-delays, math.Min(f.CPU.Seconds(), held))
	return own, held - own
}

// shareOf returns which part of an own time is CPU time.
func shareOf(cpu, own float64) float64 {
	if own <= cpu {
		return 1
	}
	return cpu / own
}

// mostLost bounds the part of its time that a ready thread is assumed to lose to the hypervisor, or
// to a quota.
const mostLost = 0.9

// lostTime returns how long calls lost their core to the hypervisor or to the CPU quota, in seconds,
// given their CPU time. delayed is their measured delay: most kernels include the quota's part in it.
func lostTime(cpu, delayed float64, s pool.Sample) float64 {
	lost := func(part float64) float64 {
		part = math.Min(math.Max(part, 0), mostLost)
		return cpu * part / (1 - part)
	}
	return lost(s.Stolen) + math.Max(lost(s.Throttled)-delayed, 0)
}

// Conditions are those under which a sample was taken.
type Conditions struct {
	// Seconds is the time since the previous sample.
	Seconds float64
	// Steady reports that nothing changed while the sample was taken.
	Steady bool
	// Disturbed reports that others use the machine so much that a kind must not change.
	Disturbed bool
}

const (
	// crowdedPart is the fraction of the cores from which on others disturb a pool, while all
	// together use busyPart of the cores: drover tune uses the same fifth.
	crowdedPart = 0.2
	busyPart    = 0.7
	// robbedPart is the same for the time that a hypervisor or a quota takes.
	robbedPart = 0.1
)

// IsDisturbed reports that other programs use the cores so much that calls are delayed.
func IsDisturbed(s pool.Sample) bool {
	return s.Others > crowdedPart*s.Cores && s.CPU+s.Daemon+s.Others > busyPart*s.Cores ||
		s.Stolen > robbedPart || s.Throttled > robbedPart
}
