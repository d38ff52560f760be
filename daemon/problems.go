package daemon

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/triggers/natsjs/embedded"
)

// stores are the embedded servers of this daemon, by connection. The zero value has
// none. It is safe for use by many goroutines.
type stores struct {
	mu  sync.Mutex
	all map[string]*embedded.Server
}

func (s *stores) add(connection string, e *embedded.Server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = make(map[string]*embedded.Server)
	}
	s.all[connection] = e
}

func (s *stores) remove(connection string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, connection)
}

// names are the connections with an embedded server.
func (s *stores) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.all))
}

// problem is that of a connection's store; nil if it is well, or there is none.
func (s *stores) problem(connection string) *api.FunctionProblem {
	s.mu.Lock()
	e := s.all[connection]
	s.mu.Unlock()
	if e == nil {
		return nil
	}
	since, why := e.Failure()
	if why == nil {
		return nil
	}
	return &api.FunctionProblem{Kind: api.ProblemStore, Text: fmt.Sprintf("connection %s: %v", connection, why), Since: since, Blocks: true}
}
