package daemon

import (
	"context"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/memory"
)

// adminDaemon runs a daemon with one Go function and a queue in memory.
func adminDaemon(t *testing.T, change func(cfg *configs.Config)) (*Daemon, *memory.Queue, *configs.Config) {
	t.Helper()
	return runsFunc(t, func(context.Context, *triggers.Message) ([]byte, error) { return nil, nil }, change)
}

// runsFunc runs a daemon with one Go function, f.
func runsFunc(t *testing.T, f handlers.Func, change func(cfg *configs.Config)) (*Daemon, *memory.Queue, *configs.Config) {
	t.Helper()
	queue := memory.New(time.Hour)
	t.Cleanup(queue.Close)
	d, cfg := daemonOn(t, queue.Trigger(), f, change)
	return d, queue, cfg
}

// daemonOn runs a daemon whose messages come from a trigger.
func daemonOn(t *testing.T, from triggers.Trigger, f handlers.Func, change func(cfg *configs.Config)) (*Daemon, *configs.Config) {
	t.Helper()
	cfg := configs.New()
	cfg.DataDir = t.TempDir()
	cfg.Functions = map[string]configs.Function{"f": {Trigger: configs.Trigger{NATS: &configs.NATSTrigger{}}, Handler: configs.Handler{Go: "f"}}}
	if change != nil {
		change(cfg)
	}
	ready, ended := make(chan struct{}), make(chan error, 1)
	running, stop := context.WithCancel(context.Background())
	d := New(cfg, WithTrigger("f", from), WithReady(func() { close(ready) }), WithFuncs(handlers.Funcs{"f": f}))
	go func() { ended <- d.Run(running) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		ended <- nil
		t.Fatal(err)
	}
	return d, cfg
}

func TestAdminOnASocket(t *testing.T) {
	_, queue, cfg := adminDaemon(t, nil)
	socket := admin.SocketPath(cfg.DataDir)
	info, err := os.Stat(socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the socket has mode %v, %v", info.Mode(), err)
	}
	for range 3 {
		queue.Send(triggers.Message{Body: []byte("x")})
	}
	client, err := admin.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var s StatusReport
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); len(s.Functions) == 0 || s.Functions[0].Done < 3; <-tick.C {
		if err := client.GetJSON(t.Context(), "/v1/status", &s); err != nil || time.Now().After(deadline) {
			t.Fatalf("%+v, %v", s, err)
		}
	}
	if s.Phase != "running" || s.Functions[0].Received != 3 || s.Functions[0].Name != "f" {
		t.Errorf("the status is %+v", s)
	}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 200, "/v1/scale": 200, "/nothing": 404, "/debug/pprof/": 404} {
		if status, text := ask(t, socket, path); status != want {
			t.Errorf("%s: %d, want %d: %s", path, status, want, text)
		}
	}
	if err := client.GetJSON(t.Context(), "/nothing", &s); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("a path that is not there: %v", err)
	}
	// A second daemon over the same directory does not take the socket.
	if _, err := New(cfg).serveAdmin(); err == nil || !strings.Contains(err.Error(), "another daemon uses this data directory") {
		t.Errorf("a second daemon: %v", err)
	}
}

// promtool accepts the metrics, and docs/metrics.md lists all of them, and no others.
func TestMetrics(t *testing.T) {
	d, queue, cfg := adminDaemon(t, nil)
	queue.Send(triggers.Message{})
	d.decisions.SetDecision("instances", time.Now(), testDecision())
	_, text := ask(t, admin.SocketPath(cfg.DataDir), "/metrics")
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "drover_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	for _, part := range []string{
		`drover_scale_bound{bound="max",of="instances"} 1`, `drover_scale_decisions_total{bound="max",of="instances"} 1`, `drover_scale_wanted{of="instances"} 3`,
		`drover_scale_formula{of="instances"} 5`, `drover_scale_arrival_rate{function="f",of="instances"} 2.5`, `drover_scale_backlog_messages{function="f",of="instances"} 12`,
		`drover_scale_capacity_rate{function="f",of="instances"} 4`, `drover_scale_busy_ratio{function="f",of="instances"} 0.5`,
	} {
		if !strings.Contains(text, part) {
			t.Errorf("the metrics lack %s", part)
		}
	}
	doc, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented, there []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(drover_[a-z_]+)`").FindAllSubmatch(doc, -1) {
		documented = append(documented, string(m[1]))
	}
	described := regexp.MustCompile(`fqName: "(drover_[a-z_]+)"`)
	for _, desc := range descriptions(d) {
		there = append(there, described.FindStringSubmatch(desc)[1])
	}
	slices.Sort(documented)
	slices.Sort(there)
	if !slices.Equal(documented, there) {
		t.Errorf("docs/metrics.md has\n%v, the daemon\n%v", documented, there)
	}
}

// A command reaches an admin server that listens on all addresses.
func TestAdminThatListensEverywhere(t *testing.T) {
	_, port, err := net.SplitHostPort(freePort(t))
	if err != nil {
		t.Fatal(err)
	}
	_, _, cfg := adminDaemon(t, func(cfg *configs.Config) {
		cfg.Admin = configs.Admin{Listen: ":" + port, Token: "0123456789abcdef0123"}
	})
	client, err := admin.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var s StatusReport
	if err := client.GetJSON(t.Context(), "/v1/status", &s); err != nil {
		t.Error(err)
	}
	if len(cfg.Warnings) != 1 || !strings.Contains(cfg.Warnings[0], "unencrypted") {
		t.Errorf("the warnings are %q", cfg.Warnings)
	}
}

func TestReadinessOfADaemonThatStops(t *testing.T) {
	probes := freePort(t)
	d, _, _ := adminDaemon(t, func(cfg *configs.Config) { cfg.Probes = configs.Probes{Listen: probes, Metrics: true} })
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 200, "/v1/status": 404} {
		if status, _ := ask(t, probes, path); status != want {
			t.Errorf("%s: %d, want %d", path, status, want)
		}
	}
	d.phase.set(api.PhaseStopping)
	if status, text := ask(t, probes, "/readyz"); status != 503 || !strings.Contains(text, "it is stopping") {
		t.Errorf("readyz of one that stops: %d, %s", status, text)
	}
}
