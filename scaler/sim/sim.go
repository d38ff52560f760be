// Package sim plays a trace of arrivals against policies of scaling: drover's own,
// models of its peers', and what one could do who knew the future.
//
// The model is one of discrete events in steps of a second. Messages of one step
// are one cohort, so the cost of a run depends on its length, not on the number of
// messages or of instances. Run is called from any goroutine; a run has its own
// source of random numbers, and the same seed gives the same run.
package sim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// step is the time between two events.
const step = time.Second

// Model is what scales, and how it behaves.
type Model struct {
	// Service is how long a message takes on average; Spread the standard deviation
	// as a part of that, of a lognormal distribution.
	Service time.Duration
	Spread  float64
	// Slots is how many messages an instance handles at once.
	Slots int
	// StartUp is how long an instance takes until it takes messages.
	StartUp time.Duration
	// Grace is how long one that goes may finish what it has in flight.
	Grace time.Duration
	// Downstream bounds what all instances do together, in messages a second: a
	// database, an API; 0 is no bound.
	Downstream float64
	// MaxAge is the age target: a message that waited longer is late.
	MaxAge time.Duration
	// Min and Max bound the number of instances, for every policy alike.
	Min, Max int
}

// Capacity is what one instance does, in messages a second.
func (m Model) Capacity() float64 { return float64(m.Slots) / m.Service.Seconds() }

// Check returns what is wrong with a model.
func (m Model) Check() error {
	switch {
	case m.Service < time.Millisecond || m.Service > time.Hour:
		return fmt.Errorf("service_time is %v; 1ms to 1h can be simulated", m.Service)
	case m.Spread < 0 || m.Spread > 10:
		return fmt.Errorf("spread is %v; 0 to 10 can be simulated", m.Spread)
	case m.Slots < 1:
		return fmt.Errorf("slots is %d; at least 1 is needed", m.Slots)
	case m.StartUp < 0 || m.Grace < 0 || m.Downstream < 0:
		return fmt.Errorf("start_up, grace and downstream must not be negative")
	case m.MaxAge < step:
		return fmt.Errorf("max_age is %v; at least %v can be simulated", m.MaxAge, step)
	case m.Min < 0 || m.Max < 1 || m.Min > m.Max:
		return fmt.Errorf("min is %d and max is %d; 0 <= min <= max and 1 <= max are needed", m.Min, m.Max)
	}
	return nil
}

// View is what a policy may know.
type View struct {
	At       time.Duration
	Backlog  int64
	Oldest   time.Duration
	InFlight int64
	// Received and Done count from the beginning; Taken is the handling time, in seconds, up to now.
	Received, Done            int64
	Taken                     float64 // s
	Ready, Starting, Draining int
	Slots                     int
	StartUp                   time.Duration // as measured; 0 until an instance has started
}

// Autoscaler is one policy, at work on one trace.
type Autoscaler interface {
	// Every is the time between two decisions, in whole seconds.
	Every() time.Duration
	// Decide returns how many instances there should be.
	Decide(v View) int
}

// Policy makes Autoscalers.
type Policy struct {
	Name string
	// IdleFirst says that it takes away instances that have nothing in flight first.
	IdleFirst bool
	New       func(m Model) Autoscaler
}

// Result is what became of a trace.
type Result struct {
	Policy, Trace string
	// InstanceSeconds counts all instances, from their start to their end.
	InstanceSeconds float64
	Messages        int64
	// Late were not handed out within the model's MaxAge; P99 is the age at the
	// hand-out that a hundredth exceeds.
	Late int64
	P99  time.Duration
	// Turns counts the changes of direction: from out to in, or back.
	Turns int
	// Interrupted were in flight in an instance when its grace was over.
	Interrupted int64
	// Backlog and Instances are over time, one value a step.
	Backlog   []float64
	Instances []float64
}

// LateShare is Late as a part of all.
func (r Result) LateShare() float64 {
	if r.Messages == 0 {
		return 0
	}
	return float64(r.Late) / float64(r.Messages)
}

