package autotune

import (
	"fmt"
	"slices"
	"strings"
)

// Learned is the state that is kept across restarts, as JSON.
type Learned struct {
	// Kinds are the kinds of the functions.
	Kinds map[string]Kind `json:"kinds,omitempty"`
	// Found has the best settings for each set of functions that were busy together, in order of
	// time.
	Found []Found `json:"found,omitempty"`
	// PerWorker is the memory of a worker, and PerCall the most that a call in flight adds to it,
	// in bytes; 0 is unknown.
	PerWorker uint64 `json:"per_worker,omitempty"`
	PerCall   uint64 `json:"per_call,omitempty"`
	// Undone are the changes that stay reverted.
	Undone []Undone `json:"undone,omitempty"`
}

// Found has the best settings while exactly these functions were busy.
type Found struct {
	Functions []string `json:"functions"`
	// Cores is the number of usable cores then.
	Cores    float64  `json:"cores"`
	Settings Settings `json:"settings"`
}

// Changed returns the part that still applies after the code or the user's settings have changed. A
// reverted change may work now, and settings that were found without it are dropped.
func (l Learned) Changed() Learned {
	if len(l.Undone) > 0 {
		l.Undone, l.Found = nil, nil
	}
	return l
}

// mostFound bounds the number of kept settings.
const mostFound = 16

// found lists the best settings, the latest last.
type found []Found

// keepBest adds settings, and replaces earlier ones for the same functions and cores.
func (f *found) keepBest(names []string, cores float64, best Settings) {
	*f = slices.DeleteFunc(*f, func(o Found) bool { return slices.Equal(o.Functions, names) && isAbout(o.Cores, cores) })
	*f = append(*f, Found{slices.Clone(names), cores, best})
	if over := len(*f) - mostFound; over > 0 {
		*f = slices.Delete(*f, 0, over)
	}
}

// bestFor returns the best settings within the bounds for these functions and cores, if any are
// known.
func (f found) bestFor(key string, s Sample, b Bounds) (best Settings, is bool) {
	for _, o := range slices.Backward(f) {
		if strings.Join(o.Functions, ", ") == key && isAbout(o.Cores, s.Cores) && b.Contains(o.Settings) {
			return o.Settings, true
		}
	}
	return best, false
}

// oddCores is the relative change of the cores that counts as one.
const oddCores = 0.05

// isAbout reports whether two numbers of cores count as the same.
func isAbout(a, b float64) bool { return max(a, b)-min(a, b) <= oddCores*max(a, b) }

// bestRemembered returns the settings of an earlier Controller to start with, if they fit, and the
// reason why or why not.
func (f found) bestRemembered(s Sample, b Bounds, m *memory) (to Settings, fits bool, why string) {
	if len(f) == 0 {
		return to, false, "nothing is measured yet"
	}
	o := f[len(f)-1]
	for _, name := range o.Functions {
		if !slices.ContainsFunc(s.Functions, func(f Function) bool { return f.Name == name }) {
			return to, false, fmt.Sprintf("the saved settings are for %s, which no longer exists", name)
		}
	}
	to, is := f.bestFor(strings.Join(o.Functions, ", "), s, b)
	need := m.perWorker*float64(to.Processes) + m.perCall*callsAdmitted(to, s.Functions)
	switch {
	case !is && !isAbout(o.Cores, s.Cores):
		return to, false, fmt.Sprintf("the saved settings are for %.3g cores, and the machine has %.3g", o.Cores, s.Cores)
	case !is:
		return to, false, fmt.Sprintf("the saved settings, %v, are outside the bounds", o.Settings)
	case s.MemoryLimit > 0 && need > fill*float64(s.MemoryLimit):
		return to, false, fmt.Sprintf("the saved settings need %s, and there are %s", inMegabytes(need), inMegabytes(float64(s.MemoryLimit)))
	}
	return to, true, "the best settings before the restart"
}
