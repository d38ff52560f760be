package statustext

import (
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/daemon/internal/api"
)

func TestTable(t *testing.T) {
	backlog := int64(17)
	function := func(done int64, paused bool) api.FunctionOverview {
		return api.FunctionOverview{
			FunctionStatus: api.FunctionStatus{Name: "f", Handler: "go f", FunctionCounts: api.FunctionCounts{Done: done, InFlight: 3, Failed: 2, Rejected: 1}, WorkerCounts: api.WorkerCounts{Workers: 4}, Paused: paused},
			Backlog:        &backlog, Oldest: 90,
		}
	}
	now := api.StatusReport{
		Phase: api.PhaseRunning, Since: time.Now().Add(-time.Hour), Functions: []api.FunctionOverview{function(120, false)},
		Instances: &api.InstancesStatus{Ready: 2, Starting: 1, Failing: "no \x1b[2J memory"},
		Reload:    &api.ReloadStatus{At: time.Now(), Refused: "a key is wrong\nand more"},
		Problems:  []api.FunctionProblem{{Text: "the store is full", Since: time.Now(), Blocks: true}},
		Advice:    []string{"app a: one line\nand more"},
	}
	last := api.StatusReport{Functions: []api.FunctionOverview{function(100, false)}}
	text := Status{Now: now, Last: last, Every: 2 * time.Second}.Text()
	for _, want := range []string{"running, for 1h0m0s; instances: 2 ready, 1 starting, 0 draining; no ?[2J memory", "was refused: a key is wrong\n", "  17  ", "1m30s", "10.0", "nothing is received: the store is full", "\napp a: one line\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("it lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "and more") || strings.Contains(text, "\x1b") {
		t.Errorf("%q", text)
	}
	now.Functions = []api.FunctionOverview{function(120, true)}
	now.Functions[0].State, now.Functions[0].Reason = api.StatePaused, "it is paused until resumed"
	if text := (Status{Now: now}).Text(); !strings.Contains(text, "  paused  ") || !strings.Contains(text, "\nfunction f: it is paused until resumed\n") {
		t.Errorf("a paused function:\n%s", text)
	}
}

func TestExplanation(t *testing.T) {
	for want, e := range map[string]api.Explanation{
		"Function f waits for a worker. None is ready\n  - a\n    b\n":          {Function: "f", State: "no_worker", Text: "none is ready", Notes: []string{"a\nb"}, Details: []string{"formula"}},
		"Function f is receiving. \n":                                           {Function: "f", State: "receiving"},
		"Message 7 of function f in instance 2 waits for its next attempt. ?\n": {Function: "f", Message: "7", Instance: 2, State: "retry", Text: "\x07"},
		"Message 7 was not found. No source lists it\n":                         {Message: "7", State: "unknown", Text: "no source lists it"},
	} {
		if got := ExplanationText(e, false); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	e := api.Explanation{Function: "f", State: "full", Text: "its slots are in use", Notes: []string{"a"}, Details: []string{"formula:\n1"}}
	if got, want := ExplanationText(e, true), "Function f is at its limit. Its slots are in use\n  - a\n  - formula:\n    1\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestApp(t *testing.T) {
	a := api.AppOverview{Name: "a", Processes: 1, Threads: 8, Coroutines: 512, Auto: []string{"threads"}, Phase: "hold", Note: "the best found", Undone: []api.UndoneChange{{Text: "threads: back\nto 8"}}}
	if got, want := AppText(a), "app a: 1 process, 8 threads (auto) and 512 coroutines each; hold: the best found\n  undone: threads: back"; !strings.HasPrefix(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
