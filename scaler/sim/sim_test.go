package sim

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/scaler"
)

// ours is drover's policy with its defaults, for the age target of the traces.
var ours = scaler.Policy{
	Max: 1, MaxAge: 30 * time.Second, Utilisation: 0.95, Activation: 1, Idle: 5 * time.Minute,
	MinGain: 0.1, Forecast: true, Interval: 5 * time.Second,
}

// fixed always has the same number of instances.
func fixed(n int) Policy {
	return Policy{Name: "fixed", IdleFirst: true, New: func(Model) Autoscaler { return constant(n) }}
}

type constant int

func (constant) DecideEvery() time.Duration { return time.Second }
func (c constant) DecideUnits(View) int     { return int(c) }

// seeds is the number of sets of traces that drover and its peers are compared with.
const seeds uint64 = 3

// compareAll compares drover with its peers for all traces of a seed. Tests share the results, since
// the runs take long. The tests of this package are not parallel.
func compareAll(seed uint64) []Comparison {
	if compared[seed] == nil {
		for _, trace := range Traces(seed) {
			compared[seed] = append(compared[seed], Compare(trace, append([]Policy{Drover(ours)}, Peers()...), seed))
		}
	}
	return compared[seed]
}

var compared = make(map[uint64][]Comparison)

func constantly(rate float64, length time.Duration, m Model) Trace {
	return poissonTrace("constant", 1, length, m, func(float64) float64 { return rate })
}

// The model agrees with queueing theory: Erlang's formula for the
// probability of waiting, and Allen and Cunneen's approximation for service times
// that are not exponential.
func TestWaitsAreThoseOfQueueingTheory(t *testing.T) {
	for _, c := range []struct {
		spread  float64
		servers int
		load    float64
	}{{1, 10, 0.9}, {0, 10, 0.9}, {1, 50, 0.95}, {0.5, 20, 0.9}} {
		m := Model{Service: 20 * time.Second, Spread: c.spread, Slots: 1, MaxAge: 30 * time.Second, Min: c.servers, Max: c.servers}
		rate := c.load * float64(c.servers) / m.Service.Seconds()
		got, n := 0.0, 0.0
		for seed := range uint64(2) {
			r := Run(poissonTrace("constant", seed, 2*24*time.Hour, m, func(float64) float64 { return rate }), m, fixed(c.servers), seed)
			for _, b := range r.Backlog {
				got += b
			}
			n += float64(len(r.Backlog))
		}
		got /= n
		a := c.load * float64(c.servers)
		term, sum := 1.0, 0.0
		for k := range c.servers {
			sum += term
			term *= a / float64(k+1)
		}
		wait := term / (1 - c.load) / (sum + term/(1-c.load))
		want := wait * c.load / (1 - c.load) * (1 + c.spread*c.spread) / 2
		if math.Abs(got-want) > 0.2*want {
			t.Errorf("%d servers, load %v, spread %v: %.2f wait on average, want %.2f", c.servers, c.load, c.spread, got, want)
		}
	}
}

// Both ways to count messages in flight agree if both can be used.
func TestShortAndLongServiceAgree(t *testing.T) {
	m := standard
	m.Service, m.Slots = 1900*time.Millisecond, 4
	long := m
	long.Service, long.Slots = 2000*time.Millisecond, 4
	for _, rate := range []float64{50, 100} {
		a, b := Run(constantly(rate, 6*time.Hour, m), m, Drover(ours), 1), Run(constantly(rate, 6*time.Hour, long), long, Drover(ours), 1)
		if ratio := b.InstanceSeconds / a.InstanceSeconds; ratio < 0.95 || ratio > 1.2 {
			t.Errorf("at %v/s messages of 2.0 s cost %.2f times those of 1.9 s", rate, ratio)
		}
	}
}

