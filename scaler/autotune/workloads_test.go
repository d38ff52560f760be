package autotune

import (
	"fmt"
	"math"
	"os"
	"testing"
	"time"
)

// settings returns settings with these numbers.
func settings(processes, threads, coroutines int) Settings {
	return Settings{Processes: processes, Threads: threads, Coroutines: coroutines}
}

var testBounds = Bounds{Least: settings(1, 1, 1), Most: settings(16, 128, 4096)}

// workloads are models of those in bench/workloads.
var workloads = map[string][]model{
	"no-op":              {{name: "noop", cpu: 50e-6}},
	"CPU":                {{name: "cpu", cpu: 20e-3}},
	"CPU without GIL":    {{name: "hash", cpu: 20e-3, releases: true}},
	"blocking sleep":     {{name: "sleep", cpu: 0.2e-3, wait: 0.1}},
	"async sleep":        {{name: "nap", async: true, cpu: 20e-6, wait: 0.1}},
	"30% CPU":            {{name: "third", cpu: 6e-3, wait: 14e-3}},
	"run_in_executor":    {{name: "fetch", async: true, cpu: 3e-3, wait: 0.2, parts: 10}},
	"opposite kinds":     {{name: "cpu", cpu: 20e-3}, {name: "sleep", cpu: 0.2e-3, wait: 0.1}},
	"async never awaits": {{name: "hog", async: true, cpu: 20e-3}},
}

// rates are the calls per second of each function, over some time.
func (w *world) rates(before []float64, d time.Duration) []float64 {
	out := make([]float64, len(w.total))
	for i := range out {
		out[i] = (w.total[i] - before[i]) / d.Seconds()
	}
	return out
}

// score is the objective: the geometric mean of the rates.
func score(rates []float64) float64 {
	var sum float64
	for _, r := range rates {
		sum += math.Log(math.Max(r, 1e-3))
	}
	return math.Exp(sum / float64(len(rates)))
}

// grid is the best score of all settings in a grid, each simulated for some time.
func grid(models []model, limits map[string]int, cores float64, b Bounds) (best float64, at Settings) {
	var sync, async int
	for _, m := range models {
		if m.async {
			async = 1
		} else {
			sync = 1
		}
	}
	by := 2 << (sync * async) // a coarser one where there are three dimensions
	for p := b.Least.Processes; p <= min(b.Most.Processes, 8); p *= 2 {
		for t := b.Least.Threads; t <= b.Most.Threads; t *= by {
			for c := b.Least.Coroutines; c <= b.Most.Coroutines; c *= 2 * by {
				w := newWorld(7, cores, models...)
				w.startUp = 0
				set := settings(p, t, c)
				w.apply(set, limits)
				w.play(500 * time.Millisecond)
				before := append([]float64(nil), w.total...)
				w.play(2 * time.Second)
				if s := score(w.rates(before, 2*time.Second)); s > best {
					best, at = s, set
				}
				if async == 0 {
					break
				}
			}
			if sync == 0 {
				break // no function runs in threads
			}
		}
	}
	return best, at
}

// run is a controller with a simulated world.
type run struct {
	*world
	c       *Controller
	last    Decision
	changes int
	tick    time.Duration // between two looks
	verbose bool
}

func newRun(w *world, b Bounds, l *Learned) *run {
	r := &run{world: w, c: New(b, l), tick: 250 * time.Millisecond, verbose: os.Getenv("TRACE") != ""}
	r.decide(Sample{Cores: w.cores, Functions: append([]Function(nil), w.sum...)})
	r.changes = 0
	return r
}

func (r *run) decide(s Sample) {
	if s.At == 0 {
		for i := range s.Functions {
			s.Functions[i].Saturated = false
		}
	}
	d := r.c.Look(s)
	if d.Settings != r.last.Settings {
		r.changes++
	}
	if r.verbose && (d.Settings != r.last.Settings || d.Phase != r.last.Phase || d.Note != r.last.Note) {
		fmt.Printf("%7.2fs %-9s %v %v %s\n", s.At.Seconds(), d.Phase, d.Settings, d.Limits, d.Note)
	}
	if r.verbose && os.Getenv("TRACE") == "2" {
		fmt.Printf("  %7.2fs cpu %.3g daemon %.3g queue %.3g ready %d", s.At.Seconds(), s.CPU, s.Daemon, s.RunQueue, s.Ready)
		for _, f := range s.Functions {
			fmt.Printf("; %s done %d inflight %.3g wall %.3gms saturated %v", f.Name, f.Done, f.InFlight, f.AllWall.Seconds()/float64(f.Done)*1000, f.Saturated)
		}
		fmt.Printf(" %+v\n", r.c.Kinds())
	}
	r.last = d
	r.apply(d.Settings, d.Limits)
}

// run simulates a duration, and returns the score of each interval between two samples.
func (r *run) run(d time.Duration) (scores []float64) {
	for end := r.now + d; r.now < end; {
		before := append([]float64(nil), r.total...)
		s := r.play(r.tick)
		scores = append(scores, score(r.rates(before, r.tick)))
		r.decide(s)
	}
	return scores
}

func mean(x []float64) float64 {
	var sum float64
	for _, v := range x {
		sum += v
	}
	return sum / float64(len(x))
}

// reached returns when the mean of two seconds first reaches want, and the mean of all later
// scores.
func reached(scores []float64, want float64, tick time.Duration) time.Duration {
	const over = 8
	for i := 0; i+over <= len(scores); i++ {
		if mean(scores[i:i+over]) >= want && mean(scores[i:]) >= want {
			return time.Duration(i) * tick
		}
	}
	return time.Hour
}

func TestWorkloads(t *testing.T) {
	for name, models := range workloads {
		t.Run(name, func(t *testing.T) {
			best, at := grid(models, nil, 2, testBounds)
			for seed := range uint64(2) {
				r := newRun(newWorld(seed, 2, models...), testBounds, nil)
				scores := r.run(30 * time.Second)
				early := reached(scores, 0.9*best, r.tick)
				after := mean(r.run(30*time.Second)) / best
				t.Logf("best %.4g at %v; after 30 s %.3f of it, 0.9 after %v; %d changes; now %v, %s", best, at, after, early, r.changes, r.last.Settings, r.last.Phase)
				if after < 0.95 {
					t.Errorf("after 30 s %.3f of the best (%.4g at %v); it has %v", after, best, at, r.last.Settings)
				}
				if early > 15*time.Second {
					t.Errorf("0.9 of the best after %v", early)
				}
			}
		})
	}
}

// The reference is a grid in which every cell has the limit, too. The difference: with more
// processes than cores, waiting calls do not need the GIL of computing ones.
func TestOppositeKindsAgainstLimits(t *testing.T) {
	models := workloads["opposite kinds"]
	best, at := grid(models, map[string]int{"cpu": 1}, 2, testBounds)
	r := newRun(newWorld(1, 2, models...), testBounds, nil)
	r.run(30 * time.Second)
	if got := mean(r.run(30*time.Second)) / best; got < 0.88 {
		t.Errorf("%.3f of the best (%.4g at %v); it has %v, %v", got, best, at, r.last.Settings, r.last.Limits)
	}
}
