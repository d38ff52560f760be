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
			FunctionStatus: api.FunctionStatus{Name: "f", Handler: "go f", FunctionCounts: api.FunctionCounts{Done: done, InFlight: 3, Failed: 2, Rejected: 1}, Workers: 4, Paused: paused},
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
	text := StatusTable(now, last, 2*time.Second)
	for _, want := range []string{"running, for 1h0m0s; instances: 2 ready, 1 starting, 0 draining; no ?[2J memory", "was refused: a key is wrong\n", "  17  ", "1m30s", "10.0", "nothing is received: the store is full", "\napp a: one line\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("it lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "and more") || strings.Contains(text, "\x1b") {
		t.Errorf("%q", text)
	}
	now.Functions = []api.FunctionOverview{function(120, true)}
	if text := StatusTable(now, api.StatusReport{}, time.Second); !strings.Contains(text, "paused") {
		t.Errorf("a paused function:\n%s", text)
	}
}

func TestExplanation(t *testing.T) {
	for want, e := range map[string]api.Explanation{
		"function f: no worker\n  why\n  - a\n    b\n":        {Function: "f", State: "no_worker", Text: "why", Notes: []string{"a\nb"}},
		"message 7 of function f in instance 2: retry\n  ?\n": {Function: "f", Message: "7", Instance: 2, State: "retry", Text: "\x07"},
		"message 7: unknown\n  not found\n":                   {Message: "7", State: "unknown", Text: "not found"},
	} {
		if got := ExplanationText(e); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestApp(t *testing.T) {
	a := api.AppOverview{Name: "a", Processes: 1, Threads: 8, Coroutines: 512, Auto: []string{"threads"}, Phase: "hold", Note: "the best found", Undone: []api.UndoneChange{{Text: "threads: back\nto 8"}}}
	if got, want := AppText(a), "app a: 1 process, 8 threads (auto) and 512 coroutines each; hold: the best found\n  undone: threads: back"; !strings.HasPrefix(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
