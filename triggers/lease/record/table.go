package record

import (
	"iter"
	"sync"
	"sync/atomic"
	"time"
)

// batch is how many leases of a source are written without waiting for more.
const batch = 64

// table has the Sources of a Record, and which of them have changed.
type table struct {
	count atomic.Int64  // leases
	due   *time.Timer   // changes must be written; it runs while there are any
	many  chan struct{} // a source has a batch to write

	mu      sync.Mutex
	sources map[string]*Source
	changes []*Source
}

func newTable() *table {
	t := &table{due: time.NewTimer(time.Hour), many: make(chan struct{}, 1), sources: make(map[string]*Source)}
	t.due.Stop()
	return t
}

func (t *table) source(key string) *Source {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sources[key]
	if s == nil {
		s = &Source{key: key, table: t}
		s.fresh.init()
		s.stored.init()
		t.sources[key] = s
	}
	return s
}

// restore adds the leases of a daemon that was killed.
func (t *table) restore(all []savedLease, now time.Duration) {
	for _, l := range all {
		if left := l.until - now; left > 0 && t.reserve() {
			s := t.source(l.source)
			s.fresh.push(&Entry{id: l.id, token: l.token, until: time.Now().Add(left), left: true})
			t.announce(s, s.markDirty(), false)
		}
	}
}

// reserve reports whether there is room for one more lease, and counts it.
func (t *table) reserve() bool {
	if t.count.Add(1) <= maxLeases {
		return true
	}
	t.count.Add(-1)
	return false
}

func (t *table) release() { t.count.Add(-1) }

// announce wakes the writer when it is due. No lock of a source is held.
func (t *table) announce(s *Source, changed, many bool) {
	if changed {
		t.mu.Lock()
		if len(t.changes) == 0 {
			now := time.Now()
			t.due.Reset(now.Truncate(writeEvery).Add(writeEvery).Sub(now))
		}
		t.changes = append(t.changes, s)
		t.mu.Unlock()
	}
	if many {
		signal(t.many)
	}
}

// takeChanges returns the sources that have changed since the last call.
func (t *table) takeChanges() []*Source {
	t.mu.Lock()
	defer t.mu.Unlock()
	changes := t.changes
	t.changes = nil
	return changes
}

// allSources returns all sources.
func (t *table) allSources() (all []*Source) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.sources {
		all = append(all, s)
	}
	return all
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// ring is a list of leases.
type ring struct {
	head Entry
	n    int
}

func (r *ring) init() { r.head.prev, r.head.next = &r.head, &r.head }

func (r *ring) push(e *Entry) {
	e.in, e.prev, e.next = r, r.head.prev, &r.head
	e.prev.next, r.head.prev = e, e
	r.n++
}

// unlink removes an entry from its list, if it is in one.
func (e *Entry) unlink() {
	if e.in == nil {
		return
	}
	e.in.n--
	e.prev.next, e.next.prev = e.next, e.prev
	e.in, e.prev, e.next = nil, nil, nil
}

// entries yields the leases. The one that was yielded may be removed.
func (r *ring) entries() iter.Seq[*Entry] {
	return func(yield func(*Entry) bool) {
		for e := r.head.next; e != &r.head; {
			next := e.next
			if !yield(e) {
				return
			}
			e = next
		}
	}
}
