package workers

import (
	"maps"
	"time"

	"github.com/drover-run/drover/handlers/workers/process"
)

// Stats is the state of a pool.
type Stats struct {
	Wanted   int // see Scale
	Ready    int // workers that take messages
	Starting int
	Retiring int // workers that take no more, and end when they have finished
	// Restarts counts the workers that were started in place of others, by what
	// became of those.
	Restarts map[process.Cause]int
	InFlight int
	// Apart are the workers of functions that are kept apart; the numbers above, but
	// for Restarts and InFlight, are without them.
	Apart int
	PIDs  []int // of the ready workers
	// StartUp is how long a worker took to load the code, lately.
	StartUp time.Duration
	// Template says that workers are forked, Forkable that they could be, and
	// Unforked why they are not though the configuration says so.
	Template, Forkable bool
	Unforked           string
}

// count counts a worker that was started in place of another.
func (p *Pool) count(why process.Cause) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.restarts[why]++
}

// Stats reports on the pool.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Stats{Restarts: maps.Clone(p.restarts), Wanted: p.wanted, StartUp: p.startUp, Template: p.template != nil, Forkable: p.forkable, Unforked: p.unforked}
	for _, w := range p.workers {
		switch {
		case w.usable():
			s.Ready++
			s.PIDs = append(s.PIDs, w.process.PID)
		case w.retiring.Load():
			s.Retiring++
		default:
			s.Starting++
			continue
		}
		s.InFlight += int(w.inFlight.Load())
	}
	for _, a := range p.apart() {
		own := a.pool.Stats()
		s.Apart += own.Ready + own.Starting
		s.InFlight += own.InFlight
		for cause, n := range own.Restarts {
			s.Restarts[cause] += n
		}
	}
	return s
}

// Usage reads what the pool's processes use: some files of /proc for each.
func (p *Pool) Usage() process.Usage {
	u := p.starter.Usage()
	for _, a := range p.apart() {
		u = u.Plus(a.pool.Usage())
	}
	return u
}

// CPU is that of Usage alone: one file of /proc for each process.
func (p *Pool) CPU() time.Duration { return p.starter.CPU() }
