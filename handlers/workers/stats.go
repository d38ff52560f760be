package workers

import (
	"time"

	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/worker"
	"github.com/drover-run/drover/triggers"
)

// Stats returns the state of the pool.
func (p *Pool) Stats() Stats {
	s := p.roster.stats()
	s.Template, s.Unforked = p.launcher.forking()
	_, s.Forkable = p.code.can()
	for _, q := range p.quarantine.all() {
		own := q.pool.Stats()
		s.Quarantined += own.Ready + own.Starting
		s.InFlight += own.InFlight
		for cause, n := range own.Restarts {
			s.Restarts[cause] += n
		}
	}
	return s
}

// Usage returns what the pool's processes use. It reads several files in /proc per process.
func (p *Pool) Usage() process.Usage {
	u := p.launcher.starter.Usage()
	for _, q := range p.quarantine.all() {
		u = u.Plus(q.pool.Usage())
	}
	return u
}

// CPU returns only the CPU time of Usage. It reads one file in /proc per process.
func (p *Pool) CPU() time.Duration { return p.launcher.starter.CPU() }

// Measures returns the measures of the functions, in the order of Config.Functions.
func (p *Pool) Measures() []worker.Measures {
	out := p.ownMeasures()
	for _, q := range p.quarantine.all() {
		out = worker.SumOf(out, q.pool.ownMeasures())
	}
	return out
}

// Blocked returns the statistics of functions that block the event loop, by name. "" is code
// outside of an invocation.
func (p *Pool) Blocked() map[string]Blocked { return p.blocks.byFunction() }

// Quarantined returns the functions that have their own worker processes, and the number of these.
func (p *Pool) Quarantined() map[string]int {
	out := make(map[string]int)
	for name, q := range p.quarantine.all() {
		out[name] = q.pool.Stats().Ready
	}
	return out
}

// Isolated returns the functions that were moved to threads or to their own worker processes
// because they block the event loop, sorted.
func (p *Pool) Isolated() []string { return p.quarantine.functions() }

// Invocation is a message in flight in a worker.
type Invocation struct {
	Worker  int // its process ID
	Message *triggers.Message
}

// Invocations returns the invocations of one function that are in flight in the pool's workers. They
// are looked up on request, so they cost nothing otherwise.
func (p *Pool) Invocations(function string) []Invocation {
	index := p.code.index(function)
	var out []Invocation
	for _, w := range p.everyone() {
		w.EachCall(func(c *worker.Call) {
			if int(c.Function) == index {
				out = append(out, Invocation{w.Process.PID, c.Message})
			}
		})
	}
	if q, is := p.quarantine.all()[function]; is {
		out = append(out, q.pool.Invocations(function)...)
	}
	return out
}
