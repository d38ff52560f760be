package workers

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/drover-run/drover/triggers"
)

// This file remembers which messages must not run beside others.

const (
	// maxRecords bounds the messages that a pool remembers; the oldest is dropped.
	maxRecords = 1024
	// maxExcuses is how often a message runs again beside others without using an
	// attempt, before it runs alone.
	maxExcuses = 3
	// maxAlone is how often in all: where it runs alone only a machine that stands still
	// takes its time.
	maxAlone = 8
)

// record is what a pool knows of a message.
type record struct {
	killer  bool // it has killed or blocked a worker, alone or while its neighbours did not
	alone   bool // it may have: it runs alone until that is known
	excuses int  // how often it ran out of time by no fault of its own
}

// apart reports whether the message runs alone.
func (r record) apart() bool { return r.killer || r.alone }

type recordKey struct {
	function uint16
	message  string
}

// records are those of a pool. The zero value is empty. Reading takes no lock: each
// message looks, and mostly there are none.
type records struct {
	known atomic.Pointer[map[recordKey]record]
	mu    sync.Mutex
	order []recordKey // the oldest first
}

func (h *Handler) recordKey(m *triggers.Message) recordKey { return recordKey{h.index, m.ID} }

// of is what is known of a message.
func (r *records) of(h *Handler, m *triggers.Message) record {
	known := r.known.Load()
	if known == nil {
		return record{}
	}
	return (*known)[h.recordKey(m)]
}

// note changes what is known of a message. One without an id is not remembered.
func (r *records) note(h *Handler, m *triggers.Message, change func(*record)) record {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := make(map[recordKey]record)
	if known := r.known.Load(); known != nil {
		next = maps.Clone(*known)
	}
	key := h.recordKey(m)
	now, is := next[key]
	change(&now)
	if m.ID == "" {
		return now
	}
	if !is {
		if r.order = append(r.order, key); len(r.order) > maxRecords {
			delete(next, r.order[0])
			r.order = r.order[1:]
		}
	}
	next[key] = now
	r.known.Store(&next)
	return now
}

// settle drops what is known of a message that has run alone and killed nothing.
func (r *records) settle(h *Handler, m *triggers.Message, done bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := h.recordKey(m)
	if now := r.of(h, m); now == (record{}) || now.killer && !done {
		return
	}
	next := maps.Clone(*r.known.Load())
	delete(next, key)
	for at, other := range r.order {
		if other == key {
			r.order = append(r.order[:at:at], r.order[at+1:]...)
			break
		}
	}
	if len(next) == 0 {
		r.known.Store(nil)
		return
	}
	r.known.Store(&next)
}
