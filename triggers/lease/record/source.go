package record

import (
	"sync"
	"time"
)

// maxLeases bounds the leases in a Record, and maxToken the bytes of one. Others are not recorded.
const (
	maxLeases = 1 << 14
	maxToken  = 4 << 10
)

// Source has the leases of one place. Its methods may be called by any goroutine.
type Source struct {
	key   string
	table *table

	mu     sync.Mutex
	fresh  ring     // leases that are not in the file as they are now
	stored ring     // the others
	gone   []uint64 // numbers of leases that are in the file and have ended
	dirty  bool     // it is in the table's list of changes
	number uint64   // in the file; 0: not there
}

// Entry is a lease in a Source. Its owner embeds it, so that recording allocates nothing.
type Entry struct {
	id, token string
	until     time.Time
	number    uint64 // in the file; 0: none yet
	inFile    bool
	left      bool // a daemon that was killed left it, and Left has not returned it
	in        *ring
	prev      *Entry
	next      *Entry
}

// ID returns the id that Hold recorded.
func (e *Entry) ID() string { return e.id }

// Token returns the token that Hold recorded.
func (e *Entry) Token() string { return e.token }

// Hold records a lease, or that a lease was renewed. Releasing it requires id and token.
// until is when the source may deliver its message to another receiver.
func (s *Source) Hold(e *Entry, id, token string, until time.Time) {
	if s == nil || len(id)+len(token) > maxToken {
		return
	}
	s.mu.Lock()
	if e.in == nil && !s.table.reserve() {
		s.mu.Unlock()
		return
	}
	e.unlink()
	e.id, e.token, e.until = id, token, until
	s.fresh.push(e)
	changed, many := s.markDirty(), s.fresh.n == batch
	s.mu.Unlock()
	s.table.announce(s, changed, many)
}

// Drop records that a lease has ended. It does nothing if the lease is not recorded.
func (s *Source) Drop(e *Entry) {
	if s == nil {
		return
	}
	s.mu.Lock()
	changed := false
	if e.in != nil {
		e.unlink()
		s.table.release()
		if e.inFile {
			s.gone = append(s.gone, e.number)
			changed = s.markDirty()
		}
		e.number, e.inFile = 0, false
	}
	s.mu.Unlock()
	s.table.announce(s, changed, false)
}

// Left returns the leases that a daemon left when it was killed, once. The caller releases them
// at the source, and drops each.
func (s *Source) Left() (left []*Entry) {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, r := range []*ring{&s.fresh, &s.stored} {
		for e := range r.entries() {
			if e.left && remaining(e.until, now) > 0 {
				e.left = false
				left = append(left, e)
			}
		}
	}
	return left
}

// markDirty reports whether the source must be added to the list of changes; s.mu is locked.
func (s *Source) markDirty() bool {
	if s.dirty {
		return false
	}
	s.dirty = true
	return true
}

// remaining returns the time until a lease expires. A suspend stops one of Go's clocks, and a
// change of the time moves the other, so the shorter time counts.
func remaining(until, now time.Time) time.Duration {
	return min(until.Sub(now), until.Round(0).Sub(now.Round(0)))
}
