package scaler

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func testPolicy(change func(p *Policy)) Policy {
	p := Policy{
		Min: 1, Max: 100, ClearWithin: 30 * time.Second, Utilisation: 0.8, Activation: 1,
		Idle: 5 * time.Minute, ScaleInAfter: time.Minute, Interval: 5 * time.Second,
	}
	if change != nil {
		change(&p)
	}
	return p
}

func TestPolicyCheck(t *testing.T) {
	for name, c := range map[string]struct {
		change func(p *Policy)
		want   string
	}{
		"good":                {nil, ""},
		"min above max":       {func(p *Policy) { p.Min, p.Max = 5, 4 }, "min (5) is above max (4)"},
		"no max":              {func(p *Policy) { p.Min, p.Max = 0, 0 }, "max is 0; at least 1"},
		"negative min":        {func(p *Policy) { p.Min = -1 }, "min is -1"},
		"no target":           {func(p *Policy) { p.ClearWithin = 0 }, "0 targets are set; exactly one of clear_within, max_age and per_instance"},
		"two targets":         {func(p *Policy) { p.MaxAge = time.Minute }, "2 targets are set"},
		"negative target":     {func(p *Policy) { p.ClearWithin = -time.Second }, "a target must be more than 0"},
		"no utilisation":      {func(p *Policy) { p.Utilisation = 0 }, "utilisation is 0"},
		"utilisation NaN":     {func(p *Policy) { p.Utilisation = math.NaN() }, "utilisation is NaN"},
		"much utilisation":    {func(p *Policy) { p.Utilisation = 1.01 }, "utilisation is 1.01"},
		"activation":          {func(p *Policy) { p.Activation = 0 }, "activation is 0"},
		"gain":                {func(p *Policy) { p.MinGain = 1 }, "min_gain is 1"},
		"fallback":            {func(p *Policy) { p.Fallback = 101 }, "fallback is 101; it must be between 0 and max (100)"},
		"interval":            {func(p *Policy) { p.Interval = 0 }, "interval is 0s"},
		"step":                {func(p *Policy) { p.MaxStep = -1 }, "max_step"},
		"schedule's min":      {func(p *Policy) { p.Schedules = []Schedule{{From: 1, To: 2, Min: 101}} }, "schedules[0]: min is 101"},
		"schedule's time":     {func(p *Policy) { p.Schedules = []Schedule{{From: 25 * time.Hour, Min: 1}} }, "times of day are between 00:00 and 24:00"},
		"several at a time":   {func(p *Policy) { p.Utilisation, p.Interval = 2, 0 }, "interval is 0s"},
		"schedule's min of 0": {func(p *Policy) { p.Schedules = []Schedule{{From: 1, To: 2}} }, "min is 0"},
	} {
		p := testPolicy(c.change)
		err := p.Check()
		if c.want == "" && err == nil {
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

// looks feeds a Scaler with several looks, one after the other.
type looks struct {
	t      *testing.T
	scaler *Scaler
	at     time.Duration
	clock  time.Time
	last   Decision
}

func newLooks(t *testing.T, change func(p *Policy)) *looks {
	t.Helper()
	p := testPolicy(change)
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	return &looks{t: t, scaler: New(p), clock: time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)} // a Monday
}

// look decides after some time.
func (l *looks) look(after time.Duration, s Signals) Decision {
	l.at += after
	l.clock = l.clock.Add(after)
	s.At, s.Clock = l.at, l.clock
	l.last = l.scaler.Decide(s)
	return l.last
}

func (l *looks) want(n int, b Bound) {
	l.t.Helper()
	if l.last.Wanted != n || l.last.Bound != b {
		l.t.Errorf("at %v: %d wanted, held by %s; want %d, held by %s\n%s", l.at, l.last.Wanted, l.last.Bound, n, b, l.last.Explain())
	}
}

// one is a load with a capacity of 10 a second for each unit.
func one(ready int, arrivals float64, backlog int64) Signals {
	return Signals{Ready: ready, Loads: []Load{{Function: "f", Backlog: backlog, Arrivals: arrivals, Slots: 1, Capacity: 10}}}
}

// TestFormula is the example of docs/scaling.md.
func TestFormula(t *testing.T) {
	l := newLooks(t, nil)
	l.look(0, one(2, 40, 900))
	// (40 + 900/30) / (10 × 0.8) = 8.75
	l.want(9, BoundFormula)
	if got, want := l.last.Terms[0].String(), "(40/s + 900 / 30s) / (10/s × 0.8) = 8.75"; got != want {
		t.Errorf("the term says %q, want %q", got, want)
	}
	text := l.last.Explain()
	for _, part := range []string{"wanted 9, now 2", "backlog 900", "arrivals 40/s", "held by: formula"} {
		if !strings.Contains(text, part) {
			t.Errorf("the explanation lacks %q:\n%s", part, text)
		}
	}
}

func TestSeveralFunctionsAddUp(t *testing.T) {
	l := newLooks(t, nil)
	s := one(2, 40, 900)
	s.Loads = append(s.Loads, Load{Function: "g", Arrivals: 1, Slots: 1, Capacity: 0.5})
	l.look(0, s)
	l.want(12, BoundFormula) // 8.75 + 2.5
}

func TestOutAtOnceInAfterAWhile(t *testing.T) {
	l := newLooks(t, nil)
	l.look(0, one(1, 8, 0))
	l.want(1, BoundFormula)
	l.look(5*time.Second, one(1, 8, 3000))
	l.want(14, BoundFormula)
	for range 12 { // the window of a minute
		l.look(5*time.Second, one(14, 8, 0))
		l.want(14, BoundScaleIn)
	}
	l.look(5*time.Second, one(14, 8, 0))
	if l.last.Wanted > 2 {
		t.Errorf("a minute after the backlog has gone %d are wanted", l.last.Wanted)
	}
}

func TestMaxStep(t *testing.T) {
	l := newLooks(t, func(p *Policy) { p.MaxStep = 3 })
	l.look(0, one(2, 40, 9000))
	l.want(5, BoundStep)
}

func TestMinAndMax(t *testing.T) {
	l := newLooks(t, func(p *Policy) { p.Min, p.Max, p.ScaleInAfter = 3, 7, time.Second })
	l.look(0, one(0, 0, 0))
	l.want(3, BoundMin)
	l.look(5*time.Second, one(3, 900, 9000))
	l.want(7, BoundMax)
}

func TestBusyUnitsStay(t *testing.T) {
	l := newLooks(t, func(p *Policy) { p.ScaleInAfter = time.Second })
	s := one(10, 0, 0)
	s.Needed = 4 // long ones, that came a while ago
	for range 20 {
		l.look(5*time.Second, s)
	}
	l.want(4, BoundBusy)
}

func TestToZeroAndBack(t *testing.T) {
	l := newLooks(t, func(p *Policy) { p.Min, p.Activation, p.ScaleInAfter = 0, 20, time.Second })
	l.look(0, one(1, 5, 0))
	idle := one(1, 0, 0)
	for l.at < 4*time.Minute+50*time.Second {
		l.look(5*time.Second, idle)
		if l.last.Wanted != 1 {
			t.Fatalf("at %v, idle for less than 5m: %d wanted", l.at, l.last.Wanted)
		}
	}
	if l.last.Bound != BoundIdle && l.last.Bound != BoundScaleIn {
		t.Errorf("held by %s", l.last.Bound)
	}
	l.look(10*time.Second, idle)
	l.want(0, BoundFormula)

	l.look(5*time.Second, one(0, 0, 19))
	l.want(0, BoundActivation)
	l.look(5*time.Second, one(0, 0, 20))
	if l.last.Wanted < 1 {
		t.Errorf("with the activation reached %d are wanted", l.last.Wanted)
	}
}

// Messages below the activation are not ignored forever.
func TestFewMessagesAreNotForgotten(t *testing.T) {
	l := newLooks(t, func(p *Policy) { p.Min, p.Activation = 0, 20 })
	l.look(0, one(0, 0, 1))
	l.want(0, BoundActivation)
	l.look(5*time.Minute, one(0, 0, 1))
	if l.last.Wanted != 1 {
		t.Errorf("a message has waited for as long as idle, and %d are wanted", l.last.Wanted)
	}
	l = newLooks(t, func(p *Policy) { p.Min, p.Activation = 0, 20 })
	s := one(0, 0, 1)
	s.Loads[0].Oldest = time.Hour
	l.look(0, s)
	if l.last.Wanted != 1 {
		t.Errorf("a message is an hour old, and %d are wanted", l.last.Wanted)
	}
}

func TestUnknownCapacityDoubles(t *testing.T) {
	l := newLooks(t, nil)
	unknown := func(ready, starting int, backlog int64) Signals {
		return Signals{Ready: ready, Starting: starting, Loads: []Load{{Function: "f", Backlog: backlog, Slots: 2, Busy: 1}}}
	}
	l.look(0, unknown(1, 0, 1000))
	l.want(2, BoundDoubling)
	l.look(5*time.Second, unknown(1, 1, 1000)) // those before are not there yet
	l.want(2, BoundFormula)
	l.look(5*time.Second, unknown(2, 0, 1000))
	l.want(4, BoundDoubling)
	l.look(5*time.Second, unknown(4, 0, 1)) // a fifth would have nothing to do but that one
	l.want(5, BoundDoubling)
}

// If a source does not count its whole backlog, busy units are doubled.
func TestABacklogThatIsNotCountedDoubles(t *testing.T) {
	l := newLooks(t, nil)
	s := one(4, 40, 32)
	s.Loads[0].AtLeast = true
	l.look(0, s)
	l.want(6, BoundFormula)
	s.Loads[0].Busy = 1
	l.look(5*time.Second, s)
	l.want(8, BoundDoubling)
	l.look(5*time.Second, s)
	l.want(8, BoundDoubling)
}

func TestInFlightIsNotBacklog(t *testing.T) {
	l := newLooks(t, func(p *Policy) { p.ClearWithin, p.PerInstance = 0, 10 })
	s := one(3, 0, 0)
	s.Loads[0].Busy = 1
	s.Needed = 3
	l.look(0, s)
	l.want(3, BoundBusy)
	l.look(5*time.Second, one(3, 0, 45))
	l.want(5, BoundFormula)
}

func TestMaxAgeHurriesAsMessagesAge(t *testing.T) {
	l := newLooks(t, func(p *Policy) { p.ClearWithin, p.MaxAge = 0, time.Minute })
	young, old, late := one(1, 0, 960), one(1, 0, 960), one(1, 0, 960)
	old.Loads[0].Oldest, late.Loads[0].Oldest = 28*time.Second, time.Hour
	l.look(0, young)
	l.want(3, BoundFormula) // 960 in 48 s
	l.look(5*time.Second, old)
	l.want(6, BoundFormula) // in 20 s
	l.look(5*time.Second, late)
	l.want(8, BoundFormula) // in 15 s, and not in none at all
}

func TestUnreadableBacklog(t *testing.T) {
	l := newLooks(t, func(p *Policy) { p.Fallback, p.FallbackAfter, p.ScaleInAfter = 20, time.Minute, time.Second })
	l.look(0, one(8, 60, 0))
	l.want(8, BoundFormula)
	blind := one(8, 0, Unreadable)
	for range 11 {
		l.look(5*time.Second, blind)
		if l.last.Wanted != 8 || l.last.Bound != BoundHold && l.last.Bound != BoundScaleIn {
			t.Fatalf("at %v: %d wanted, held by %s; want 8, held", l.at, l.last.Wanted, l.last.Bound)
		}
	}
	l.look(10*time.Second, blind)
	l.want(20, BoundFallback)
	l.look(5*time.Second, one(20, 60, 0)) // it can be read again
	if l.last.Bound == BoundFallback || l.last.Bound == BoundHold {
		t.Errorf("the backlog can be read again, and %s holds", l.last.Bound)
	}
}

func TestUnreadableWithoutFallbackHolds(t *testing.T) {
	l := newLooks(t, func(p *Policy) { p.ScaleInAfter = time.Second })
	l.look(0, one(9, 60, 0))
	for range 100 {
		l.look(time.Minute, one(9, 0, Unreadable))
	}
	l.want(9, BoundHold)
}

// One function's unreadable backlog does not hide that another function has a large one.
func TestOneUnreadableOfTwo(t *testing.T) {
	l := newLooks(t, nil)
	s := one(2, 40, 900)
	s.Loads = append(s.Loads, Load{Function: "g", Backlog: Unreadable, Slots: 1, Capacity: 10})
	l.look(0, s)
	l.want(9, BoundFormula)
}

func TestNoiseMakesNoTurns(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, rate := range []float64{3, 7.9, 8, 8.1, 79, 80, 81, 400} {
		l := newLooks(t, func(p *Policy) { p.ScaleInAfter, p.Forecast = 0, true })
		ready, turns, direction := 1, 0, 0
		for range 720 { // an hour
			noisy := math.Max(rate+math.Sqrt(rate/5)*random.NormFloat64(), 0)
			d := l.look(5*time.Second, one(ready, noisy, 0))
			if change := d.Wanted - ready; change != 0 {
				if change*direction < 0 {
					turns++
				}
				direction = change
			}
			ready = d.Wanted
		}
		if turns > 6 {
			t.Errorf("at a constant %v/s the direction changed %d times in an hour; 6 are allowed", rate, turns)
		}
	}
}

func TestSchedule(t *testing.T) {
	at := func(day, hour, minute int) time.Time { return time.Date(2026, 3, day, hour, minute, 0, 0, time.UTC) } // the 2nd is a Monday
	work := Schedule{From: 8 * time.Hour, To: 18 * time.Hour, Days: []time.Weekday{time.Monday, time.Friday}, Min: 5}
	night := Schedule{From: 22 * time.Hour, To: 6 * time.Hour, Days: []time.Weekday{time.Friday}, Min: 5}
	all := Schedule{From: 0, To: 24 * time.Hour, Min: 5}
	for _, c := range []struct {
		schedule Schedule
		at       time.Time
		want     bool
	}{
		{work, at(2, 7, 59), false}, {work, at(2, 8, 0), true}, {work, at(2, 17, 59), true}, {work, at(2, 18, 0), false},
		{work, at(3, 12, 0), false}, {work, at(6, 12, 0), true},
		{night, at(6, 21, 59), false}, {night, at(6, 22, 0), true}, {night, at(7, 5, 59), true}, {night, at(7, 6, 0), false},
		{night, at(6, 5, 0), false}, {night, at(7, 22, 0), false},
		{all, at(1, 0, 0), true}, {all, at(1, 23, 59), true},
	} {
		if got := c.schedule.holdsAt(c.at); got != c.want {
			t.Errorf("%v on %v: %v, want %v", c.schedule, c.at.Format("Mon 15:04"), got, c.want)
		}
	}
	if got, want := night.String(), "at least 5 from 22:00 to 06:00 on fri"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}

	l := newLooks(t, func(p *Policy) { p.Schedules = []Schedule{work} }) // it begins at noon
	l.look(0, one(1, 5, 0))
	l.want(5, BoundSchedule)
	if !strings.Contains(l.last.String(), "at least 5 from 08:00 to 18:00 on mon, fri") {
		t.Errorf("the decision does not name the schedule: %s", l.last)
	}
}

// Changes of the wall clock affect only schedules, and a look that seems to precede the last one
// does no harm.
func TestClockJumps(t *testing.T) {
	l := newLooks(t, func(p *Policy) { p.Forecast = true })
	l.look(0, one(1, 8, 0))
	l.look(5*time.Second, one(1, 8, 3000))
	l.want(14, BoundFormula)
	for _, jump := range []time.Duration{-24 * time.Hour, 365 * 24 * time.Hour, -time.Second} {
		l.clock = l.clock.Add(jump)
		l.look(5*time.Second, one(14, 8, 0))
		l.want(14, BoundScaleIn)
	}
	l.at -= time.Minute
	l.look(0, one(14, 8, 0))
	l.want(14, BoundScaleIn)
}

// For any input, the output is within bounds.
func TestDecisionsAreWithinBounds(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	rates := []float64{0, 1e-9, 1, 1e3, 1e12, math.Inf(1), math.NaN(), -5}
	pick := func() float64 { return rates[random.IntN(len(rates))] }
	for run := range 300 {
		p := testPolicy(func(p *Policy) {
			p.Min, p.Max = random.IntN(3), 3+random.IntN(20_000)
			p.MinGain, p.Forecast = 0.1, run%2 == 0
			if run%3 == 0 {
				p.ClearWithin, p.MaxAge = 0, time.Minute
			}
		})
		s := New(p)
		at := time.Duration(0)
		for range 200 {
			at += time.Duration(random.Int64N(int64(time.Minute)))
			d := s.Decide(Signals{
				At: at, Ready: random.IntN(100), Starting: random.IntN(100), Needed: random.IntN(100),
				StartUp: time.Duration(random.Int64N(int64(time.Minute))),
				Loads: []Load{{
					Backlog: random.Int64N(1e12) - 1, Oldest: time.Duration(random.Int64N(int64(time.Hour))),
					Arrivals: pick(), Done: pick(), Busy: random.Float64(), Slots: pick(), Capacity: pick(), Spread: random.Float64(),
				}},
			})
			if d.Wanted < p.Min || d.Wanted > p.Max {
				t.Fatalf("%d wanted, with min %d and max %d:\n%s", d.Wanted, p.Min, p.Max, d.Explain())
			}
		}
	}
}

// TestPressed checks that the number of units with the best throughput is wanted while there is
// more work than slots, regardless of the formula, and no more.
func TestPressed(t *testing.T) {
	s := New(Policy{Min: 1, Max: 6, Utilisation: 0.8, ClearWithin: time.Minute, Interval: time.Second})
	for at := range 20 {
		d := s.Decide(Signals{
			At: time.Duration(at) * time.Second, Ready: 2, Needed: 1, Pressed: at >= 10,
			Loads: []Load{{Function: "f", Backlog: 1, Arrivals: 1, Done: 1, Busy: 1, Slots: 1, Capacity: 100}},
		})
		if want, bound := 6, BoundPressed; at >= 10 && (d.Wanted != want || d.Bound != bound) || at < 10 && d.Wanted > 2 {
			t.Fatalf("at %d s: %d are wanted, by %s", at, d.Wanted, d.Bound)
		}
	}
}

// Messages that wait for a retry keep the last unit, or start one, regardless of the activation:
// otherwise no unit could receive them when they are due.
func TestUnsettledMessagesKeepOne(t *testing.T) {
	l := newLooks(t, func(p *Policy) { p.Min, p.Activation, p.ScaleInAfter = 0, 20, time.Second })
	l.look(0, one(1, 5, 0))
	waiting := one(1, 0, 0)
	waiting.Loads[0].Unsettled = 3
	for l.at < 10*time.Minute {
		l.look(5*time.Second, waiting)
	}
	l.want(1, BoundUnsettled)
	if text := l.last.Explain(); !strings.Contains(text, "held by: unsettled (3 delivered and not settled") || !strings.Contains(text, "backlog 0 and 3 delivered, not settled") {
		t.Errorf("it is explained as\n%s", text)
	}
	gone := one(0, 0, 0)
	gone.Loads[0].Unsettled = 1
	l.look(5*time.Second, gone)
	l.want(1, BoundUnsettled)
	for range 3 {
		l.look(time.Minute, one(1, 0, 0))
	}
	l.want(0, BoundFormula)
}

// A sentence names the number that decided, not only its rule.
func TestSentences(t *testing.T) {
	policy := &Policy{Min: 1, Max: 8, Idle: 5 * time.Minute}
	toZero := &Policy{Max: 8, Idle: 5 * time.Minute}
	for want, d := range map[string]Decision{
		"stays at 1: the minimum is 1":                                     {Current: 1, Wanted: 1, Bound: BoundIdle, Policy: policy},
		"scales from 3 to 1: the minimum is 1":                             {Current: 3, Wanted: 1, Bound: BoundMin, Policy: policy},
		"stays at 1: the last one stops after 5m0s without messages":       {Current: 1, Wanted: 1, Bound: BoundIdle, Policy: toZero},
		"scales from 2 to 8: the maximum is 8":                             {Current: 2, Wanted: 8, Bound: BoundMax, Policy: policy},
		"scales from 2 to 4: the load needs as many":                       {Current: 2, Wanted: 4, Bound: BoundFormula, Policy: policy},
		"stays at 4: a schedule requires as many (from 08:00 to 18:00: 4)": {Current: 4, Wanted: 4, Bound: BoundSchedule, Note: "from 08:00 to 18:00: 4", Policy: policy},
	} {
		if got := d.Sentence(); got != want {
			t.Errorf("%q; want %q", got, want)
		}
	}
	for _, bound := range Bounds {
		if (Decision{Bound: bound, Policy: policy}).reason() == "" {
			t.Errorf("the bound %s has no reason", bound)
		}
	}
}
