package sim

import (
	"math"
)

// flight has the messages in flight. If a message takes longFrom steps or more, messages are
// counted by the step in which they will be done. Otherwise a slot handles several in a step.
type flight struct {
	model Model
	long  bool

	due    []int64   // a ring: the number that is done in each of the next steps
	head   int       // the current index
	odds   []float64 // the probability that a message is done in a step, if it was not before
	count  int64
	late   int64   // due, but delayed downstream
	shared float64 // short: mean messages in flight during the last step
}

// longFrom is the mean handling time, in steps, from which on messages are counted by their
// end.
const longFrom = 2

// tail is the fraction of the longest messages that are shortened to the same number of steps.
const tail = 1e-4

func newFlight(m Model) flight {
	f := flight{model: m, long: m.Service.Seconds() >= longFrom*step.Seconds()}
	if !f.long {
		return f
	}
	// The number of steps of a message: k is any time that rounds to k.
	below := 0.0
	for k := 1; below < 1-tail; k++ {
		to := m.probabilityWithin((float64(k) + 0.5) * step.Seconds())
		if to > 1-tail || k >= 100_000 {
			to = 1
		}
		f.odds = append(f.odds, (to-below)/(1-below))
		below = to
	}
	f.due = make([]int64, len(f.odds)+1)
	return f
}

// probabilityWithin returns the probability that a message takes at most that many seconds.
func (m Model) probabilityWithin(seconds float64) float64 {
	mean := m.Service.Seconds()
	if m.Spread == 0 {
		if seconds >= mean {
			return 1
		}
		return 0
	}
	variance := math.Log(1 + m.Spread*m.Spread)
	mu := math.Log(mean) - variance/2
	return 0.5 * math.Erfc(-(math.Log(seconds)-mu)/math.Sqrt(2*variance))
}

// inFlight returns the number of messages in flight; meanInFlight is the same over the last step.
func (f *flight) inFlight() int64 { return int64(math.Round(f.meanInFlight())) }

func (f *flight) meanInFlight() float64 {
	if f.long {
		return float64(f.count)
	}
	return f.shared
}

// finishDue finishes the messages that are due, at most limit. It returns how many those are, and
// how many more may begin.
func (f *flight) finishDue(w *world, limit int64) (done, room int64) {
	slots := int64(w.fleet.ready) * int64(f.model.Slots)
	if !f.long {
		return f.stepShort(w, limit, slots)
	}
	f.head = (f.head + 1) % len(f.due)
	due := f.due[f.head] + f.late
	f.due[f.head] = 0
	done = min(due, limit)
	f.late = due - done
	f.count -= done
	left := w.fleet.removeDone(done, f.count+done)
	return done, max(slots-(f.count-left), 0)
}

// stepShort delivers as many messages as a step can handle, and finishes them at once.
func (f *flight) stepShort(w *world, limit, slots int64) (done, room int64) {
	capacity := float64(slots) * step.Seconds() / f.model.Service.Seconds()
	if capacity > 0 {
		capacity += math.Sqrt(capacity) * f.model.Spread * w.random.NormFloat64()
	}
	done = min(max(int64(capacity), 0), limit, w.queue.count)
	busy := float64(done) * f.model.Service.Seconds()
	if done < w.queue.count { // all slots wait for the downstream limit
		busy = float64(slots) * step.Seconds()
	}
	f.shared = math.Min(busy/step.Seconds(), float64(slots))
	return done, done
}

// addInFlight adds n messages in flight.
func (f *flight) addInFlight(w *world, n int64) {
	if !f.long {
		return
	}
	f.count += n
	for k := 0; n > 0; k++ {
		ended := n
		if odds := f.odds[k]; odds < 1 {
			ended = binomial(w, n, odds)
		}
		f.due[(f.head+1+k)%len(f.due)] += ended
		n -= ended
	}
}

// interrupt removes n messages in flight: those with the latest end.
func (f *flight) interrupt(n int64) {
	f.count -= n
	for k := len(f.due) - 1; k >= 1 && n > 0; k-- {
		at := (f.head + k) % len(f.due)
		taken := min(f.due[at], n)
		f.due[at] -= taken
		n -= taken
	}
	f.late -= n
}

// binomial returns a random number of successes in n trials of probability p.
func binomial(w *world, n int64, p float64) int64 {
	mean := float64(n) * p
	if n > 50 && mean > 10 && mean < float64(n)-10 {
		x := math.Round(mean + math.Sqrt(mean*(1-p))*w.random.NormFloat64())
		return int64(math.Min(math.Max(x, 0), float64(n)))
	}
	if n > 50 { // rare, or almost certain: approximately Poisson
		if p > 0.5 {
			return n - min(poisson(w.random, float64(n)*(1-p)), n)
		}
		return min(poisson(w.random, mean), n)
	}
	var hits int64
	for range n {
		if w.random.Float64() < p {
			hits++
		}
	}
	return hits
}
