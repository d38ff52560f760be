package admin

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/daemontest"
	"github.com/drover-run/drover/daemon/internal/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testRoutes are the routes of a healthy daemon.
func testRoutes() []Route {
	well := func(w http.ResponseWriter, _ *http.Request) { WriteJSON(w, http.StatusOK, api.Health{Status: "ok"}) }
	return []Route{
		{ID: "getHealth", Method: http.MethodGet, Path: api.HealthPath, Response: api.Health{}, Public: true, Handler: well},
		{ID: "getMetrics", Method: http.MethodGet, Path: api.MetricsPath, ContentType: "text/plain", Handler: well},
		{ID: "getStatus", Method: http.MethodGet, Path: api.StatusPath, Response: api.StatusReport{}, Handler: func(w http.ResponseWriter, _ *http.Request) {
			WriteJSON(w, http.StatusOK, api.StatusReport{Phase: "running"})
		}},
		{ID: "pauseFunction", Method: http.MethodPost, Path: api.PausePattern, Params: []Param{{Name: "name"}}, Response: api.Health{}, Handler: func(w http.ResponseWriter, r *http.Request) {
			if name := r.PathValue("name"); name != "f" {
				WriteError(w, http.StatusNotFound, "there is no function %q", name)
				return
			}
			well(w, r)
		}},
		{ID: "resumeFunction", Method: http.MethodPost, Path: api.ResumePattern, Params: []Param{{Name: "name"}}, Response: api.Health{}, Handler: well},
	}
}

func testConfig(t *testing.T, cfg *configs.Config) Config {
	t.Helper()
	if cfg.DataDir == configs.New().DataDir {
		cfg.DataDir = t.TempDir()
	}
	return Config{Admin: cfg.Admin, Probes: cfg.Probes, DataDir: cfg.DataDir, Version: "v1", Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
}

// serve runs the servers of the test routes until the test ends.
func serve(t *testing.T, cfg *configs.Config) {
	t.Helper()
	stop, err := Serve(testConfig(t, cfg), testRoutes())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
}

func TestSocket(t *testing.T) {
	cfg := configs.New()
	serve(t, cfg)
	socket := SocketPath(cfg.DataDir)
	info, err := os.Stat(socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the socket: %v, %v", info, err)
	}
	for path, want := range map[string]int{"/healthz": 200, "/v1/status": 200, "/v1/openapi.json": 200, "/nothing": 404, "/debug/pprof/": 404} {
		if status, text := daemontest.SendGet(t, socket, path); status != want {
			t.Errorf("%s: %d, want %d: %s", path, status, want, text)
		}
	}
	if _, err := Serve(testConfig(t, cfg), nil); err == nil || !strings.Contains(err.Error(), "another daemon uses this data directory; stop it") {
		t.Errorf("a second server on the socket: %v", err)
	}
}

func TestSocketOfAKilledDaemon(t *testing.T) {
	cfg := configs.New()
	cfg.DataDir = t.TempDir()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: SocketPath(cfg.DataDir), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	serve(t, cfg)
	if status, _ := daemontest.SendGet(t, SocketPath(cfg.DataDir), "/healthz"); status != 200 {
		t.Errorf("status %d", status)
	}
}

// If the path of a data directory is too long for a socket, the socket is in another directory of
// the user.
func TestSocketOfALongPath(t *testing.T) {
	cfg := configs.New()
	cfg.DataDir = filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	serve(t, cfg)
	socket := SocketPath(cfg.DataDir)
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Dir(socket)) })
	if status, _ := daemontest.SendGet(t, socket, "/healthz"); status != 200 {
		t.Errorf("status %d", status)
	}
	other := configs.New()
	other.DataDir = filepath.Join(t.TempDir(), strings.Repeat("else", 30))
	squat := filepath.Dir(SocketPath(other.DataDir))
	t.Cleanup(func() { _ = os.RemoveAll(squat) })
	if err := os.Mkdir(squat, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Serve(testConfig(t, other), nil); err == nil || !strings.Contains(err.Error(), "is not a directory that only this user can access") {
		t.Errorf("a directory that others can read: %v", err)
	}
}

func TestPort(t *testing.T) {
	const token = "0123456789abcdef0123"
	cfg := configs.New()
	address, probes := daemontest.FreePort(t), daemontest.FreePort(t)
	cfg.Admin = configs.Admin{Listen: address, Token: token, Pprof: true}
	cfg.Probes = configs.Probes{Listen: probes, Metrics: true}
	serve(t, cfg)
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
		if status, text := daemontest.SendGet(t, address, c.path, c.headers...); status != c.want {
			t.Errorf("%s %v: %d, want %d: %s", c.path, c.headers, status, c.want, text)
		}
	}
	for path, want := range map[string]int{"/healthz": 200, "/metrics": 200, "/v1/status": 404, "/v1/openapi.json": 404, "/debug/pprof/": 404} {
		if status, _ := daemontest.SendGet(t, probes, path); status != want {
			t.Errorf("probes %s: %d, want %d", path, status, want)
		}
	}
	client, err := NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var s api.StatusReport
	if err := client.GetJSON(t.Context(), api.StatusPath, &s); err != nil || s.Phase != "running" {
		t.Errorf("%+v, %v", s, err)
	}
	client.token = "wrong"
	if err := client.GetJSON(t.Context(), api.StatusPath, &s); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("with a wrong token: %v", err)
	}

	// If a port is in use, the error reports it, and listeners opened before are closed again.
	taken := *cfg
	taken.DataDir, taken.Admin.Listen = t.TempDir(), "unix"
	if _, err := Serve(testConfig(t, &taken), testRoutes()); err == nil || !strings.Contains(err.Error(), "probes: ") || !strings.Contains(err.Error(), "does another program use it?") {
		t.Errorf("a probes port in use: %v", err)
	}
	if _, err := os.Stat(SocketPath(taken.DataDir)); err == nil {
		t.Error("the socket is still there")
	}
	taken.Admin.Listen, taken.Probes = address, configs.Probes{}
	if _, err := Serve(testConfig(t, &taken), testRoutes()); err == nil || !strings.Contains(err.Error(), "admin: ") {
		t.Errorf("an admin port in use: %v", err)
	}
}