func TestEveryMessageIsAccountedFor(t *testing.T) {
	for seed := range seeds {
		for _, c := range compareAll(seed) {
			trace := c.Trace
			for _, r := range c.Results {
				if want := trace.Messages(); r.Messages != want {
					t.Errorf("%s, %s: %d messages, want %d", trace.Name, r.Policy, r.Messages, want)
				}
				if len(r.Backlog) != trace.Steps() || len(r.Instances) != trace.Steps() {
					t.Errorf("%s, %s: the curves have %d and %d points, want %d", trace.Name, r.Policy, len(r.Backlog), len(r.Instances), trace.Steps())
				}
				for i, b := range r.Backlog {
					if b < 0 || r.Instances[i] < float64(trace.Model.Min) {
						t.Fatalf("%s, %s, second %d: %v wait, %v instances", trace.Name, r.Policy, i, b, r.Instances[i])
					}
				}
				// Work takes its time: no policy is cheaper, except for unfinished work.
				work := (float64(r.Messages) - r.Backlog[len(r.Backlog)-1]) / trace.Model.Capacity()
				if r.InstanceSeconds < 0.97*work {
					t.Errorf("%s, %s: %.0f instance-seconds for %.0f seconds of work", trace.Name, r.Policy, r.InstanceSeconds, work)
				}
			}
		}
	}
}

func TestSameSeedSameRun(t *testing.T) {
	run := func(seed uint64) Result {
		trace := Traces(seed)[4]
		return Run(trace, trace.Model, Drover(ours), seed)
	}
	a, b, c := run(1), run(1), run(2)
	if a.InstanceSeconds != b.InstanceSeconds || a.Turns != b.Turns || a.P99 != b.P99 {
		t.Error("the same seed gives another run")
	}
	if a.InstanceSeconds == c.InstanceSeconds {
		t.Error("another seed gives the same run")
	}
}

// Stopping instances finish their messages; messages that are not done after the grace period are
// handled again.
func TestScaleInDrains(t *testing.T) {
	m := Model{Service: 20 * time.Second, Slots: 1, Grace: time.Minute, MaxAge: time.Hour, Min: 0, Max: 100}
	trace := Trace{Name: "once", Each: step, Counts: make([]int64, 600)}
	trace.Counts[0] = 100
	down := Policy{Name: "down", New: func(Model) Autoscaler { return &falling{} }}
	r := Run(trace, m, down, 1)
	if r.Interrupted != 0 {
		t.Errorf("%d were interrupted, with a grace longer than a message takes", r.Interrupted)
	}
	m.Grace = 5 * time.Second
	r = Run(trace, m, down, 1)
	if r.Interrupted != 100 {
		t.Errorf("%d were interrupted, want 100: all were in flight when the grace ended", r.Interrupted)
	}
	if left := r.Backlog[len(r.Backlog)-1]; left != 100 {
		t.Errorf("%v wait at the end, want the 100 that were interrupted", left)
	}
}

// falling has a hundred instances for two seconds, and none after that.
type falling struct{}

func (*falling) DecideEvery() time.Duration { return time.Second }
func (*falling) DecideUnits(v View) int {
	if v.At < 2*time.Second {
		return 100
	}
	return 0
}

// drover stops idle instances first.
func TestIdleFirst(t *testing.T) {
	m := Model{Service: time.Minute, Slots: 1, Grace: time.Second, MaxAge: time.Hour, Min: 0, Max: 100}
	trace := Trace{Name: "once", Each: step, Counts: make([]int64, 300)}
	trace.Counts[0] = 40
	half := Policy{Name: "half", New: func(Model) Autoscaler { return &halving{} }}
	if r := Run(trace, m, half, 1); r.Interrupted == 0 {
		t.Error("half of the instances stopped, regardless of their work, and nothing was interrupted")
	}
	half.IdleFirst = true
	if r := Run(trace, m, half, 1); r.Interrupted != 0 {
		t.Errorf("60 idle instances went, and %d messages were interrupted", r.Interrupted)
	}
}

type halving struct{}

func (*halving) DecideEvery() time.Duration { return time.Second }
func (*halving) DecideUnits(v View) int {
	if v.At < 5*time.Second {
		return 100
	}
	return 40
}

