package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/memory"
)

// adminDaemon runs a daemon of one Go function over a queue in memory.
func adminDaemon(t *testing.T, change func(cfg *configs.Config)) (*Daemon, *memory.Queue, *configs.Config) {
	t.Helper()
	return runsFunc(t, func(context.Context, *triggers.Message) ([]byte, error) { return nil, nil }, change)
}

// runsFunc runs a daemon of one Go function, f.
func runsFunc(t *testing.T, f handlers.Func, change func(cfg *configs.Config)) (*Daemon, *memory.Queue, *configs.Config) {
	t.Helper()
	queue := memory.New(time.Hour)
	t.Cleanup(queue.Close)
	d, cfg := daemonOn(t, queue.Trigger(), f, change)
	return d, queue, cfg
}

// daemonOn runs one whose messages come from a trigger.
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

// ask asks a server, by its address or its socket.
func ask(t *testing.T, address, path string, headers ...string) (int, string) {
	t.Helper()
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			request.Host = value
		}
		request.Header.Set(name, value)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func TestAdminOnASocket(t *testing.T) {
	_, queue, cfg := adminDaemon(t, nil)
	socket := adminSocket(cfg.DataDir)
	info, err := os.Stat(socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the socket has mode %v, %v", info.Mode(), err)
	}
	for range 3 {
		queue.Send(triggers.Message{Body: []byte("x")})
	}
	client, err := newAdminClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var s StatusReport
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); len(s.Functions) == 0 || s.Functions[0].Done < 3; <-tick.C {
		if err := client.get(t.Context(), "/v1/status", &s); err != nil || time.Now().After(deadline) {
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
	if err := client.get(t.Context(), "/nothing", &s); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("a path that is not there: %v", err)
	}
	// A second daemon over the directory does not take the socket away.
	if _, err := New(cfg).serveAdmin(); err == nil || !strings.Contains(err.Error(), "another daemon uses this data directory") {
		t.Errorf("a second daemon: %v", err)
	}
}

func TestAdminSocketOfOneThatWasKilled(t *testing.T) {
	dir := t.TempDir()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: adminSocket(dir), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, _, cfg := adminDaemon(t, func(cfg *configs.Config) { cfg.DataDir = dir })
	if status, _ := ask(t, adminSocket(cfg.DataDir), "/healthz"); status != 200 {
		t.Errorf("status %d", status)
	}
}

// A data directory whose path is too long for a socket has one elsewhere, which is
// the user's alone.
func TestAdminSocketOfALongPath(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	_, _, cfg := adminDaemon(t, func(cfg *configs.Config) { cfg.DataDir = long })
	socket := adminSocket(cfg.DataDir)
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Dir(socket)) })
	if status, _ := ask(t, socket, "/healthz"); status != 200 {
		t.Errorf("status %d", status)
	}
	other := filepath.Join(t.TempDir(), strings.Repeat("else", 30))
	squat := filepath.Dir(adminSocket(other))
	t.Cleanup(func() { _ = os.RemoveAll(squat) })
	if err := os.Mkdir(squat, 0o755); err != nil {
		t.Fatal(err)
	}
	cfg2 := *cfg
	cfg2.DataDir = other
	if _, err := New(&cfg2).serveAdmin(); err == nil || !strings.Contains(err.Error(), "is not a directory that only this user can access") {
		t.Errorf("a directory that others may look into: %v", err)
	}
}

func TestAdminOnAPort(t *testing.T) {
	const token = "0123456789abcdef0123"
	address, probes := freePort(t), freePort(t)
	d, _, cfg := adminDaemon(t, func(cfg *configs.Config) {
		cfg.Admin = configs.Admin{Listen: address, Token: token, Pprof: true}
		cfg.Probes = configs.Probes{Listen: probes, Metrics: true}
	})
	bearer := "Authorization: Bearer " + token
	for _, c := range []struct {
		path    string
		headers []string
		want    int
	}{
		{"/v1/status", []string{bearer}, 200},
		{"/v1/status", nil, 401},
		{"/v1/status", []string{"Authorization: Bearer wrong"}, 401},
		{"/v1/status", []string{"Authorization: " + token}, 401},
		{"/healthz", nil, 401},
		{"/v1/status", []string{bearer, "Origin: https://evil.example"}, 403},
		{"/v1/status", []string{bearer, "Host: evil.example"}, 403},
		{"/v1/status", []string{bearer, "Host: localhost:7070"}, 200},
		{"/debug/pprof/cmdline", []string{bearer}, 200},
	} {
		if status, text := ask(t, address, c.path, c.headers...); status != c.want {
			t.Errorf("%s %v: %d, want %d: %s", c.path, c.headers, status, c.want, text)
		}
	}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 200, "/v1/status": 404} {
		if status, _ := ask(t, probes, path); status != want {
			t.Errorf("probes %s: %d, want %d", path, status, want)
		}
	}
	client, err := newAdminClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var s StatusReport
	if err := client.get(t.Context(), "/v1/status", &s); err != nil {
		t.Error(err)
	}
	client.token = "wrong"
	if err := client.get(t.Context(), "/v1/status", &s); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("with a wrong token: %v", err)
	}

	// A port that is taken is told of, and what was opened before is closed again.
	taken := *cfg
	taken.DataDir = t.TempDir()
	taken.Admin.Listen = "unix"
	if _, err := New(&taken).serveAdmin(); err == nil || !strings.Contains(err.Error(), "probes: ") || !strings.Contains(err.Error(), "does another program use it?") {
		t.Errorf("a probes port that is taken: %v", err)
	}
	taken.Admin.Listen, taken.Probes = address, configs.Probes{}
	if _, err := New(&taken).serveAdmin(); err == nil || !strings.Contains(err.Error(), "admin: ") {
		t.Errorf("an admin port that is taken: %v", err)
	}

	d.enter(phaseStopping)
	if status, text := ask(t, probes, "/readyz"); status != 503 || !strings.Contains(text, "it is stopping") {
		t.Errorf("readyz of one that stops: %d, %s", status, text)
	}
}

