package daemon

import (
	"fmt"

	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/sources"
)

// stores are the embedded servers of this daemon, by connection.
type stores struct{ sources.Stores }

// problem is that of a connection's store; nil if it is well, or there is none.
func (s *stores) problem(connection string) *api.FunctionProblem {
	since, why := s.Failure(connection)
	if why == nil {
		return nil
	}
	return &api.FunctionProblem{Kind: api.ProblemStore, Text: fmt.Sprintf("connection %s: %v", connection, why), Since: since, Blocks: true}
}