// The limit on the time to read a request does not bound the time of the answer.
func TestAProfileTakesItsTime(t *testing.T) {
	cfg := configs.New()
	cfg.Admin.Pprof = true
	const limit, long = time.Second, 1500 * time.Millisecond
	server := httptest.NewUnstartedServer(newMux(allRoutes(testConfig(t, cfg), nil)))
	server.Config.ReadTimeout = limit
	server.Start()
	defer server.Close()
	began := time.Now()
	status, text := daemontest.SendGet(t, server.Listener.Addr().String(), fmt.Sprintf("/debug/pprof/trace?seconds=%v", long.Seconds()))
	if took := time.Since(began); status != http.StatusOK || took < long || !strings.HasPrefix(text, "go 1.") {
		t.Errorf("status %d after %v, %d bytes", status, took, len(text))
	}
}

func TestServerIsOff(t *testing.T) {
	cfg := configs.New()
	cfg.Admin.Listen = "off"
	serve(t, cfg)
	if _, err := os.Stat(SocketPath(cfg.DataDir)); err == nil {
		t.Error("there is a socket")
	}
	if _, err := NewClient(cfg); err == nil || !strings.Contains(err.Error(), "admin.listen is off") {
		t.Errorf("got %v", err)
	}
}

func TestClient(t *testing.T) {
	cfg := configs.New()
	serve(t, cfg)
	client, err := NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if h, err := client.GetHealth(t.Context(), api.HealthPath); err != nil || h.Status != "ok" {
		t.Errorf("the health is %+v, %v", h, err)
	}
	if err := client.PostEmpty(t.Context(), api.PausePath("f", true, time.Time{})); err != nil {
		t.Error(err)
	}
	if err := client.PostEmpty(t.Context(), api.PausePath("g", true, time.Time{})); err == nil || !strings.HasSuffix(err.Error(), `answers 404 Not Found: there is no function "g"`) {
		t.Errorf("an unknown function: %v", err)
	}
	if err := client.PostEmpty(t.Context(), api.StatusPath); err == nil || !strings.HasSuffix(err.Error(), "answers 405 Method Not Allowed: /v1/status is for GET") {
		t.Errorf("a wrong method: %v", err)
	}
	if _, err := NewSocketClient(t.TempDir()).GetHealth(t.Context(), api.HealthPath); err == nil || !strings.HasPrefix(err.Error(), ErrNoDaemon.Error()) {
		t.Errorf("without a daemon: %v", err)
	}
	if err := client.statusError(404, []byte("<html>")); !strings.HasSuffix(err.Error(), "answers 404 Not Found: <html> (not an answer of this version of drover)") {
		t.Errorf("an answer of another program: %v", err)
	}
}

func TestStreamLog(t *testing.T) {
	cfg := configs.New()
	stop, err := Serve(testConfig(t, cfg), []Route{{ID: "followLog", Method: http.MethodGet, Path: api.LogPattern, Handler: func(w http.ResponseWriter, _ *http.Request) {
		for i := range 2 {
			text, err := json.Marshal(telemetry.LogLine{Text: fmt.Sprint("line ", i)})
			if err != nil {
				t.Error(err)
			}
			_, _ = fmt.Fprintf(w, "%s\n\n", text)
		}
	}}})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	var got []string
	path := api.LogRequest{Function: "f"}.RequestPath()
	err = NewSocketClient(cfg.DataDir).StreamLog(t.Context(), path, func(l telemetry.LogLine) { got = append(got, l.Text) })
	if err != nil || len(got) != 2 || got[0] != "line 0" || got[1] != "line 1" {
		t.Errorf("the lines are %q, %v", got, err)
	}
}

func TestDocument(t *testing.T) {
	cfg := configs.New()
	document, err := NewOpenAPI(testConfig(t, cfg), testRoutes())
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(document)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		`"operationId":"pauseFunction"`, `"/v1/openapi.json"`, `"version":"v1"`, `"description":"since when nothing can be received; missing if it can be"`,
		`{"description":"","in":"path","name":"name","required":true,"schema":{"type":"string"}}`,
	} {
		if !strings.Contains(string(text), part) {
			t.Errorf("the document lacks %s:\n%s", part, text)
		}
	}
	if strings.Contains(string(text), "pprof") {
		t.Error("the document has the profiles, which are not configured")
	}
}
