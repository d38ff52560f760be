package autotune

import (
	"slices"
	"strings"
	"time"
)

// mix tracks which functions are busy: those with more work than slots.
type mix struct {
	key   string // their names
	names []string
	other string  // the candidate for the next key
	since float64 // how long the candidate has been observed, in seconds
	// fewer reports that the last change only removed functions, more that it only added some.
	fewer, more bool
	flips       []time.Duration
	seen        map[string]time.Duration // when a function last had work
}

const (
	// dwell is how long other functions must be busy before the mix changes, in seconds. It doubles
	// with each change within flipsOver after the first freeFlips, up to dwellMost.
	dwell     = 1.0
	dwellMost = 32.0
	flipsOver = 2 * time.Minute
	freeFlips = 3
	// recently is how long a function counts after it last had work.
	recently = 30 * time.Second
)

// markActive records which functions have work.
func (m *mix) markActive(s Sample) {
	if m.seen == nil {
		m.seen = map[string]time.Duration{}
	}
	for _, f := range s.Functions {
		if f.Saturated || f.Done > 0 || f.InFlight > 0.01 {
			m.seen[f.Name] = s.At
		}
	}
}

// activeLately returns the functions that had work recently.
func (m *mix) activeLately(s Sample) (functions []Function) {
	for _, f := range s.Functions {
		if at, seen := m.seen[f.Name]; seen && s.At-at < recently {
			functions = append(functions, f)
		}
	}
	return functions
}

// observeBusy takes a sample and reports whether the set of busy functions has changed.
func (m *mix) observeBusy(s Sample, seconds float64) bool {
	var names []string
	for _, f := range s.Functions {
		if f.Saturated && s.Ready > 0 {
			names = append(names, f.Name)
		}
	}
	slices.Sort(names)
	key := strings.Join(names, ", ")
	if key == m.key {
		m.other, m.since = key, 0
		return false
	}
	if key != m.other {
		m.other, m.since = key, 0
	}
	m.since += seconds
	m.flips = slices.DeleteFunc(m.flips, func(at time.Duration) bool { return s.At-at > flipsOver })
	wait := dwell
	for n := len(m.flips); n > freeFlips && wait < dwellMost; n-- {
		wait *= 2
	}
	if m.since < wait && m.key != "" || m.since < dwell/2 {
		return false
	}
	m.flips = append(m.flips, s.At)
	m.fewer = len(names) > 0 && isSubset(names, m.names)
	m.more = len(m.names) > 0 && isSubset(m.names, names)
	m.key = key
	if len(names) > 0 { // after a pause, the same functions continue
		m.names = names
	}
	return true
}

// isStable reports that the busy functions are still the same.
func (m *mix) isStable() bool { return m.since == 0 }

// isSubset reports whether all of a are in b.
func isSubset(a, b []string) bool {
	for _, x := range a {
		if !slices.Contains(b, x) {
			return false
		}
	}
	return true
}
