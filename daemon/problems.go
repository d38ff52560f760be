package daemon

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/embedded"
)

// problemKinds are those of functions: the labels of a metric.
var problemKinds = []string{api.ProblemUnsettled, api.ProblemOutput, triggers.TroubleDeadLetters, triggers.TroubleAttempts, triggers.TroubleRights}

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

// problems are those of all stores.
func (s *stores) problems() (out []api.FunctionProblem) {
	for _, name := range s.names() {
		if p := s.problem(name); p != nil {
			out = append(out, *p)
		}
	}
	return out
}

// blocking is the problem because of which nothing is received; nil if there is none.
func blocking(problems []api.FunctionProblem) *api.FunctionProblem {
	for i := range problems {
		if problems[i].Blocks {
			return &problems[i]
		}
	}
	return nil
}

// problemNotes are those because of which the function does not stand still.
func problemNotes(problems []api.FunctionProblem) (notes []string) {
	for _, p := range problems {
		if !p.Blocks {
			notes = append(notes, p.OneLine())
		}
	}
	return notes
}
