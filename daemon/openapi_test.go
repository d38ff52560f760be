package daemon

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/daemontest"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/triggers"
)

// adminAPI is the document of a running daemon, and a validator of answers.
type adminAPI struct {
	socket string
	check  validator.Validator
	paths  map[string]map[string]any
	asked  map[string]bool // by operation
}

func openAdminAPI(t *testing.T, cfg *configs.Config) *adminAPI {
	t.Helper()
	socket := admin.SocketPath(cfg.DataDir)
	status, text := daemontest.SendGet(t, socket, "/v1/openapi.json")
	if status != http.StatusOK {
		t.Fatalf("status %d: %s", status, text)
	}
	document, err := libopenapi.NewDocument([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	check, errs := validator.NewValidator(document)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	a := &adminAPI{socket: socket, check: check, asked: make(map[string]bool)}
	var parsed struct {
		Paths map[string]map[string]any `json:"paths"`
	}
	if err := json.Unmarshal([]byte(text), &parsed); err != nil {
		t.Fatal(err)
	}
	a.paths = parsed.Paths
	return a
}

// answers sends a request, and checks that the answer is as the document describes it.
func (a *adminAPI) answers(t *testing.T, operation, method, path string, want int) {
	t.Helper()
	a.asked[operation] = true
	request, err := http.NewRequestWithContext(t.Context(), method, "http://localhost"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, text := daemontest.Do(t, a.socket, request) //nolint:bodyclose // Do has closed it
	if response.StatusCode != want {
		t.Errorf("%s %s: %d, want %d: %s", method, path, response.StatusCode, want, text)
	}
	if ok, wrong := a.check.ValidateHttpResponse(request, response); !ok {
		for _, w := range wrong {
			t.Errorf("%s %s: %s: %s\n%s", method, path, w.Message, w.Reason, text)
		}
	}
}

// The answers of a running daemon match its OpenAPI document, and the document has all routes.
func TestOpenAPI(t *testing.T) {
	d, queue, cfg := adminDaemon(t, func(cfg *configs.Config) { cfg.Admin.Pprof = true })
	queue.Send(triggers.Message{})
	d.decisions.SetDecision("instances", time.Now(), testDecision())
	a := openAdminAPI(t, cfg)
	if ok, wrong := a.check.ValidateDocument(); !ok {
		for _, w := range wrong {
			t.Errorf("%s: %s", w.Message, w.Reason)
		}
	}
	for _, c := range []struct {
		operation, method, path string
		want                    int
	}{
		{"getHealth", "GET", "/healthz", 200},
		{"getReadiness", "GET", "/readyz", 200},
		{"getMetrics", "GET", "/metrics", 200},
		{"getOpenAPI", "GET", "/v1/openapi.json", 200},
		{"getStatus", "GET", "/v1/status", 200},
		{"getScale", "GET", "/v1/scale", 200},
		{"pauseFunction", "POST", "/v1/functions/f/pause", 200},
		{"pauseFunction", "POST", "/v1/functions/f/pause?until=2126-01-31T08:00:00Z", 200},
		{"getStatus", "GET", "/v1/status", 200},
		{"pauseFunction", "POST", "/v1/functions/g/pause", 404},
		{"resumeFunction", "POST", "/v1/functions/f/resume", 200},
		{"resumeFunction", "POST", "/v1/functions/g/resume", 404},
		{"sendMessage", "POST", "/v1/functions/f/messages?header=a=b&header=c=d&delay=1h", 200},
		{"sendMessage", "POST", "/v1/functions/f/messages?delay=soon", 400},
		{"sendMessage", "POST", "/v1/functions/g/messages", 404},
		{"reload", "POST", "/v1/reload", 422}, // it was not read from a file
		{"profileFunction", "POST", "/v1/functions/f/profile?seconds=1", 200},
		{"profileFunction", "POST", "/v1/functions/g/profile", 404},
		{"profileFunction", "POST", "/v1/functions/f/profile?seconds=1000", 400},
		{"followLog", "GET", "/v1/functions/f/log?follow=false&level=debug&last=0", 200},
		{"followLog", "GET", "/v1/functions/g/log", 404},
		{"followLog", "GET", "/v1/functions/f/log?last=many", 400},
		{"explain", "GET", "/v1/explain?about=f", 200},
		{"explain", "GET", "/v1/explain?about=f&as=message", 200},
		{"explain", "GET", "/v1/explain?about=g&as=function", 404},
		{"explain", "GET", "/v1/explain", 400},
		{"getProfiles", "GET", "/debug/pprof/", 200},
		{"getProfile", "GET", "/debug/pprof/heap", 200},
		{"getProfile", "GET", "/debug/pprof/cmdline", 200},
	} {
		a.answers(t, c.operation, c.method, c.path, c.want)
	}
	d.phase.set(api.PhaseStopping)
	a.answers(t, "getReadiness", "GET", "/readyz", 503)
	d.phase.set(api.PhaseRunning)

	for path, methods := range a.paths {
		for method, what := range methods {
			if id, _ := what.(map[string]any)["operationId"].(string); !a.asked[id] {
				t.Errorf("%s %s (%s) is not tried here", method, path, id)
			}
		}
	}
	var report map[string]any
	_, text := daemontest.SendGet(t, a.socket, "/v1/status")
	if err := json.Unmarshal([]byte(text), &report); err != nil {
		t.Fatal(err)
	}
	functions, _ := report["functions"].([]any)
	for key := range functions[0].(map[string]any) {
		if strings.ToLower(key) != key {
			t.Errorf("the status has a key %s: they are in small letters", key)
		}
	}
}

// Requests for unknown paths, or with wrong methods, are answered as JSON.
func TestAdminErrorsAreJSON(t *testing.T) {
	_, _, cfg := adminDaemon(t, nil)
	for _, c := range []struct {
		method, path string
		want         int
		says         string
	}{
		{"GET", "/nothing", 404, "there is no /nothing here"},
		{"GET", "/", 404, "there is no / here"},
		{"POST", "/v1/status", 405, "/v1/status is for GET"},
		{"GET", "/v1/functions/f/pause", 405, "is for POST"},
		{"POST", "/v1/functions/g/pause", 404, `there is no function "g"`},
		{"POST", "/v1/functions/f/pause?until=never", 400, "until is not a time"},
		{"GET", "/debug/pprof/", 404, "there is no /debug/pprof/ here"},
	} {
		status, text := daemontest.Send(t, admin.SocketPath(cfg.DataDir), c.method, c.path, nil)
		var said Problem
		if err := json.Unmarshal([]byte(text), &said); err != nil || status != c.want || !strings.Contains(said.Error, c.says) {
			t.Errorf("%s %s: %d, %s, %v; want %d, %s", c.method, c.path, status, text, err, c.want, c.says)
		}
	}
}

func TestLatenciesAsJSON(t *testing.T) {
	var h telemetry.Histogram
	h.Add(time.Millisecond)
	h.Add(time.Hour)
	text, err := json.Marshal(h.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	var back Latencies
	if err := json.Unmarshal(text, &back); err != nil || back != *h.Snapshot() {
		t.Errorf("%s is decoded as %v, %v", text, back, err)
	}
	for _, bad := range []string{`{"steps": {"x": 1}}`, `{"steps": {"-1": 1}}`, `{"steps": {"100000": 1}}`, `[1]`} {
		if err := json.Unmarshal([]byte(bad), &back); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

func TestExplainWhileItStops(t *testing.T) {
	d, _, cfg := adminDaemon(t, nil)
	d.phase.set(api.PhaseStopping)
	if _, text := ask(t, admin.SocketPath(cfg.DataDir), "/v1/explain?about=f"); !strings.Contains(text, `"state": "stopping"`) || !strings.Contains(text, "the daemon is stopping") {
		t.Errorf("%s", text)
	}
}
