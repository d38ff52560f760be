package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/drover-run/drover/daemon/internal/admin"
)

// A sidecar: messages are posted to an app, whose answers are the verdicts. While the app is
// misconfigured, no attempt is used.
func TestAnHTTPApp(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var seen []string
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		seen = append(seen, fmt.Sprintf("%s %s/%s", body, r.Header.Get("Drover-Function"), r.Header.Get("Drover-Attempt")))
		mu.Unlock()
		switch string(body) {
		case "bad":
			http.Error(w, "no such order", http.StatusUnprocessableEntity)
		case "again":
			if r.Header.Get("Drover-Attempt") == "1" {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}
	}))
	defer app.Close()
	dir := write(t, map[string]string{"drover.yaml": fmt.Sprintf(`
log: {level: debug, format: text}
functions:
  orders:
    trigger: {nats: {}}
    handler: {http: {url: "%s/orders", headers: {X-Key: k}}}
    retry: {max_attempts: 3, initial: 10ms}
  lost:
    trigger: {nats: {}}
    handler: {http: {url: "http://127.0.0.1:1/x"}}
`, app.URL)})
	file := filepath.Join(dir, "drover.yaml")
	status, text, errs := command(t.Context(), nil, nil, "check", file)
	if status != ExitOK || !strings.Contains(text, "post to "+app.URL+"/orders") {
		t.Errorf("check: status %d\n%s%s", status, text, errs)
	}
	out, stop := startCommand(t, "run", file)
	out.WaitFor(t, "msg=running")
	for _, body := range []string{"good", "bad", "again"} {
		if status, _, errs := command(t.Context(), nil, nil, "send", "orders", "-c", file, "--body", body); status != 0 {
			t.Fatal(errs)
		}
	}
	if status, _, errs := command(t.Context(), nil, nil, "send", "lost", "-c", file, "--body", "x"); status != 0 {
		t.Fatal(errs)
	}
	out.WaitFor(t, "the app is not healthy; nothing is received until it is")
	out.WaitFor(t, "422 Unprocessable Entity: no such order")
	until(t, out, "the second attempt", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.Contains(seen, "again orders/2")
	})
	if status := stop(); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(seen)
	if want := []string{"again orders/1", "again orders/2", "bad orders/1", "good orders/1"}; !slices.Equal(seen, want) {
		t.Errorf("the app has seen %v, want %v", seen, want)
	}
}

// Several messages share a request, and each has its own verdict.
func TestAnHTTPAppWithBatches(t *testing.T) {
	t.Parallel()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var messages []struct{ ID, Data string }
		if err := json.NewDecoder(r.Body).Decode(&messages); err != nil {
			t.Error(err)
		}
		var results []map[string]any
		for _, m := range messages {
			result := map[string]any{"id": m.ID}
			if m.Data == "bad" {
				result["status"], result["error"] = 422, fmt.Sprintf("one of %d", len(messages))
			}
			results = append(results, result)
		}
		admin.WriteJSON(w, http.StatusOK, results)
	}))
	defer app.Close()
	dir := write(t, map[string]string{"drover.yaml": fmt.Sprintf(`
log: {level: debug, format: text}
functions:
  orders:
    trigger: {nats: {}}
    handler: {http: {url: "%s", cloudevents: off, batch: {max: 2, wait: 1m}}}
`, app.URL)})
	file := filepath.Join(dir, "drover.yaml")
	if status, text, errs := command(t.Context(), nil, nil, "check", file); status != ExitOK || !strings.Contains(text, "post up to 2 together to "+app.URL) {
		t.Errorf("check: status %d\n%s%s", status, text, errs)
	}
	out, stop := startCommand(t, "run", file)
	out.WaitFor(t, "msg=running")
	for _, body := range []string{"good", "bad"} {
		if status, _, errs := command(t.Context(), nil, nil, "send", "orders", "-c", file, "--body", body, "--header", "content-type=text/plain"); status != 0 {
			t.Fatal(errs)
		}
	}
	out.WaitFor(t, "the app answers 422 for it: one of 2")
	out.WaitFor(t, "msg=done")
	if status := stop(); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}

// A custom handler of Azure Functions runs without the Functions host: its logs are in the log,
// and its results are sent to the outputs.
func TestACustomHandlerOfAzureFunctions(t *testing.T) {
	t.Parallel()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Data, Metadata map[string]any }
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Error(err)
		}
		admin.WriteJSON(w, http.StatusOK, map[string]any{
			"Outputs": map[string]any{"copies": in.Data["copies"], "main": in.Data["item"]}, "Logs": []string{"at " + r.URL.Path}, "ReturnValue": nil,
		})
	}))
	defer app.Close()
	dir := write(t, map[string]string{"drover.yaml": fmt.Sprintf(`
log: {format: text}
functions:
  Copy:
    trigger: {nats: {}}
    handler: {http: {url: "%s", format: azure, binding: item, data_type: binary, result: main}}
    output: {nats: {subject: Read}}
  Read:
    trigger: {nats: {}}
    handler: {exec: {command: [sh, -c, "cat >&2; exit 65"]}}
`, app.URL)})
	file := filepath.Join(dir, "drover.yaml")
	if status, text, errs := command(t.Context(), nil, nil, "check", file); status != ExitOK || !strings.Contains(text, "invoke the custom handler at "+app.URL) {
		t.Errorf("check: status %d\n%s%s", status, text, errs)
	}
	out, stop := startCommand(t, "run", file)
	out.WaitFor(t, "msg=running")
	if status, _, errs := command(t.Context(), nil, nil, "send", "Copy", "-c", file, "--body", "hello"); status != 0 {
		t.Fatal(errs)
	}
	out.WaitFor(t, "at /Copy")
	out.WaitFor(t, "aGVsbG8=") // base64, as the app received it
	if status := stop(); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}

// If a function does not open after its handler was opened, the daemon ends.
func TestAnHTTPAppWithoutASource(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"drover.yaml": `
functions:
  orders:
    trigger: {nats: {create: false}}
    handler: {http: {url: "http://127.0.0.1:1/x"}}
`})
	status, _, errs := command(t.Context(), nil, nil, "run", filepath.Join(dir, "drover.yaml"))
	if status != ExitStart || !strings.Contains(errs, "orders") {
		t.Errorf("status %d, %s", status, errs)
	}
}

func TestACommandForEachMessage(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"drover.yaml": `
log: {level: debug, format: text}
functions:
  count:
    trigger: {nats: {}}
    handler: {exec: {command: [./count.sh, out], dir: .}}
`, "count.sh": "#!/bin/sh\ncat > \"$1.new\" && mv \"$1.new\" \"$1\"\n"})
	if err := os.Chmod(filepath.Join(dir, "count.sh"), 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "drover.yaml")
	out, stop := startCommand(t, "run", file)
	out.WaitFor(t, "msg=running")
	if status, _, errs := command(t.Context(), nil, nil, "send", "count", "-c", file, "--body", "hello"); status != 0 {
		t.Fatal(errs)
	}
	until(t, out, "its output", func() bool {
		text, err := os.ReadFile(filepath.Join(dir, "out"))
		return err == nil && string(text) == "hello"
	})
	if status := stop(); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}
