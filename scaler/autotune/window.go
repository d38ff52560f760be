package autotune

import (
	"math"
	"time"
)

// window sums samples that were taken under one plan.
type window struct {
	samples int
	seconds float64
	began   time.Duration
	flows   map[string]*flow
	// cores × seconds
	cores, cpu, daemon, others, queue float64
	memory                            uint64 // the peak
}

// flow is one function's part of a window.
type flow struct {
	done, wall, saturated, inFlight float64 // calls, s, s, calls × s
	limit                           int
	timeout                         float64 // s
	// the number of samples, and the mean and the sum of squared deviations of their rates
	n, mean, squares float64
}

func newWindow() *window { return &window{flows: map[string]*flow{}} }

func (w *window) addSample(s Sample, seconds float64) {
	if w.samples == 0 {
		w.began = s.At
	}
	w.samples++
	w.seconds += seconds
	w.cores += s.Cores * seconds
	w.cpu += s.CPU * seconds
	w.daemon += s.Daemon * seconds
	w.others += s.Others * seconds
	if !math.IsNaN(s.RunQueue) {
		w.queue += s.RunQueue * seconds
	}
	w.memory = max(w.memory, s.Memory)
	for _, f := range s.Functions {
		l := w.flows[f.Name]
		if l == nil {
			l = &flow{}
			w.flows[f.Name] = l
		}
		l.limit, l.timeout = f.Limit, f.Timeout.Seconds()
		l.done += float64(f.Done)
		l.wall += f.AllWall.Seconds()
		l.inFlight += f.InFlight * seconds
		if f.Saturated {
			l.saturated += seconds
		}
		rate := float64(f.Done) / seconds
		l.n++
		off := rate - l.mean
		l.mean += off / l.n
		l.squares += off * (rate - l.mean)
	}
}

// fadeBy reduces the weight of all earlier samples.
func (w *window) fadeBy(by float64) {
	w.seconds *= by
	w.cores *= by
	w.cpu *= by
	w.daemon *= by
	w.others *= by
	w.queue *= by
	for _, l := range w.flows {
		l.done, l.wall, l.saturated, l.inFlight = l.done*by, l.wall*by, l.saturated*by, l.inFlight*by
		l.n, l.squares = l.n*by, l.squares*by
	}
}

// perSecond returns the mean per second of a sum of the window.
func (w *window) perSecond(sum float64) float64 {
	if w.seconds == 0 {
		return 0
	}
	return sum / w.seconds
}

// fair is the fraction of the cores that a pool gets if it needs them, whatever others use, because
// the kernel's scheduler shares them.
const fair = 0.5

// usableCores returns how many cores the pool could use.
func (w *window) usableCores() float64 {
	return math.Max(w.perSecond(w.cores-w.others-w.daemon), fair*w.perSecond(w.cores))
}

// cpuHeadroom returns the factor by which the pool's CPU use could grow; infinite if unknown.
func (w *window) cpuHeadroom() float64 {
	if w.cpu <= 0 {
		return math.Inf(1)
	}
	return w.usableCores() / w.perSecond(w.cpu)
}

// callsDone returns the number of calls of all functions.
func (w *window) callsDone() (n float64) {
	for _, l := range w.flows {
		n += l.done
	}
	return n
}

// busyPart is the fraction of a window in which a busy function must have been saturated.
const busyPart = 0.7

func (l *flow) isBusy(w *window) bool { return w.seconds > 0 && l.saturated >= busyPart*w.seconds }

// isCapped reports that the function was held by its own limit, and not by the plan.
func (l *flow) isCapped(w *window) bool {
	return l.limit > 0 && w.perSecond(l.inFlight) >= 0.9*float64(l.limit)
}

// rateError returns the relative standard error of the rate, from the variance of the samples. It
// is at most that of independent calls, 1/√n.
func (l *flow) rateError() float64 {
	if l.done < 1 {
		return 1
	}
	independent := 1 / math.Sqrt(l.done)
	if l.n < 3 || l.mean <= 0 {
		return independent
	}
	scatter := math.Sqrt(l.squares/(l.n-1)/l.n) / l.mean
	return math.Min(independent, math.Hypot(scatter, 0.5/l.done))
}

// gainFrom returns how much more is done in b than in a, and the standard error. It is the mean of
// the logarithms of the ratios of the rates, over the functions that are busy in either.
func gainFrom(a, b *window) (by, err float64) {
	var n float64
	for name, before := range a.flows {
		after := b.flows[name]
		if after == nil || !before.isBusy(a) && !after.isBusy(b) || before.done == 0 && after.done == 0 {
			continue
		}
		n++
		by += math.Log(math.Max(after.done, 0.5) / b.seconds * a.seconds / math.Max(before.done, 0.5))
		err += before.rateError()*before.rateError() + after.rateError()*after.rateError()
	}
	if n == 0 {
		return 0, math.Inf(1)
	}
	return by / n, math.Sqrt(err) / n
}

// perCall returns the CPU time of a call over all functions, in seconds.
func perCall(w *window) float64 {
	if n := w.callsDone(); n > 0 {
		return w.cpu / n
	}
	return 0
}
