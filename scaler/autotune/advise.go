package autotune

import (
	"fmt"
	"math"
	"slices"
)

// Advise returns what auto would use instead of explicit numbers, by the measurements under them.
// kinds are the Controller's, s is the latest Sample, and free has the bounds that would apply
// without the numbers. It returns "" if auto would use about the same, or if too little is known.
//
// The advice is the settings that auto would start with, and the direction of the climb where that
// is clear. Only a measurement finds the optimum.
func Advise(explicit Settings, free Bounds, kinds map[string]Kind, s Sample) string {
	n := nature{}
	var functions []Function
	for _, f := range s.Functions {
		if k := kinds[f.Name]; k.Sure >= known {
			n[f.Name] = &character{kind: k, async: f.Async}
			functions = append(functions, f)
		}
	}
	if len(functions) == 0 {
		return ""
	}
	to := n.table(functions, s.Cores, free)
	grow := ""
	room := s.Cores - s.Others - s.Daemon
	for _, d := range []dim{threads, coroutines} {
		used := slices.ContainsFunc(functions, func(f Function) bool { return f.Async == (d == coroutines) })
		waits := slices.ContainsFunc(functions, func(f Function) bool {
			return f.Async == (d == coroutines) && f.Saturated && !computes(kinds[f.Name])
		})
		switch {
		case !used: // unused, so the value does not matter
			to = to.with(d, explicit.get(d))
		case waits && s.CPU > 0 && s.CPU < room/idle:
			to = free.clamp(to.with(d, max(to.get(d), int(float64(explicit.get(d))*math.Min(room/s.CPU, jump)))))
			grow = ", and would try more"
		case !computesAll(functions, kinds, d == coroutines) && to.get(d) < explicit.get(d):
			to = to.with(d, explicit.get(d)) // the sufficient number is unknown
		}
	}
	if near(explicit, to) {
		return ""
	}
	return fmt.Sprintf("auto would have about %v%s, instead of %v: %s", to, grow, explicit, n.words(functions))
}

// computesAll reports whether all sync, or all async, functions compute.
func computesAll(functions []Function, kinds map[string]Kind, async bool) bool {
	return !slices.ContainsFunc(functions, func(f Function) bool { return f.Async == async && !computes(kinds[f.Name]) })
}

// near reports whether two settings are about the same.
func near(a, b Settings) bool {
	for _, d := range dims {
		x, y := float64(a.get(d)), float64(b.get(d))
		if math.Max(x, y) > spare*math.Min(x, y) {
			return false
		}
	}
	return true
}
