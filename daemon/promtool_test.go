package daemon

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/instances"
	"github.com/drover-run/drover/daemon/internal/status"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/worker"
	"github.com/drover-run/drover/scaler"
	"github.com/drover-run/drover/scaler/autotune"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/embedded"
)

// source is a trigger that reports its backlog, and implements nothing else.
type source struct {
	triggers.Trigger
	backlog triggers.Backlog
}

func (s source) Backlog(context.Context) (triggers.Backlog, error) { return s.backlog, nil }

// failing is a provisioner whose instances do not start.
type failing struct{ countless }

func (failing) Count(context.Context) (scaler.Count, error) {
	return scaler.Count{Ready: 1, Failing: "no room"}, nil
}

// everything returns a daemon that has a value for each of its metrics.
func everything(t *testing.T) *Daemon {
	t.Helper()
	f := instances.NewFleet(map[string]triggers.Trigger{"f": source{backlog: triggers.Backlog{
		Ready: 12, Oldest: time.Now().Add(-time.Minute), More: &triggers.BacklogMore{Dead: 2},
	}}}, slog.New(slog.DiscardHandler))
	f.SetProvisioner(failing{})
	var took telemetry.Histogram
	for _, d := range []time.Duration{0, time.Millisecond, time.Second, time.Hour} {
		took.Add(d)
	}
	half := 0.5
	load, err := json.Marshal(instances.Report{
		Functions: map[string]instances.FunctionReport{"f": {FunctionStatus: FunctionStatus{
			Name: "f", FunctionCounts: FunctionCounts{Received: 10, Done: 4, Retried: 3, Rejected: 1, InFlight: 2, Failed: 4}, Gate: api.GateShut, Disconnected: time.Now().Add(-time.Minute), NextDue: time.Now(), Batches: &api.BatchCounts{Calls: 2, Messages: 9, Splits: 1},
			Rejections: map[string]int64{"size": 1}, Responses: map[string]int64{"204": 1}, ReceiveErrors: 3, Reconnects: 1, Latency: took.Snapshot(), Age: took.Snapshot(),
		}}},
		Apps: map[string]apps.Status{"f app": {
			Ready: 2, Restarts: map[process.Cause]int{process.CauseExit: 1}, StartUp: time.Second, Waits: took.Snapshot(),
			Blocked: map[string]workers.Blocked{"f": {Times: 2, Time: time.Second}}, Isolated: map[string]int{"f": 1},
			Tuned:    &apps.TuningState{Kinds: map[string]autotune.Kind{"f": {Kind: autotune.KindCPU}}, Machine: apps.Machine{Cores: 2, MemoryLimit: 2, MemoryAvailable: 1, CPUPressure: &half}},
			Measures: []worker.Measures{{Function: "f", Calls: 3, Wall: time.Second, Measured: 1, CPU: time.Millisecond, Held: time.Second}},
			Usage:    process.Usage{CPU: time.Minute, Known: true, Memory: process.Memory{Resident: 3 << 20, Anonymous: 2 << 20, Proportional: 1 << 20}, Largest: 2 << 20},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	f.AddReport(1, load)
	d := New(configs.New())
	d.fleet, d.traces = f, new(telemetry.Traces)
	d.stores.Add("embedded", new(embedded.Server))
	d.decisions.SetDecision("instances", time.Now(), testDecision())
	return d
}

// promtool reports no problem in a scrape that has every metric.
func TestPromtoolLikesTheMetrics(t *testing.T) {
	answer := httptest.NewRecorder()
	for _, route := range status.AllRoutes(everything(t).statusView()) {
		if route.Path == api.MetricsPath {
			route.Handler(answer, httptest.NewRequest("GET", "/metrics", nil))
		}
	}
	text := answer.Body.String()
	for _, m := range regexp.MustCompile(`fqName: "(drover_[a-z_]+)"`).FindAllStringSubmatch(strings.Join(descriptions(New(configs.New())), "\n"), -1) {
		if !strings.Contains(text, "\n# TYPE "+m[1]+" ") {
			t.Errorf("%s is not in a scrape of all there is", m[1])
		}
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("promtool is missing; Debian's package prometheus has it")
		}
		t.Skip("promtool is missing: apt-get install prometheus")
	}
	check := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	check.Stdin = strings.NewReader(text)
	if said, err := check.CombinedOutput(); err != nil || len(said) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, said)
	}
}