func TestTaut(t *testing.T) {
	for _, c := range []struct {
		late, early, want []float64
	}{
		{[]float64{0, 0, 4}, []float64{0, 4, 4}, []float64{2, 2}},
		{[]float64{0, 3, 4}, []float64{0, 4, 4}, []float64{3, 1}},          // bound below
		{[]float64{0, 0, 0, 9}, []float64{0, 1, 2, 9}, []float64{1, 1, 7}}, // and above
		{[]float64{0, 0, 6, 6}, []float64{0, 0, 6, 6}, []float64{0, 6, 0}}, // no choice
	} {
		got := tautSlopes(c.late, c.early)
		for i := range c.want {
			if math.Abs(got[i]-c.want[i]) > 1e-9 {
				t.Errorf("between %v and %v the slopes are %v, want %v", c.late, c.early, got, c.want)
				break
			}
		}
	}
}

// No policy that keeps the age target is cheaper than the clairvoyant.
func TestClairvoyantIsABound(t *testing.T) {
	for seed := range seeds {
		for _, c := range compareAll(seed) {
			for _, r := range c.Results {
				if r.Late <= c.Bound.Late && c.CostRatio(r) < 1 {
					t.Errorf("%s: %s keeps the target with %.0f instance-seconds, fewer than the bound of %.0f", r.Trace, r.Policy, r.InstanceSeconds, c.Bound.InstanceSeconds)
				}
				if r.Late < c.Bound.Late {
					t.Errorf("%s: %s has %d late, fewer than the %d that nobody can avoid", r.Trace, r.Policy, r.Late, c.Bound.Late)
				}
			}
		}
	}
}

// The targets of the policy, for each of three sets of traces: the figures in docs/scaling.md.
func TestDroverAgainstItsPeers(t *testing.T) {
	for seed := range seeds {
		cost, late, bound := make(map[string]float64), make(map[string]int64), 0.0
		for _, c := range compareAll(seed) {
			bound += c.Bound.InstanceSeconds
			for _, r := range c.Results {
				cost[r.Policy] += r.InstanceSeconds
				late[r.Policy] += c.AvoidableLate(r)
			}
			if r := c.Results[0]; r.Interrupted > 0 {
				t.Errorf("seed %d, %s: %d messages were interrupted", seed, r.Trace, r.Interrupted)
			}
		}
		if 2*late["drover"] > late["KEDA with HPA"] || cost["drover"] > cost["KEDA with HPA"] {
			t.Errorf("seed %d: drover has %d late with %.0f instance-seconds, KEDA %d with %.0f", seed, late["drover"], cost["drover"], late["KEDA with HPA"], cost["KEDA with HPA"])
		}
		if cost["drover"] > 1.25*bound {
			t.Errorf("seed %d: drover costs %.2f times the clairvoyant, more than 1.25", seed, cost["drover"]/bound)
		}
	}
}

func TestConstantLoadMakesNoTurns(t *testing.T) {
	worst, sum, rates := 0, 0, 0
	for rate := 5.0; rate <= 400; rate += 5 {
		r := Run(constantly(rate, 2*time.Hour, standard), standard, Drover(ours), uint64(rate))
		if r.Turns > 12 {
			t.Errorf("at a constant %.1f/s the direction changed %d times in two hours; 12 are allowed", rate, r.Turns)
		}
		worst, sum, rates = max(worst, r.Turns), sum+r.Turns, rates+1
	}
	t.Logf("changes of direction in ten minutes: %.2f at worst, %.2f on average of %d rates", float64(worst)/12, float64(sum)/12/float64(rates), rates)
}

// A day with ten thousand instances, and more than 10^9 messages.
func TestLarge(t *testing.T) {
	m := standard
	m.Service, m.Slots, m.Max = 4*time.Second, 64, 10_000
	trace := constantly(0.94*16*10_000, 24*time.Hour, m)
	r := Run(trace, m, Drover(ours), 1)
	if trace.Messages() < 1e9 || peak(r.Instances) < 9_500 {
		t.Fatalf("only %d messages, and %v instances", trace.Messages(), peak(r.Instances))
	}
	if r.LateShare() > 0.001 {
		t.Errorf("%.2f%% are late", 100*r.LateShare())
	}
}

