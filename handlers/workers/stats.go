package workers

import (
	"time"

	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/worker"
	"github.com/drover-run/drover/triggers"
)

// Stats reports on the pool.
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

// Usage reads what the pool's processes use: some files of /proc for each.
func (p *Pool) Usage() process.Usage {
	u := p.launcher.starter.Usage()
	for _, q := range p.quarantine.all() {
		u = u.Plus(q.pool.Usage())
	}
	return u
}

// CPU is that of Usage alone: one file of /proc for each process.
func (p *Pool) CPU() time.Duration { return p.launcher.starter.CPU() }

// Measures are those of the functions, in the order of Config.Functions.
func (p *Pool) Measures() []worker.Measures {
	out := p.ownMeasures()
	for _, q := range p.quarantine.all() {
		out = worker.SumOf(out, q.pool.ownMeasures())
	}
	return out
}

// Blocked is what is known of the functions that block the event loop, by name. "" is
// code that belongs to no invocation.
func (p *Pool) Blocked() map[string]Blocked { return p.blocks.byFunction() }

// Quarantined are the names of the functions that have worker processes of their own, and
// how many each.
func (p *Pool) Quarantined() map[string]int {
	out := make(map[string]int)
	for name, q := range p.quarantine.all() {
		out[name] = q.pool.Stats().Ready
	}
	return out
}

// Isolated are the functions that were moved since they block the event loop, to threads or
// to worker processes of their own, in order.
func (p *Pool) Isolated() []string { return p.quarantine.functions() }

// Invocation is a message in flight in a worker.
type Invocation struct {
	Worker  int // the process
	Message *triggers.Message
}

// Invocations are those of one function, by the pool's workers. They are looked up when
// this is called, and cost nothing before.
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
