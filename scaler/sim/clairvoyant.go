package sim

import (
	"math"
	"time"
)

// Clairvoyant returns the minimum cost with knowledge of all arrivals: each message is
// delivered within the model's MaxAge, where that is possible, and instances are divisible and
// always busy. It is a lower bound, not a policy: no real system can reach it. Late counts the
// messages that cannot be delivered in time.
//
// Of all ways to serve the messages after their arrival and before their deadline, it takes the
// shortest path between the two curves, a taut string. That one starts the fewest instances, so
// it pays for the fewest start-ups.
func Clairvoyant(t Trace, m Model) Result {
	n := t.Steps()
	late, early := make([]float64, n+1), make([]float64, n+1)
	r := Result{Policy: "clairvoyant", Trace: t.Name, Messages: t.Messages()}
	age := int(m.MaxAge / step)
	each := m.Capacity() * step.Seconds()
	came := make([]float64, n+1)
	for i := range n {
		limit := float64(m.Max) * each
		if m.Downstream > 0 {
			limit = math.Min(limit, m.Downstream*step.Seconds())
		}
		if time.Duration(i)*step < m.StartUp { // no more can have started before
			limit = math.Min(limit, float64(m.Min)*each)
		}
		came[i+1] = came[i] + float64(t.ArrivalsAt(i))
		early[i+1] = math.Min(came[i+1], early[i]+limit)
		r.Late += int64(math.Max(math.Min(came[max(i-age, 0)], early[i+1])-early[i], 0))
	}
	r.Late += int64(math.Max(came[max(n-age, 0)]-early[n], 0))
	for i := range n + 1 {
		late[i] = math.Min(came[max(i-age, 0)], early[i])
	}
	late[n] = early[n] // all messages are done at the end
	had := float64(m.Min)
	for _, rate := range tautSlopes(late, early) {
		instances := math.Min(math.Max(rate/each, float64(m.Min)), float64(m.Max))
		r.InstanceSeconds += instances * step.Seconds()
		if instances > had {
			r.InstanceSeconds += (instances - had) * m.StartUp.Seconds()
		}
		had = instances
		r.Instances = append(r.Instances, instances)
	}
	done := 0.0
	for i, rate := range r.Instances {
		done = math.Min(done+rate*each, early[i+1])
		r.Backlog = append(r.Backlog, came[i+1]-done)
	}
	return r
}

// tautSlopes returns the slope, in each step, of the shortest path from late[0] to late[n] that is
// never below late nor above early.
func tautSlopes(late, early []float64) []float64 {
	n := len(late) - 1
	out := make([]float64, 0, n)
	at, height := 0, late[0]
	for at < n {
		// The slopes of a straight continuation, and the points that limit them.
		low, high := math.Inf(-1), math.Inf(1)
		lowAt, highAt := at+1, at+1
		end, slope := n, math.NaN()
		for i := at + 1; i <= n; i++ {
			span := float64(i - at)
			l, h := (late[i]-height)/span, (early[i]-height)/span
			if l > high { // it must bend at the upper curve
				end, slope = highAt, high
				break
			}
			if h < low { // at the lower one
				end, slope = lowAt, low
				break
			}
			if l >= low {
				low, lowAt = l, i
			}
			if h <= high {
				high, highAt = h, i
			}
		}
		if math.IsNaN(slope) {
			end, slope = n, (late[n]-height)/float64(n-at)
		}
		for range end - at {
			out = append(out, slope)
		}
		height += slope * float64(end-at)
		at = end
	}
	return out
}
