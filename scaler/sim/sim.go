// Package sim runs a trace of arrivals against scaling policies: drover's own, models of its
// peers, and a bound with knowledge of the future.
//
// The model has discrete steps of a second. The messages of one step are one cohort, so the
// cost of a run depends on its length, not on the number of messages or instances. Run may be
// called from any goroutine. Each run has its own source of random numbers, and the same seed
// gives the same run.
package sim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// step is the time between two events.
const step = time.Second

// Model describes the system that is scaled.
type Model struct {
	// Service is the mean handling time of a message. Spread is the standard deviation as a
	// fraction of it, of a lognormal distribution.
	Service time.Duration
	Spread  float64
	// Slots is the number of messages that an instance handles at once.
	Slots int
	// StartUp is the time from the start of an instance until it receives messages.
	StartUp time.Duration
	// Grace is the time that a draining instance has to finish its messages.
	Grace time.Duration
	// Downstream bounds the throughput of all instances together, in messages per second, such
	// as that of a database or an API; 0 is no bound.
	Downstream float64
	// MaxAge is the age target: a message that waited longer is late.
	MaxAge time.Duration
	// Min and Max bound the number of instances, for all policies.
	Min, Max int
}

// Capacity returns the capacity of one instance, in messages per second.
func (m Model) Capacity() float64 { return float64(m.Slots) / m.Service.Seconds() }

// Check returns an error if a model is not valid.
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

// View is the information that a policy gets.
type View struct {
	At       time.Duration
	Backlog  int64
	Oldest   time.Duration
	InFlight int64
	// Received and Done count from the start; Taken is the total handling time so far.
	Received, Done            int64
	Taken                     float64 // s
	Ready, Starting, Draining int
	Slots                     int
	StartUp                   time.Duration // as measured; 0 until an instance has started
}

// Autoscaler is one policy during one run.
type Autoscaler interface {
	// DecideEvery returns the time between two decisions, in whole seconds.
	DecideEvery() time.Duration
	// DecideUnits returns how many instances to run.
	DecideUnits(v View) int
}

// Policy creates Autoscalers.
type Policy struct {
	Name string
	// IdleFirst reports that it first removes instances without messages in flight.
	IdleFirst bool
	New       func(m Model) Autoscaler
}

// Result is the outcome of one run.
type Result struct {
	Policy, Trace string
	// InstanceSeconds is the total lifetime of all instances, from start to end.
	InstanceSeconds float64
	Messages        int64
	// Late counts the messages that were not delivered within the model's MaxAge. P99 is the
	// 99th percentile of the age at delivery.
	Late int64
	P99  time.Duration
	// Turns counts the changes of direction, from scale-out to scale-in or back.
	Turns int
	// Interrupted counts the messages in flight in an instance when its grace ended.
	Interrupted int64
	// Backlog and Instances have one value for each step.
	Backlog   []float64
	Instances []float64
}

// LateShare returns Late as a fraction of all messages.
func (r Result) LateShare() float64 {
	if r.Messages == 0 {
		return 0
	}
	return float64(r.Late) / float64(r.Messages)
}

// world is the state of a run.
type world struct {
	model  Model
	random *rand.Rand
	queue  queue
	fleet  fleet
	flight flight

	received, done int64
	taken          float64 // s
	startUp        time.Duration
	ages           []int64 // counts by age at delivery, in whole steps
	interrupted    int64
}

// Run runs a trace against a policy.
func Run(t Trace, m Model, p Policy, seed uint64) Result {
	w := &world{model: m, random: rand.New(rand.NewPCG(seed, 1)), flight: newFlight(m)}
	if w.fleet.ready = m.Min; m.Min > 0 {
		w.startUp = m.StartUp // they have started already
	}
	scaler := p.New(m)
	r := Result{Policy: p.Name, Trace: t.Name}
	every := max(int(scaler.DecideEvery()/step), 1)
	wanted, direction := m.Min, 0
	for i := range t.Steps() {
		now := time.Duration(i) * step
		came := t.ArrivalsAt(i)
		r.Messages += came
		w.queue.add(now, came)
		if w.fleet.finishStarts(now) {
			w.startUp = m.StartUp
		}
		w.stepMessages(now)
		w.interrupted += w.fleet.endDrained(now, w)
		if i%every == 0 {
			next := min(max(scaler.DecideUnits(w.currentView(now)), m.Min), m.Max)
			if d := sign(next - wanted); d != 0 {
				if direction != 0 && d != direction {
					r.Turns++
				}
				direction = d
			}
			wanted = next
			w.fleet.setCount(now, wanted, w, p.IdleFirst)
		}
		n := float64(w.fleet.count())
		r.InstanceSeconds += n * step.Seconds()
		r.Backlog = append(r.Backlog, float64(w.queue.count))
		r.Instances = append(r.Instances, n)
	}
	w.computeAges(&r, time.Duration(t.Steps())*step)
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

func (w *world) currentView(now time.Duration) View {
	return View{
		At: now, Backlog: w.queue.count, Oldest: w.queue.oldestAge(now), InFlight: w.flight.inFlight(),
		Received: w.received, Done: w.done, Taken: w.taken,
		Ready: w.fleet.ready, Starting: w.fleet.startingCount(), Draining: w.fleet.drainingCount(),
		Slots: w.model.Slots, StartUp: w.startUp,
	}
}

// stepMessages finishes the messages that are due in a step, and delivers as many as there are free
// slots.
func (w *world) stepMessages(now time.Duration) {
	limit := int64(math.MaxInt64)
	if w.model.Downstream > 0 {
		limit = w.roundRandomly(w.model.Downstream * step.Seconds())
	}
	done, room := w.flight.finishDue(w, limit)
	w.done += done
	handed := w.queue.take(min(room, w.queue.count), func(at time.Duration, n int64) {
		age := int((now - at) / step)
		for len(w.ages) <= age {
			w.ages = append(w.ages, 0)
		}
		w.ages[age] += n
	})
	w.received += handed
	w.flight.addInFlight(w, handed)
	w.taken += w.flight.meanInFlight() * step.Seconds()
}

// roundRandomly rounds up or down at random, with the mean x.
func (w *world) roundRandomly(x float64) int64 {
	n := math.Floor(x)
	if w.random.Float64() < x-n {
		n++
	}
	return int64(n)
}

// computeAges computes the ages. Messages that still wait count with their age at the end.
func (w *world) computeAges(r *Result, end time.Duration) {
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
