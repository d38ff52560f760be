package autotune

import (
	"slices"
	"strings"
	"time"
)

// mix follows which functions are busy: have more to do than room for it.
type mix struct {
	key   string // their names
	names []string
	other string  // what it may become
	since float64 // for how long it has been so, in seconds
	// fewer says that the last change took some away, more that it added some to those
	// that were.
	fewer, more bool
	flips       []time.Duration
	seen        map[string]time.Duration // when a function last had something to do
}

const (
	// dwell is how long other functions must be busy to be believed, in seconds; it
	// doubles with each change in flipsOver, up to dwellMost.
	dwell     = 1.0
	dwellMost = 32.0
	flipsOver = 2 * time.Minute
	freeFlips = 3
	// recently is how long a function is reckoned with after it had something to do.
	recently = 30 * time.Second
)

// active notes who has something to do.
func (m *mix) active(s Sample) {
	if m.seen == nil {
		m.seen = map[string]time.Duration{}
	}
	for _, f := range s.Functions {
		if f.Saturated || f.Done > 0 || f.InFlight > 0.01 {
			m.seen[f.Name] = s.At
		}
	}
}

// recent returns the functions that had something to do lately.
func (m *mix) recent(s Sample) (functions []Function) {
	for _, f := range s.Functions {
		if at, seen := m.seen[f.Name]; seen && s.At-at < recently {
			functions = append(functions, f)
		}
	}
	return functions
}

// see takes a sample and says whether others are busy now.
func (m *mix) see(s Sample, seconds float64) bool {
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
	m.fewer = len(names) > 0 && subset(names, m.names)
	m.more = len(m.names) > 0 && subset(m.names, names)
	m.key = key
	if len(names) > 0 { // after a rest, the same ones go on
		m.names = names
	}
	return true
}

// stable says that those who are busy are those who were.
func (m *mix) stable() bool { return m.since == 0 }

// subset says whether all of a are in b.
func subset(a, b []string) bool {
	for _, x := range a {
		if !slices.Contains(b, x) {
			return false
		}
	}
	return true
}
