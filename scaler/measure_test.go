package scaler

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func near(t *testing.T, what string, got, want, within float64) {
	t.Helper()
	if !(math.Abs(got-want) <= within*want) {
		t.Errorf("%s is %.4g, want %.4g within %.0f%%", what, got, want, 100*within)
	}
}

// An idle unit does not look slow: capacity is measured while units are busy.
func TestMeterIdleIsNotSlow(t *testing.T) {
	var m Meter
	c := Counts{Slots: 4}
	var l Load
	for i := range 60 { // ten a second of 100 ms each: a quarter of four slots
		l, _ = m.Look("f", time.Duration(i)*time.Second, c, 1)
		c.Received += 10
		c.Done += 10
		c.Taken++
		c.Used = 1
	}
	near(t, "capacity", l.Capacity, 40, 0.01)
	near(t, "arrivals", l.Arrivals, 10, 0.01)
	for i := range 600 { // and then nothing for ten minutes
		c.Used = 0
		l, _ = m.Look("f", time.Duration(60+i)*time.Second, c, 1)
	}
	near(t, "capacity after a rest", l.Capacity, 40, 0.01)
}

func TestMeterFollowsASlowerFunction(t *testing.T) {
	var m Meter
	c := Counts{Slots: 2, Used: 2, Backlog: 1000}
	var l Load
	at := time.Duration(0)
	for range 60 {
		l, _ = m.Look("f", at, c, 1)
		at += time.Second
		c.Done += 100
		c.Taken += 2
	}
	near(t, "capacity", l.Capacity, 100, 0.01)
	for range 3 {
		l, _ = m.Look("f", at, c, 1)
		at += time.Second
		c.Done += 20
		c.Taken += 2
	}
	near(t, "capacity of a slower function, two looks later", l.Capacity, 20, 0.1)
}

func TestMeterArrivals(t *testing.T) {
	var m Meter
	m.Look("f", 0, Counts{Backlog: 100}, 1)
	l, _ := m.Look("f", 10*time.Second, Counts{Received: 50, Backlog: 150}, 1)
	near(t, "arrivals", l.Arrivals, 10, 0)
	l, _ = m.Look("f", 20*time.Second, Counts{Received: 100, Backlog: Unreadable}, 1)
	near(t, "arrivals, with the backlog unreadable", l.Arrivals, 5, 0)
	l, _ = m.Look("f", 30*time.Second, Counts{Received: 100, Backlog: 0}, 1) // purged, or another took them
	if l.Arrivals != 0 {
		t.Errorf("arrivals are %v, want 0", l.Arrivals)
	}
	if l.Capacity != 0 {
		t.Errorf("nothing was done, and the capacity is %v", l.Capacity)
	}
}

func TestForecastTrend(t *testing.T) {
	var f forecast
	for s := range 300 {
		f.addRate(time.Duration(s)*time.Second, 100+2*float64(s))
	}
	near(t, "the forecast for 30 s", f.rateAfter(30*time.Second), 100+2*330, 0.05)

	random := rand.New(rand.NewPCG(1, 1))
	off := 0
	f = forecast{}
	for s := range 3600 {
		f.addRate(time.Duration(s)*time.Second, 100+10*random.NormFloat64())
		if got := f.rateAfter(30 * time.Second); math.Abs(got-100) > 15 {
			off++
		}
	}
	if off > 36 {
		t.Errorf("noise without a trend was forecast to grow or fall in %d of 3600 looks", off)
	}
}

func TestForecastTakesAJump(t *testing.T) {
	var f forecast
	for s := range 60 {
		f.addRate(time.Duration(s)*5*time.Second, 10)
	}
	f.addRate(305*time.Second, 1000)
	near(t, "the level after a jump", f.level, 1000, 0.01)
	near(t, "the forecast after a jump", f.rateAfter(time.Minute), 1000, 0.01)
}

