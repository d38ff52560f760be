package triggers

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// Trouble is a problem at a source that an operator must fix. Messages may still be received
// meanwhile.
type Trouble struct {
	Kind  string // one of the Trouble constants: a word for metrics
	Text  string // the problem, and how to fix it
	Since time.Time
}

// The kinds of trouble.
const (
	TroubleDeadLetters = "dead_letters" // rejected messages cannot be moved
	TroubleAttempts    = "attempts"     // failures cannot be counted
	TroubleRights      = "rights"       // the account lacks a right
)

// Troubled is a Trigger that reports trouble. Troubles is called at any time, from any
// goroutine, and sends no request.
type Troubled interface {
	Troubles() []Trouble
}

// Troubles has the trouble of a trigger, one per kind. The zero value is empty. It is safe for
// concurrent use.
type Troubles struct {
	mu  sync.Mutex
	all []Trouble
}

// Set adds trouble, or replaces the text of an existing one of its kind, and
// reports whether there was none.
func (t *Troubles) Set(kind, text string) (first bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.all {
		if t.all[i].Kind == kind {
			t.all[i].Text = text
			return false
		}
	}
	t.all = append(t.all, Trouble{Kind: kind, Text: text, Since: time.Now()})
	return true
}

// Clear removes trouble of a kind, and reports whether there was any.
func (t *Troubles) Clear(kind string) (was bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := len(t.all)
	t.all = slices.DeleteFunc(t.all, func(one Trouble) bool { return one.Kind == kind })
	return len(t.all) < before
}

// Has reports whether there is trouble of a kind.
func (t *Troubles) Has(kind string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.ContainsFunc(t.all, func(one Trouble) bool { return one.Kind == kind })
}

// All returns the trouble, the oldest first.
func (t *Troubles) All() []Trouble {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.SortedFunc(slices.Values(t.all), func(a, b Trouble) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Kind, b.Kind)) })
}