func TestKEDA(t *testing.T) {
	k := KEDA().New(Model{}).(*keda)
	at := time.Duration(0)
	decide := func(waiting int64, want int) {
		t.Helper()
		if got := k.DecideUnits(View{At: at, Backlog: waiting}); got != want {
			t.Errorf("at %v, %d waiting: %d pods, want %d", at, waiting, got, want)
		}
		at += hpaSync
	}
	decide(0, 0)
	decide(1000, 0)  // the operator looks every 30 s
	decide(1000, 5)  // from one, by four
	decide(1000, 10) // twice as many
	decide(1000, 20)
	decide(100, 20) // 20 × 5: as it should be
	decide(109, 20) // within the tolerance
	decide(111, 23)
	for range 20 { // 300 s, in which 23 was right
		decide(5, 23)
	}
	last := at
	decide(5, 1)
	for k.DecideUnits(View{At: at}) > 0 {
		at += hpaSync
	}
	if idle := at - last; idle < kedaCooldown || idle > kedaCooldown+2*kedaPoll {
		t.Errorf("the last pod went after %v, want %v and up to two polls", idle, kedaCooldown)
	}
}

func TestAzure(t *testing.T) {
	a := Azure().New(Model{Slots: 16}).(*azure)
	for _, c := range []struct {
		waiting int64
		want    int
	}{{1000, 4}, {1000, 8}, {100, 7}, {17, 2}, {0, 0}} {
		if got := a.DecideUnits(View{Backlog: c.waiting - c.waiting/2, InFlight: c.waiting / 2}); got != c.want {
			t.Errorf("%d waiting: %d instances, want %d", c.waiting, got, c.want)
		}
	}
}

func TestKnative(t *testing.T) {
	k := Knative().New(Model{Slots: 10, Min: 1}).(*knative)
	at, pods := time.Duration(0), 1
	run := func(waiting int64, ticks int) int {
		for range ticks {
			pods = k.DecideUnits(View{At: at, Backlog: waiting, Ready: pods})
			at += knativeTick
		}
		return pods
	}
	if got := run(7, 30); got != 1 {
		t.Errorf("7 for pods of 7: %d, want 1", got)
	}
	if got := run(700, 1); got < 30 {
		t.Errorf("a panic brought %d pods, want 30 or more", got)
	}
	if got := run(700, 3); got != 100 {
		t.Errorf("after 6 s of panic %d pods, want 100", got)
	}
	if got := run(7, 20); got != 100 {
		t.Errorf("in panic pods went, to %d", got)
	}
	if got := run(0, 200); got != 0 {
		t.Errorf("after minutes of nothing there are %d pods", got)
	}
}

