package sim

import (
	"math"
	"math/rand/v2"
	"time"
)

// A standard instance handles four messages at once, half a second each, and is ready after
// five seconds: a small worker process in a container. The maximum of 100 is KEDA's default.
var standard = Model{
	Service: 500 * time.Millisecond, Spread: 1, Slots: 4,
	StartUp: 5 * time.Second, Grace: 30 * time.Second,
	MaxAge: 30 * time.Second, Min: 1, Max: 100,
}

// Traces returns the traces of the comparison. The same seed returns the same traces.
func Traces(seed uint64) []Trace {
	slow, behind := standard, standard
	slow.StartUp = time.Minute
	behind.Downstream = 200
	return []Trace{
		poissonTrace("steady", seed, 2*time.Hour, standard, func(float64) float64 { return 100 }),
		poissonTrace("step", seed, 90*time.Minute, standard, func(s float64) float64 {
			if s >= 1800 && s < 3600 {
				return 400
			}
			return 20
		}),
		poissonTrace("ramp", seed, 2*time.Hour, standard, func(s float64) float64 {
			return 600 * (1 - math.Abs(s-3600)/3600)
		}),
		poissonTrace("daily season", seed, 4*24*time.Hour, standard, func(s float64) float64 {
			return 210 - 190*math.Cos(2*math.Pi*s/86400)
		}),
		poissonTrace("bursts", seed, 4*time.Hour, standard, burstRates(seed, 4*time.Hour)),
		poissonTrace("spike", seed, time.Hour, standard, func(s float64) float64 {
			if s >= 1500 && s < 1620 {
				return 1000
			}
			return 10
		}),
		poissonTrace("bottleneck", seed, 2*time.Hour, behind, func(s float64) float64 {
			if s >= 1800 && s < 3000 {
				return 300
			}
			return 100
		}),
		poissonTrace("slow starters", seed, 2*time.Hour, slow, func(s float64) float64 {
			return 200 - 150*math.Cos(2*math.Pi*s/2400)
		}),
	}
}

// poissonTrace returns a trace with Poisson counts of each second at a rate.
func poissonTrace(name string, seed uint64, length time.Duration, m Model, rate func(seconds float64) float64) Trace {
	random := rand.New(rand.NewPCG(seed, 2))
	t := Trace{Name: name, Each: step, Model: m, Counts: make([]int64, int(length/step))}
	for i := range t.Counts {
		t.Counts[i] = poisson(random, rate(float64(i)))
	}
	return t
}

// burstRates returns a rate of 20 per second with bursts of random size: a Pareto distribution with
// an exponent of 1.5, from 500 messages, each over 20 seconds, on average every five minutes.
func burstRates(seed uint64, length time.Duration) func(float64) float64 {
	random := rand.New(rand.NewPCG(seed, 3))
	const over = 20
	rates := make([]float64, int(length.Seconds()))
	for at := 0.0; ; {
		at += 300 * random.ExpFloat64()
		if at >= float64(len(rates)-over) {
			break
		}
		size := math.Min(500/math.Pow(random.Float64(), 1/1.5), 200_000)
		for i := range over {
			rates[int(at)+i] += size / over
		}
	}
	return func(s float64) float64 { return 20 + rates[int(s)] }
}