// What takes long is not cut short by the limit on reading a request, which has been
// read by then.
func TestAProfileTakesItsTime(t *testing.T) {
	cfg := configs.New()
	cfg.Admin.Pprof = true
	const limit, long = time.Second, 1500 * time.Millisecond
	server := httptest.NewUnstartedServer(New(cfg).serveRoutes(func(route) bool { return true }))
	server.Config.ReadTimeout = limit
	server.Start()
	defer server.Close()
	began := time.Now()
	status, text := ask(t, server.Listener.Addr().String(), fmt.Sprintf("/debug/pprof/trace?seconds=%v", long.Seconds()))
	if took := time.Since(began); status != http.StatusOK || took < long || !strings.HasPrefix(text, "go 1.") {
		t.Errorf("status %d after %v, %d bytes", status, took, len(text))
	}
}

func TestAdminIsOff(t *testing.T) {
	_, _, cfg := adminDaemon(t, func(cfg *configs.Config) { cfg.Admin.Listen = "off" })
	if _, err := os.Stat(adminSocket(cfg.DataDir)); err == nil {
		t.Error("there is a socket")
	}
	if _, err := newAdminClient(cfg); err == nil || !strings.Contains(err.Error(), "admin.listen is off") {
		t.Errorf("got %v", err)
	}
}

// The metrics are well formed, as promtool sees it, and docs/metrics.md has them
// all, and no others.
func TestMetrics(t *testing.T) {
	d, queue, cfg := adminDaemon(t, nil)
	queue.Send(triggers.Message{})
	d.decisions.Record("instances", time.Now(), testDecision())
	_, text := ask(t, adminSocket(cfg.DataDir), "/metrics")
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

func TestStatusCommand(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"drover.yaml": pythonConfig, "app/function_app.py": "def greet(body): pass\n"})
	file := filepath.Join(dir, "drover.yaml")
	if status, _, errs := command(t.Context(), nil, nil, "status", "-c", file); status != ExitFailed || !strings.Contains(errs, "no daemon of this configuration is running here") {
		t.Errorf("without a daemon: status %d, %s", status, errs)
	}
	out, stop := startCommand(t, "run", file)
	out.wait(t, "\"msg\":\"running\"")
	status, text, errs := command(t.Context(), nil, nil, "status", "-c", file)
	if status != ExitOK || !strings.Contains(text, "running, for ") || !strings.Contains(text, "greet") {
		t.Errorf("status %d\n%s%s", status, text, errs)
	}
	status, text, errs = command(t.Context(), nil, nil, "status", "-c", file, "--json")
	var s StatusReport
	if err := json.Unmarshal([]byte(text), &s); status != ExitOK || err != nil || s.Functions[0].Workers != 1 {
		t.Errorf("status %d, %v\n%s%s", status, err, text, errs)
	}
	// On a terminal it goes on until it is told to stop.
	ctx, cancel := context.WithCancel(t.Context())
	live := newPrinted()
	ended := make(chan int, 1)
	go func() {
		ended <- Command(ctx, []string{"status", "-c", file, "--every", "10ms"}, &IO{Out: live, Err: live, OutIsTerminal: true, Env: os.LookupEnv, Environ: os.Environ})
	}()
	live.wait(t, "\x1b[J")
	cancel()
	if status := <-ended; status != ExitOK {
		t.Errorf("the live table ended with status %d\n%s", status, live)
	}
	if status, _, errs := command(t.Context(), nil, nil, "status", "-c", file, "--every", "0s"); status != ExitUsage {
		t.Errorf("--every 0s: status %d, %s", status, errs)
	}
	if status := stop(); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}

func TestWhatComesFromOutsideIsPrintable(t *testing.T) {
	text := statusText(StatusReport{Phase: "running", Instances: &InstancesStatus{Failing: "a\x1b[2Jb\u009b"}}, StatusReport{}, time.Second)
	if bytes.ContainsAny([]byte(text), "\x1b") || !strings.Contains(text, "a?[2Jb?") {
		t.Errorf("%q", text)
	}
}
