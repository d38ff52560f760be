package autotune

import (
	"fmt"
	"math"
	"slices"

	"github.com/drover-run/drover/scaler/autotune/pool"
	"github.com/drover-run/drover/scaler/autotune/profile"
)

// Advise returns what auto would use instead of explicit numbers, by the measurements under them.
// kinds are the Controller's, s is the latest Sample, and free has the bounds that would apply
// without the numbers. It returns "" if auto would use about the same, or if too little is known.
//
// The advice is the settings that auto would start with, and the direction of the climb where that
// is clear. Only a measurement finds the optimum.
func Advise(explicit Settings, free Bounds, kinds map[string]Kind, s Sample) string {
	n := profile.Profiles{}
	var functions []Function
	for _, f := range s.Functions {
		if k := kinds[f.Name]; k.Sure >= profile.Known {
			n.Recall(f.Name, k)
			functions = append(functions, f)
		}
	}
	if len(functions) == 0 {
		return ""
	}
	to := n.FirstSettings(functions, s.Cores, free)
	grow := ""
	room := s.Cores - s.Others - s.Daemon
	for _, d := range []pool.Dim{pool.Threads, pool.Coroutines} {
		used := slices.ContainsFunc(functions, func(f Function) bool { return f.Async == (d == pool.Coroutines) })
		waits := slices.ContainsFunc(functions, func(f Function) bool {
			return f.Async == (d == pool.Coroutines) && f.Saturated && !kinds[f.Name].Computes()
		})
		switch {
		case !used: // unused, so the value does not matter
			to = to.With(d, explicit.Get(d))
		case waits && s.CPU > 0 && s.CPU < room/idle:
			to = free.Clamp(to.With(d, max(to.Get(d), int(float64(explicit.Get(d))*math.Min(room/s.CPU, jump)))))
			grow = ", and would try more"
		case !computesAll(functions, kinds, d == pool.Coroutines) && to.Get(d) < explicit.Get(d):
			to = to.With(d, explicit.Get(d)) // the sufficient number is unknown
		}
	}
	if isNear(explicit, to) {
		return ""
	}
	return fmt.Sprintf("auto would have about %v%s, instead of %v: %s", to, grow, explicit, n.Describe(functions))
}

// computesAll reports whether all sync, or all async, functions compute.
func computesAll(functions []Function, kinds map[string]Kind, async bool) bool {
	return !slices.ContainsFunc(functions, func(f Function) bool { return f.Async == async && !kinds[f.Name].Computes() })
}

// isNear reports whether two settings are about the same.
func isNear(a, b Settings) bool {
	for _, d := range pool.Dims {
		x, y := float64(a.Get(d)), float64(b.Get(d))
		if math.Max(x, y) > spare*math.Min(x, y) {
			return false
		}
	}
	return true
}
