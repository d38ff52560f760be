package cli

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	dto "github.com/prometheus/client_model/go"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/admin"
)

// The ledger of a parent balances, too, though its instances report at different times, and one of
// them is killed.
func TestLedgerOfInstances(t *testing.T) {
	t.Parallel()
	s := newScaled(t, 2)
	cmd, out, ended := child(t, "run", s.file)
	until(t, out, "two instances", func() bool { return len(pids(t, out)) == 2 })
	cfg, err := configs.Load(s.file, func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	socket := admin.SocketPath(cfg.DataDir)
	s.send(t, 300)
	killed, last, cpu := false, 0.0, 0.0
	until(t, out, "every message is settled", func() bool {
		families := scrape(t, socket)
		received, inFlight := balanced(t, families)
		used := sum(families["drover_worker_cpu_seconds_total"], "")
		if received < last || used < cpu {
			t.Errorf("a counter has fallen: received %v from %v, CPU seconds %v from %v", received, last, used, cpu)
		}
		last, cpu = received, used
		if !killed && inFlight > 0 {
			killed = true
			if err := syscall.Kill(pids(t, out)[0], syscall.SIGKILL); err != nil {
				t.Error(err)
			}
		}
		return sum(families["drover_messages_settled_total"], "verdict", "done") >= 250 && inFlight == 0 && killed
	})
	s.allEnd(t, out)
	families := scrape(t, socket)
	if n := sum(families["drover_workers"], "state", "ready"); n < 1 {
		t.Errorf("a parent reports %v workers of its instances", n)
	}
	if cpu == 0 || sum(families["drover_worker_memory_bytes"], "kind", "resident") == 0 {
		t.Errorf("its instances' workers have used %v CPU seconds, and %v", cpu, families["drover_worker_memory_bytes"])
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := waitFor(t, ended, out); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}

// The gate of an app that does not run is shut.
func TestGateMetric(t *testing.T) {
	dir := write(t, map[string]string{"drover.yaml": fmt.Sprintf(`
log: {format: text}
probes: {listen: %q, metrics: true}
functions:
  lost:
    trigger: {nats: {}}
    handler: {http: {url: "http://127.0.0.1:1/x"}}
`, freePort(t))})
	file := filepath.Join(dir, "drover.yaml")
	out, stop := startCommand(t, "run", file)
	out.WaitFor(t, "msg=running")
	out.WaitFor(t, "the app is not healthy; nothing is received until it is")
	cfg, err := configs.Load(file, func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	families := scrape(t, cfg.Probes.Listen)
	if gate := families["drover_http_gate_open"]; gate == nil || sum(gate, "function", "lost") != 0 {
		t.Errorf("the gate is %v, want shut", gate)
	}
	if status := stop(); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}

// A reload replaces workers, and no counter falls.
func TestAReloadKeepsCounts(t *testing.T) {
	t.Parallel()
	app := "import os\nasync def one(message):\n    print('v1')\n    if message.attempt == 1: os._exit(3)\n"
	r := newReloaded(t, reloadConfig, app)
	out, stop := startCommand(t, "run", r.file)
	out.WaitFor(t, "msg=running")
	r.send("one", "x")
	out.WaitFor(t, "a worker died; it will be replaced")
	socket := admin.SocketPath(r.load().DataDir)
	var before map[string]*dto.MetricFamily
	until(t, out, "a restart", func() bool {
		before = scrape(t, socket)
		return sum(before["drover_worker_restarts_total"], "cause", "exit") > 0
	})
	r.write("app/function_app.py", strings.Replace(app, "v1", "v2", 1))
	r.run(ExitOK, "reload", "reloaded: changed one")
	after := scrape(t, socket)
	for _, name := range []string{"drover_worker_restarts_total", "drover_worker_cpu_seconds_total", "drover_messages_received_total"} {
		if was, is := sum(before[name], ""), sum(after[name], ""); is < was || was == 0 {
			t.Errorf("%s was %v before the reload, and is %v", name, was, is)
		}
	}
	until(t, out, "one worker", func() bool { return sum(scrape(t, socket)["drover_workers"], "") == 1 })
	if status := stop(); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}
