package sim

import (
	"math"
	"time"
)

// Knative is the Knative Pod Autoscaler with its defaults, for the concurrency of a source that
// pushes all waiting messages. The numbers are from Knative's documentation of the autoscaler
// and from its ConfigMap config-autoscaler: a tick of 2 s, a stable window of 60 s, a panic
// window of 10 % of that, panic at 200 %, a target of 70 % of a container's concurrency,
// scale-out by at most 1000 times and scale-in by at most half in one tick, and 30 s of grace
// before the last pod stops.
func Knative() Policy {
	return Policy{Name: "Knative KPA", New: func(m Model) Autoscaler {
		return &knative{target: knativeTarget * float64(m.Slots), pods: m.Min}
	}}
}

const (
	knativeTick    = 2 * time.Second
	knativeStable  = 60 * time.Second
	knativePanic   = 6 * time.Second
	knativePanicAt = 2.0
	knativeTarget  = 0.7
	knativeOut     = 1000
	knativeIn      = 2
	knativeGrace   = 30 * time.Second
)

type knative struct {
	target   float64
	pods     int
	samples  []float64 // one per tick
	panicked bool
	since    time.Duration // when the panic condition last held
	most     int           // the highest number wanted during the panic
	idle     time.Duration // since when there are no messages
}

func (k *knative) DecideEvery() time.Duration { return knativeTick }

func (k *knative) DecideUnits(v View) int {
	const stable, short = int(knativeStable / knativeTick), int(knativePanic / knativeTick)
	k.samples = append(k.samples, float64(v.Backlog+v.InFlight))
	if len(k.samples) > stable {
		k.samples = k.samples[1:]
	}
	ready := math.Max(float64(v.Ready), 1)
	wanted := func(samples []float64) int {
		sum := 0.0
		for _, s := range samples {
			sum += s
		}
		pods := math.Ceil(sum / float64(len(samples)) / k.target)
		pods = math.Max(math.Min(pods, math.Ceil(knativeOut*ready)), math.Floor(ready/knativeIn))
		return int(pods)
	}
	calm, hasty := wanted(k.samples), wanted(k.samples[max(len(k.samples)-short, 0):])
	if float64(hasty)/ready >= knativePanicAt {
		if !k.panicked {
			k.panicked, k.most = true, 0
		}
		k.since = v.At
	} else if k.panicked && v.At-k.since >= knativeStable {
		k.panicked = false
	}
	pods := calm
	if k.panicked {
		k.most = max(k.most, hasty, calm)
		pods = k.most
	}
	if v.Backlog+v.InFlight > 0 {
		k.idle = v.At
	}
	if pods == 0 && v.At-k.idle < knativeStable+knativeGrace {
		pods = min(max(k.pods, 1), 1)
	}
	k.pods = pods
	return pods
}
