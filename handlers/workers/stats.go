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
	s.Template, s.Unforked = p.launcher.forkState()
	_, s.Forkable = p.code.capabilities()
	if p.spare.IsReady() {
		s.Spare = 1
	}
	members, _ := p.roster.snapshot()
	for _, m := range members {
		if m.IsUsable() && p.launcher.isOutdated(m.Worker) {
			s.Outdated++
		}
	}
	for _, q := range p.quarantine.movedFunctions() {
		own := q.pool.Stats()
		s.Quarantined += own.Ready + own.Starting
		s.InFlight += own.InFlight
		for cause, n := range own.Restarts {
			s.Restarts[cause] += n
		}
	}
	return s
}

// Usage returns the resource usage of the pool's processes. It reads several files in /proc per process.
func (p *Pool) Usage() process.Usage {
	u := p.launcher.starter.Usage()
	for _, q := range p.quarantine.movedFunctions() {
		u = u.Plus(q.pool.Usage())
	}
	return u
}

// CPU returns only the CPU time of Usage. It reads one file in /proc per process.
func (p *Pool) CPU() time.Duration { return p.launcher.starter.CPU() }

// Measures returns the measures of the functions, in the order of Config.Functions.
func (p *Pool) Measures() []worker.Measures {
	out := p.ownMeasures()
	for _, q := range p.quarantine.movedFunctions() {
		out = worker.SumOf(out, q.pool.ownMeasures())
	}
	return out
}

// BlockStats returns the statistics of functions that block the event loop, by name. "" is code
// outside of an invocation.
func (p *Pool) BlockStats() map[string]Blocked { return p.blocks.byFunction() }

// QuarantinedWorkers returns the functions that have their own worker processes, and the number of
// these.
func (p *Pool) QuarantinedWorkers() map[string]int {
	out := make(map[string]int)
	for name, q := range p.quarantine.movedFunctions() {
		out[name] = q.pool.Stats().Ready
	}
	return out
}

// IsolatedFunctions returns the functions that were moved to threads or to their own worker
// processes because they block the event loop, sorted.
func (p *Pool) IsolatedFunctions() []string { return p.quarantine.functionNames() }

// Invocation is a message in flight in a worker.
type Invocation struct {
	Worker  int // its process ID
	Message *triggers.Message
}

// InvocationsOf returns the invocations of one function that are in flight in the pool's workers.
// They are looked up on request, so they cost nothing otherwise.
func (p *Pool) InvocationsOf(function string) []Invocation {
	index := p.code.indexOf(function)
	var out []Invocation
	for _, w := range p.allWorkers() {
		w.EachCall(func(c *worker.Call) {
			if int(c.Function) == index {
				out = append(out, Invocation{w.Process.PID, c.Message})
			}
		})
	}
	if q, is := p.quarantine.movedFunctions()[function]; is {
		out = append(out, q.pool.InvocationsOf(function)...)
	}
	return out
}
