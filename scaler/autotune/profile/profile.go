package profile

import (
	"math"
	"slices"

	"github.com/drover-run/drover/scaler/autotune/pool"
)

// Profiles has the measurements of all functions of a pool, by name.
type Profiles map[string]*character

// See takes a sample.
func (n Profiles) See(s pool.Sample, under Conditions) {
	o := observation{Sample: s, Conditions: under, trusted: none, stretched: n.stretchFactor(s)}
	if under.Steady {
		o.trusted = trustIn(s)
	}
	for _, f := range s.Functions {
		c := n[f.Name]
		if c == nil {
			c = &character{}
			n[f.Name] = c
		}
		if c.async != f.Async && !c.recalled {
			*c = character{async: f.Async}
		}
		c.addCalls(f, o)
	}
	n.findReleased(o)
}

// findReleased detects a function that releases the GIL: its calls use more than one core of a
// worker. The CPU time of the workers is no evidence alone, because other code in them uses it, too,
// such as that of a worker that starts.
func (n Profiles) findReleased(o observation) {
	var most *character
	var use, all float64
	for _, f := range o.Functions {
		c := n[f.Name]
		u := c.cpu * float64(f.Done)
		all += u
		if u > use {
			most, use = c, u
		}
	}
	found := o.Steady && o.Ready > 0 && o.Seconds > 0 && o.CPU >= beyond*float64(o.Ready) &&
		most != nil && use > 0.7*all && most.kind.CPU > waiting && !most.async
	for _, c := range n {
		if !found || c != most {
			c.gil.dropUse()
		}
	}
	if found {
		most.gil.addUse(use/o.Seconds/float64(o.Ready), o.Seconds)
		most.nameKind(o)
	}
}

// Of returns the kind of a function; the zero value if it is unknown.
func (n Profiles) Of(name string) Kind {
	if c := n[name]; c != nil && c.kind.Sure >= Known {
		return c.kind
	}
	return Kind{}
}

// SlowestCall returns the shortest time of a call of the slowest active function, in seconds.
func (n Profiles) SlowestCall(functions []pool.Function) (seconds float64) {
	for _, f := range functions {
		if c := n[f.Name]; c != nil && (f.InFlight > 0 || f.Done > 0) {
			seconds = max(seconds, c.least)
		}
	}
	return seconds
}

// Describe returns the kinds of the functions, as text.
func (n Profiles) Describe(functions []pool.Function) string {
	var text string
	for i, f := range functions {
		if i > 0 {
			text += ", "
		}
		text += f.Name
		switch k := n.Of(f.Name); {
		case k.Kind == KindUnknown:
			text += " (unknown)"
		case k.NeverAwaits:
			text += " (async, and never awaits)"
		case k.Differs:
			text += " (" + k.Kind + ", and its messages differ)"
		default:
			text += " (" + k.Kind + ")"
		}
	}
	return text
}

// stretchFactor returns the factor by which a call that computes takes longer than alone, because
// other calls that may compute use the same GIL and cores. A call under contention that gets about
// as much CPU as it could is one that computes. One that gets much less waits for something else.
func (n Profiles) stretchFactor(s pool.Sample) float64 {
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

// Kinds returns the kinds of the functions, by name, also those that are hardly known.
func (n Profiles) Kinds() map[string]Kind {
	kinds := make(map[string]Kind, len(n))
	for name, c := range n {
		kinds[name] = c.kind
	}
	return kinds
}

// Recall adds a function whose kind alone is known.
func (n Profiles) Recall(name string, k Kind) { n[name] = &character{kind: k, recalled: true} }

// ShortestCall returns the shortest time of a call of a function that was seen, in seconds.
func (n Profiles) ShortestCall(name string) float64 { return n[name].least }

// Differ reports whether the messages of a function that has work now differ.
func (n Profiles) Differ(functions []pool.Function) bool {
	return slices.ContainsFunc(functions, func(f pool.Function) bool { return f.Done > 0 && n.Of(f.Name).Differs })
}

// CPUPerCall returns the CPU time of a call of a function that was seen, in seconds.
func (n Profiles) CPUPerCall(name string) float64 { return n[name].cpu }
