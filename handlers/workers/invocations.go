package workers

import (
	"github.com/drover-run/drover/triggers"
)

// Invocation is a message in flight in a worker.
type Invocation struct {
	Worker  int // the process
	Message *triggers.Message
}

// Invocations are those of one function, by the pool's workers. They are looked for
// when somebody asks, and cost nothing before.
func (p *Pool) Invocations(function string) []Invocation {
	all := p.everyone()
	var out []Invocation
	for _, w := range all {
		w.mu.Lock()
		for _, c := range w.calls {
			if c != nil && c.handler.name == function {
				out = append(out, Invocation{w.process.PID, c.Message})
			}
		}
		w.mu.Unlock()
	}
	if a, is := p.apart()[function]; is {
		out = append(out, a.pool.Invocations(function)...)
	}
	return out
}
