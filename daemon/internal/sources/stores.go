package sources

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// Stores are the embedded servers of a daemon, by connection. The zero value has none. It is safe
// for use by many goroutines.
type Stores struct {
	mu  sync.Mutex
	all map[string]Store
}

// Store is an embedded server.
type Store interface {
	// Failure returns why the server cannot write its store, and since when; nil if it can.
	Failure() (since time.Time, err error)
}

// Add adds the embedded server of a connection.
func (s *Stores) Add(connection string, store Store) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = make(map[string]Store)
	}
	s.all[connection] = store
}

// Remove removes the embedded server of a connection.
func (s *Stores) Remove(connection string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, connection)
}

// Names returns the connections with an embedded server, sorted.
func (s *Stores) Names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.all))
}

// FailureOf returns why the store of a connection cannot be written, and since when. The error is
// nil if it can be, or if there is no such store.
func (s *Stores) FailureOf(connection string) (since time.Time, err error) {
	s.mu.Lock()
	store := s.all[connection]
	s.mu.Unlock()
	if store == nil {
		return since, nil
	}
	return store.Failure()
}
