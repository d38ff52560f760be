package concurrency

import "math"

// Controller finds the settings of one pool. One goroutine at a time uses it.
type Controller struct {
	bounds  Bounds
	learned Learned
	kinds   map[string]Kind
}

// New makes a controller. learned is what an earlier one remembered; nil is nothing.
func New(bounds Bounds, learned *Learned) *Controller {
	c := &Controller{bounds: bounds, kinds: map[string]Kind{}}
	if learned != nil {
		c.learned = *learned
	}
	return c
}

// Look takes what was measured and decides what there should be from now on.
func (c *Controller) Look(s Sample) Decision {
	cores := max(1, int(math.Ceil(s.Cores)))
	want := Settings{Processes: cores, Threads: 1, Coroutines: 1}
	for _, f := range s.Functions {
		if f.Async {
			want.Coroutines = 100
		}
	}
	return Decision{Settings: c.bounds.clamp(want), Phase: PhaseStart, Note: "nothing is measured yet"}
}

// Kinds returns what is known of the functions, by name.
func (c *Controller) Kinds() map[string]Kind { return c.kinds }

// Learned returns what is worth being remembered.
func (c *Controller) Learned() Learned { return c.learned }

func (b Bounds) clamp(s Settings) Settings {
	return Settings{
		Processes:  min(max(s.Processes, b.Least.Processes), b.Most.Processes),
		Threads:    min(max(s.Threads, b.Least.Threads), b.Most.Threads),
		Coroutines: min(max(s.Coroutines, b.Least.Coroutines), b.Most.Coroutines),
	}
}