func TestForecastSeason(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	rate := func(s float64) float64 { // each hour on the hour, for ten minutes
		if math.Mod(s, 3600) < 600 {
			return 500
		}
		return 50
	}
	var f forecast
	const look = 10
	for s := 0; s < 3*3600-60; s += look {
		f.addRate(time.Duration(s)*time.Second, math.Max(rate(float64(s))+7*random.NormFloat64(), 0))
	}
	near(t, "the forecast for two minutes later, past the hour", f.rateAfter(2*time.Minute), 500, 0.2)
	if got := f.rateAfter(10 * time.Second); got > 100 {
		t.Errorf("the forecast for ten seconds later, before the hour, is %.0f, want about 50", got)
	}
}

// The season of past periods does not replace the current level.
func TestForecastSeasonEnds(t *testing.T) {
	var f forecast
	s := 0
	for ; s < 3*3600; s += 10 {
		rate := 50.0
		if s%3600 < 600 {
			rate = 500
		}
		f.addRate(time.Duration(s)*time.Second, rate)
	}
	for ; s < 6*3600-60; s += 10 {
		f.addRate(time.Duration(s)*time.Second, 50)
	}
	if got := f.rateAfter(2 * time.Minute); got > 75 {
		t.Errorf("three hours after the season has ended the forecast is %.0f, want about 50", got)
	}
}

// drive makes a Scaler scale units that each handle 10/s until, all together, they reach a limit,
// with more work than that.
func drive(s *Scaler, from, to time.Duration, ready int, limit func(at time.Duration) float64, note func(at time.Duration, d Decision)) int {
	for at := from; at < to; at += 5 * time.Second {
		rate := math.Min(10*float64(ready), limit(at))
		d := s.Decide(Signals{At: at, Ready: ready, Needed: ready, Loads: []Load{{
			Function: "f", Backlog: 100_000, Arrivals: rate, Done: rate, Busy: 1, Slots: 1, Capacity: rate / float64(ready),
		}}})
		ready = d.Wanted
		if note != nil {
			note(at, d)
		}
	}
	return ready
}

func TestStopsAddingAtABottleneck(t *testing.T) {
	s := New(testPolicy(func(p *Policy) { p.Max, p.MinGain, p.ScaleInAfter = 1000, 0.1, 15*time.Second }))
	tries := 0
	last := 0
	ready := drive(s, 0, 2*time.Hour, 4, func(at time.Duration) float64 {
		return 200
	}, func(at time.Duration, d Decision) {
		if at > 5*time.Minute && d.Wanted > last && last > 0 {
			tries++
		}
		if at > 5*time.Minute && (d.Bound != BoundGain && d.Bound != BoundScaleIn) {
			t.Errorf("at %v held by %s, want gain:\n%s", at, d.Bound, d.Explain())
		}
		last = d.Wanted
	})
	if ready < 20 || ready > 30 {
		t.Errorf("%d units where 20 do all that can be done", ready)
	}
	if tries < 2 || tries > 12 {
		t.Errorf("in two hours more were tried %d times; want a few", tries)
	}
	// The bottleneck goes.
	ready = drive(s, 2*time.Hour, 4*time.Hour, ready, func(time.Duration) float64 { return math.Inf(1) }, nil)
	if ready < 400 {
		t.Errorf("two hours after the bottleneck has gone there are %d units, want 417", ready)
	}
}

// A function that becomes slower is not a bottleneck of other units: more units help.
func TestASlowerFunctionGetsMoreUnits(t *testing.T) {
	s := New(testPolicy(func(p *Policy) { p.Max, p.MinGain = 10_000, 0.1 }))
	ready := 4
	for at := time.Duration(0); at < 20*time.Minute; at += 5 * time.Second {
		each := 10.0
		if at > 5*time.Minute {
			each = 2
		}
		rate := each * float64(ready)
		d := s.Decide(Signals{At: at, Ready: ready, Needed: ready, Loads: []Load{{
			Function: "f", Backlog: 10_000, Arrivals: rate, Done: rate, Busy: 1, Slots: 1, Capacity: each,
		}}})
		ready = d.Wanted
	}
	if ready < 200 {
		t.Errorf("%d units for a backlog of 10,000 at 2/s each, want over 200", ready)
	}
}