func TestReadCSV(t *testing.T) {
	good := "time,arrivals\n0,5\n10,0\n20,7\n"
	trace, err := ReadCSV("t", strings.NewReader(good))
	if err != nil {
		t.Fatal(err)
	}
	if trace.Steps() != 30 || trace.Messages() != 12 || trace.Each != 10*time.Second {
		t.Errorf("got %d steps of %v, %d messages", trace.Steps(), trace.Each, trace.Messages())
	}
	sum := int64(0)
	for i := range trace.Steps() {
		sum += trace.ArrivalsAt(i)
	}
	if sum != 12 {
		t.Errorf("spread over the seconds there are %d messages, want 12", sum)
	}
	var again strings.Builder
	if err := trace.WriteCSV(&again); err != nil || again.String() != good {
		t.Errorf("written again it is %q, %v", again.String(), err)
	}
	if _, err := ReadCSV("t", strings.NewReader("Time,Arrivals\n2026-01-31T08:00:00Z,5\n2026-01-31T08:01:00Z,3\n")); err != nil {
		t.Error(err)
	}

	for text, want := range map[string]string{
		"":                                     "it is empty",
		"time,arrivals\n":                      "fewer than two",
		"time,arrivals\n0,5\n":                 "fewer than two",
		"seconds,count\n0,5\n":                 `line 1 is "seconds,count"; it must be "time,arrivals"`,
		"time,arrivals\n0,5\n1,5\n3,5\n":       "line 4 is 2s after the line before it, where the lines before are 1s apart; fill a gap",
		"time,arrivals\n0,5\n0,5\n":            "line 3 is 0s after",
		"time,arrivals\n5,5\n0,5\n":            "line 3 is -5s after",
		"time,arrivals\n0,5\n0.5,5\n":          "whole seconds",
		"time,arrivals\n0,5\n1,many\n":         `line 3: arrivals are "many"`,
		"time,arrivals\n0,5\n1,-1\n":           `line 3: arrivals are "-1"`,
		"time,arrivals\n0,5\n1,NaN\n":          `line 3: arrivals are "NaN"`,
		"time,arrivals\n0,5\n1,1.5\n":          `line 3: arrivals are "1.5"`,
		"time,arrivals\n0,5\n1,1e300\n":        `line 3: arrivals are "1e300"`,
		"time,arrivals\n0,5\nnoon,1\n":         `line 3: the time is "noon"`,
		"time,arrivals\n0,5\n1\n":              "line 3",
		"time,arrivals\n0,5\n1,2,3\n":          "line 3",
		"time,arrivals\n0,5\n40000000,1\n":     "longer than a year",
		"time,arrivals\n0,\"5\n":               "reading a trace",
		"time,arrivals\n1e300,5\n2e300,1\n":    "the time is",
		"time,arrivals\n0,5\n 1 , 1 ,\n":       "line 3",
		"\xff\xfe,arrivals\n0,5\n":             "line 1 is",
		"time,arrivals\n0,5\n1,5\n2,5\n2,5\n":  "line 5 is 0s after",
		"time,arrivals\n0,5\n1,5\n2,5\n17,5\n": "fill a gap",
	} {
		if _, err := ReadCSV("t", strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
	rows := "time,arrivals\n" + strings.Repeat("0,1\n", 1) + strings.Repeat("1,1\n", 1)
	long := strings.NewReader(rows)
	if _, err := ReadCSV("t", long); err != nil {
		t.Error(err)
	}
}

func TestPlotAndReport(t *testing.T) {
	trace := constantly(50, 10*time.Minute, standard)
	trace.Name = "a < b"
	c := Compare(trace, append([]Policy{Drover(ours)}, Peers()...), 1)
	var plot, report strings.Builder
	if err := c.Plot(&plot); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(plot.String(), "<polyline"); n != 1+2*5 {
		t.Errorf("the plot has %d curves, want the arrivals and two for each of five", n)
	}
	if !strings.Contains(plot.String(), "a &lt; b") {
		t.Error("the plot's title is not escaped")
	}
	if err := WriteReport(&report, []Comparison{c, c}); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"clairvoyant", "drover", "KEDA with HPA", "Azure target-based", "Knative KPA", "All traces:"} {
		if !strings.Contains(report.String(), part) {
			t.Errorf("the report lacks %q:\n%s", part, report.String())
		}
	}
}

func TestModelCheck(t *testing.T) {
	for name, change := range map[string]func(m *Model){
		"no service": func(m *Model) { m.Service = 0 }, "long service": func(m *Model) { m.Service = 2 * time.Hour },
		"spread": func(m *Model) { m.Spread = -1 }, "slots": func(m *Model) { m.Slots = 0 },
		"start-up": func(m *Model) { m.StartUp = -1 }, "age": func(m *Model) { m.MaxAge = 0 },
		"bounds": func(m *Model) { m.Min, m.Max = 3, 2 },
	} {
		m := standard
		change(&m)
		if m.Check() == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := standard.Check(); err != nil {
		t.Error(err)
	}
}
