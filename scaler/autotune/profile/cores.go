package profile

import (
	"math"

	"github.com/drover-run/drover/scaler/autotune/pool"
)

// usage has what a function's calls used while they dominated the pool, with older samples fading.
type usage struct {
	processes int // a library may use another number of cores with another number of processes
	// threads is the time of the processes' threads, running or waiting for a core, beside ones that run calls of
	// other functions. own is the CPU time of the threads that run the calls, wall the time of the calls, and span
	// the time of all samples.
	threads, own, wall, calls, span float64
	// agreed is how long a call has used several cores, in seconds; below 0: how long it has not.
	agreed float64
}

const (
	// several is how many cores a call uses at least to count as one that computes with threads of its own, and
	// single how many at most to count as one that does not.
	several = 1.3
	single  = 1.15
	// beside is the least CPU time of other threads per call, in seconds. A worker's own threads take less.
	beside = 0.3e-3
	// dominant is the share of the calls' CPU time from which on a function's calls used the pool's time.
	dominant = 0.7
	// usageFades is the weight that a sample keeps at the next one.
	usageFades = 0.95
	// usageFor is how long the measurements must agree, in seconds: the import of a spare worker
	// also uses CPU time.
	usageFor = 10.0
	// occupied is the least number of calls that run in each worker on average, for the same reason.
	occupied = 0.3
	// running is the weight of a call that runs, compared with one that has ended.
	running = 1e-6
)

// SeeCores takes the CPU time of the pool's processes in a sample of some seconds. It finds out how many cores a
// call uses: a library may compute with threads of its own. steady reports that nothing changed while the sample
// was taken, and that no worker was loading code. It is called after See.
func (n Profiles) SeeCores(s pool.Sample, seconds float64, steady bool) {
	var most *character
	var of pool.Function
	var use, all float64
	for _, f := range s.Functions {
		c := n[f.Name]
		if c.usage.processes != s.Settings.Processes {
			c.usage, c.kind.Cores = usage{processes: s.Settings.Processes}, 0
		}
		u := c.cpu * math.Max(float64(f.Done), running*f.InFlight)
		if all += u; u > use {
			most, of, use = c, f, u
		}
	}
	if most == nil || use < dominant*all {
		return
	}
	u := &most.usage
	if !steady {
		*u = usage{processes: u.processes}
		return
	}
	threads := s.CPU*seconds - (all - use)
	if !math.IsNaN(s.RunQueue) {
		threads += s.RunQueue * seconds
	}
	u.threads, u.own = usageFades*u.threads+threads, usageFades*u.own+use
	u.wall, u.calls, u.span = usageFades*u.wall+of.AllWall.Seconds(), usageFades*u.calls+float64(of.Done), usageFades*u.span+seconds
	k, cores := &most.kind, u.threads/math.Max(u.wall, 1e-9)
	switch {
	case u.wall < occupied*u.span*float64(s.Ready):
		u.agreed = 0
	case cores >= several && u.threads-u.own >= beside*u.calls:
		if u.agreed = math.Max(u.agreed, 0) + seconds; u.agreed >= usageFor {
			k.Cores = math.Min(cores, s.Cores)
		}
	case cores <= single:
		if u.agreed = math.Min(u.agreed, 0) - seconds; u.agreed <= -usageFor {
			k.Cores = 0
		}
	default:
		u.agreed = 0
	}
}

// MostCores returns how many cores a call uses, of the function whose calls use most, if its calls compute with
// threads of their own; else 0.
func (n Profiles) MostCores(functions []pool.Function) (most float64) {
	for _, f := range functions {
		most = math.Max(most, n.Of(f.Name).Cores)
	}
	return most
}
