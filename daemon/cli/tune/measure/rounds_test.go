package measure

import (
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/daemon/cli/tune"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/triggers"
)

func latenciesOf(all ...time.Duration) *telemetry.Latencies {
	var h telemetry.Histogram
	for _, d := range all {
		h.Add(d)
	}
	return h.Snapshot()
}

func newGridRun(messages ...string) *gridRun {
	t := &gridRun{Options: Options{Report: &tune.Report{}}, latencies: make(map[tune.Settings]*telemetry.Latencies)}
	for _, body := range messages {
		t.Messages = append(t.Messages, &triggers.Message{Body: []byte(body)})
	}
	return t
}

func TestRoundsOfACell(t *testing.T) {
	run := newGridRun("a")
	one, two := tune.Settings{Processes: 1}, tune.Settings{Processes: 2}
	round := func(s tune.Settings, rate float64, took time.Duration) {
		run.addRound(tune.Cell{Settings: s, Seconds: 1, Calls: 2, Throughput: rate, Rates: []float64{rate}}, latenciesOf(took, took))
	}
	round(one, 10, 10*time.Millisecond)
	round(two, 30, 10*time.Millisecond)
	round(one, 20, 100*time.Millisecond)
	if c := run.cellOf(one); len(run.Report.Cells) != 2 || c.Throughput != 15 || c.Calls != 4 || c.P99 < 0.09 {
		t.Errorf("%#v", run.Report.Cells)
	}
	run.addRound(tune.Cell{Settings: two, Problem: "it did not start"}, new(telemetry.Latencies))
	if !run.hasProblem(two) || run.hasProblem(one) || run.hasProblem(tune.Settings{Processes: 3}) {
		t.Errorf("%#v", run.Report.Cells)
	}
	run.skipSettings(one)
	run.skipSettings(tune.Settings{Processes: 3})
	run.skipSettings(tune.Settings{Processes: 3})
	if len(run.Report.Skipped) != 1 {
		t.Errorf("skipped are %+v", run.Report.Skipped)
	}
}

// Parts are long enough for some calls.
func TestParts(t *testing.T) {
	run := newGridRun("a")
	for call, want := range map[time.Duration]int{0: 4, time.Millisecond: 4, 100 * time.Millisecond: 4, 200 * time.Millisecond: 2, time.Second: 1} {
		run.baseline.Call = call
		if got := run.countParts(2 * time.Second); got != want {
			t.Errorf("calls of %v: %d parts, want %d", call, got, want)
		}
	}
}

func TestMessagesThatAreTheSame(t *testing.T) {
	for bodies, want := range map[string]string{
		"a":     "there is only one message",
		"a a a": "all messages have the same body",
		"a a b": "",
	} {
		run := newGridRun(strings.Fields(bodies)...)
		run.checkMessages()
		notes := strings.Join(run.Report.Notes, "\n")
		if want == "" && notes != "" || !strings.Contains(notes, want) {
			t.Errorf("%s: %q", bodies, notes)
		}
	}
}