// world is a run under way.
type world struct {
	model  Model
	random *rand.Rand
	queue  queue
	fleet  fleet
	flight flight

	received, done int64
	taken          float64 // s
	startUp        time.Duration
	ages           []int64 // by whole steps of age at the hand-out
	interrupted    int64
}

// Run plays a trace against a policy.
func Run(t Trace, m Model, p Policy, seed uint64) Result {
	w := &world{model: m, random: rand.New(rand.NewPCG(seed, 1)), flight: newFlight(m)}
	if w.fleet.ready = m.Min; m.Min > 0 {
		w.startUp = m.StartUp // they did start once
	}
	scaler := p.New(m)
	r := Result{Policy: p.Name, Trace: t.Name}
	every := max(int(scaler.Every()/step), 1)
	wanted, direction := m.Min, 0
	for i := range t.Steps() {
		now := time.Duration(i) * step
		came := t.At(i)
		r.Messages += came
		w.queue.add(now, came)
		if w.fleet.start(now) {
			w.startUp = m.StartUp
		}
		w.work(now)
		w.interrupted += w.fleet.drain(now, w)
		if i%every == 0 {
			next := min(max(scaler.Decide(w.view(now)), m.Min), m.Max)
			if d := sign(next - wanted); d != 0 {
				if direction != 0 && d != direction {
					r.Turns++
				}
				direction = d
			}
			wanted = next
			w.fleet.set(now, wanted, w, p.IdleFirst)
		}
		n := float64(w.fleet.count())
		r.InstanceSeconds += n * step.Seconds()
		r.Backlog = append(r.Backlog, float64(w.queue.count))
		r.Instances = append(r.Instances, n)
	}
	w.finish(&r, time.Duration(t.Steps())*step)
	return r
}

func sign(n int) int {
	switch {
	case n > 0:
		return 1
	case n < 0:
		return -1
	}
	return 0
}

func (w *world) view(now time.Duration) View {
	return View{
		At: now, Backlog: w.queue.count, Oldest: w.queue.oldest(now), InFlight: w.flight.now(),
		Received: w.received, Done: w.done, Taken: w.taken,
		Ready: w.fleet.ready, Starting: w.fleet.startingCount(), Draining: w.fleet.drainingCount(),
		Slots: w.model.Slots, StartUp: w.startUp,
	}
}

// work ends what is due in a step and hands out what there is room for.
func (w *world) work(now time.Duration) {
	limit := int64(math.MaxInt64)
	if w.model.Downstream > 0 {
		limit = w.whole(w.model.Downstream * step.Seconds())
	}
	done, room := w.flight.step(w, limit)
	w.done += done
	handed := w.queue.take(min(room, w.queue.count), func(at time.Duration, n int64) {
		age := int((now - at) / step)
		for len(w.ages) <= age {
			w.ages = append(w.ages, 0)
		}
		w.ages[age] += n
	})
	w.received += handed
	w.flight.begin(w, handed)
	w.taken += w.flight.mean() * step.Seconds()
}

// whole rounds at random, so that the mean is right.
func (w *world) whole(x float64) int64 {
	n := math.Floor(x)
	if w.random.Float64() < x-n {
		n++
	}
	return int64(n)
}

// finish reckons up the ages. What still waits counts with the age that it has.
func (w *world) finish(r *Result, end time.Duration) {
	w.queue.take(w.queue.count, func(at time.Duration, n int64) {
		age := int((end - at) / step)
		for len(w.ages) <= age {
			w.ages = append(w.ages, 0)
		}
		w.ages[age] += n
	})
	r.Interrupted = w.interrupted
	var all int64
	for _, n := range w.ages {
		all += n
	}
	below := int64(0)
	found := false
	for age, n := range w.ages {
		if at := time.Duration(age) * step; at > w.model.MaxAge {
			r.Late += n
		}
		if below += n; !found && float64(below) >= 0.99*float64(all) {
			r.P99, found = time.Duration(age)*step, true
		}
	}
}
