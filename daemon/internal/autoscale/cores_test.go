package autoscale

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/scaler/autotune"
)

// TestCoreShareFollowsTheSettings checks that each worker's share of the cores follows the number of processes and
// of cores.
func TestCoreShareFollowsTheSettings(t *testing.T) {
	t.Parallel()
	pool := &apps.Pool{Pool: workers.New(workers.Config{
		Functions: []workers.Function{{Name: "f"}}, Settings: workers.Settings{Processes: 1, CoreShare: 1}, Log: slog.New(slog.DiscardHandler),
	})}
	var text bytes.Buffer
	log := slog.New(slog.NewTextHandler(&text, nil))
	loops := &Loops{Running: func() []*apps.Function { return nil }}
	for _, step := range []struct {
		processes int
		cores     float64
		want      int
		logged    string
	}{
		{4, 4, 1, ""},
		{2, 4, 2, "from=1 to=2 processes=2 cores=4"},
		{2, 4, 2, ""},
		{1, 4, 4, "from=2 to=4"},
		{1, 2, 2, "from=4 to=2"}, // another quota
		{3, 2, 1, "from=2 to=1"},
	} {
		text.Reset()
		loops.applyDecision(pool, autotune.Decision{Settings: autotune.Settings{Processes: step.processes, Threads: 1, Coroutines: 1}}, step.cores, log)
		if got := pool.Settings().CoreShare; got != step.want {
			t.Errorf("%d processes, %v cores: a share of %d, want %d", step.processes, step.cores, got, step.want)
		}
		if got := text.String(); !strings.Contains(got, step.logged) || (step.logged == "") != (got == "") {
			t.Errorf("%d processes, %v cores: the log has %q, want %q", step.processes, step.cores, got, step.logged)
		}
	}
	if got := pool.Settings().Processes; got != 1 {
		t.Errorf("%d workers are wanted; the load decides that", got)
	}
}

// TestCallsOfSeveralCoresAreLogged checks that a function is logged once if its calls use several cores.
func TestCallsOfSeveralCoresAreLogged(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	bounds := autotune.Bounds{Least: autotune.Settings{Processes: 1, Threads: 1, Coroutines: 1}, Most: autotune.Settings{Processes: 4, Threads: 4, Coroutines: 4}}
	tuned := &tuner{
		pool: &apps.Pool{Pool: workers.New(workers.Config{
			Functions: []workers.Function{{Name: "f"}, {Name: "g"}}, Settings: workers.Settings{CoreShare: 1}, Log: slog.New(slog.DiscardHandler),
		})},
		controller: autotune.New(bounds, &autotune.Learned{Kinds: map[string]autotune.Kind{
			"f": {Kind: autotune.KindCPU, Cores: 1.94, Sure: 1}, "g": {Kind: autotune.KindCPU, Sure: 1},
		}}),
		log: slog.New(slog.NewTextHandler(&text, nil)),
	}
	tuned.logCores()
	tuned.logCores()
	got := text.String()
	if strings.Count(got, "\n") != 1 || !strings.Contains(got, "function=f cores_per_call=1.9 core_share=1 ") || !strings.Contains(got, "does not follow the variables") {
		t.Errorf("the log has %q", got)
	}
}
