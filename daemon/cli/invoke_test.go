package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/daemon/cli/invoke"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

const invokeApp = `
import drover, logging, time
def greet(message):
    print("hello", message.text(), message.attributes.get("who"), "\x1b[31m")
    logging.getLogger("mine").warning("attempt %d", message.attempt)
    what = message.text()
    if what == "bad": raise drover.Reject("a bad one")
    if what == "later": raise drover.Retry(after=7)
    if what == "failing": raise ValueError("no luck")
    if what == "slow": time.sleep(600)
    if what == "bytes": return b"\xff\x00"
    if what == "nothing": return None
    return "hi " + what
def async_subject(message):
    return message.subject + ", " + str(message.ordering_key)
`

const invokeConfig = `
functions:
  greet:
    trigger: {nats: {}}
    handler: {python: {path: ./app}}
    output: {nats: {subject: greetings}}
    retry: {max_attempts: 2, initial: 3s, jitter: 0}
    timeout: 30s
    max_body: 1KiB
  slow: {trigger: {nats: {}}, handler: {python: {path: ./app, function: greet}}, timeout: 200ms}
  named: {trigger: {storage_queue: {queue: images}}, handler: {python: {path: ./app, function: async_subject}}}
  shout: {trigger: {nats: {}}, handler: {exec: {command: [tr, a-z, A-Z]}}}
  post: {trigger: {nats: {}}, handler: {http: {url: "${APP}"}}}
  broken: {trigger: {nats: {}}, handler: {python: {path: ./broken}}}
  gone: {trigger: {nats: {}}, handler: {go: nowhere}}
  shut: {trigger: {servicebus: {queue: q}}, handler: {go: panics}}
connections:
  cluster: {nats: "nats://127.0.0.1:9"}
  store: {connection_string: UseDevelopmentStorage=true}
  bus: {connection_string: "Endpoint=sb://nowhere.servicebus.windows.net/;SharedAccessKeyName=k;SharedAccessKey=czNjcjN0"}
`

// invokeDir creates a configuration whose sources are all unreachable, or do not exist.
func invokeDir(t *testing.T) (file string) {
	t.Helper()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if string(body) == "bad" {
			http.Error(w, "not that", http.StatusUnprocessableEntity)
			return
		}
		_, _ = w.Write(bytes.ToUpper(body))
	}))
	t.Cleanup(app.Close)
	dir := write(t, map[string]string{"drover.yaml": strings.ReplaceAll(invokeConfig, "${APP}", app.URL), "app/function_app.py": invokeApp,
		"broken/function_app.py": "import nonexistent_pkg\ndef broken(body): pass\n", "small.txt": "from a\nfile\n", "large.txt": strings.Repeat("x", 1025)})
	return filepath.Join(dir, "drover.yaml")
}

func TestInvoke(t *testing.T) {
	t.Parallel()
	file := invokeDir(t)
	dir := filepath.Dir(file)
	funcs := handlers.Funcs{"panics": func(context.Context, *triggers.Message) ([]byte, error) { panic("oh") }}
	for _, test := range []struct {
		args   string
		in     string
		status int
		out    string
		errs   []string
	}{
		{"greet --body one -H who=me", "", 0, "hi one", []string{"stdout | hello one me ?[31m\n", "WARN mine | attempt 1\n", "verdict: done (attempt 1 of 2, took ", "output: 6 bytes, which would go to subject greetings on "}},
		{"greet --body bytes", "", 0, "\xff\x00", []string{"2 bytes"}},
		{"greet --body nothing", "", 0, "", []string{"output: none"}},
		{"greet --body bad", "", 1, "", []string{"verdict: reject, to the dead letters: a bad one (attempt 1 of 2"}},
		{"greet --body later", "", 1, "", []string{"verdict: retry, after 7s"}},
		{"greet --body failing", "", 1, "", []string{"Traceback", "in greet\n", "error: ValueError: no luck\n", "verdict: retry, after 3s"}},
		{"greet --body failing --attempt 2", "", 1, "", []string{"attempt 2\n", "verdict: reject, to the dead letters: failed 2 times, the last time with: ValueError: no luck"}},
		{"slow --body slow", "", 1, "", []string{"error: timed out after 200ms"}},
		{"greet --file DIR/small.txt", "", 0, "hi from a\nfile\n", nil},
		{"greet --file -", "from a pipe", 0, "hi from a pipe", nil},
		{"greet --file DIR/large.txt", "", 1, "", []string{"reject", "1025 bytes, more than max_body (1024)"}},
		{"named --body x --session s", "", 0, "images, s", []string{"not sent: the function has no output"}},
		{"named --body x --subject other", "", 0, "other, ", nil},
		{"shout --body abc", "", 0, "ABC", nil},
		{"post --body abc", "", 0, "ABC", nil},
		{"post --body bad", "", 1, "", []string{"verdict: reject", "422"}},
		{"shut --body x", "", 1, "", []string{"goroutine", "error: panic: oh", "verdict: retry"}},
		{"broken --body x", "", 5, "", []string{"Traceback", "ModuleNotFoundError", "pip install nonexistent_pkg", "verdict: release"}},
		{"gone --body x", "", 1, "", []string{`no Go function "nowhere"; it has: [panics]`}},
		{"gret --body x", "", 1, "", []string{"gret is not a function of", "did you mean greet?"}},
		{"greet --file DIR/nowhere.txt", "", 1, "", []string{"reading the body", "nowhere.txt"}},
		{"greet --file DIR", "", 1, "", []string{"reading the body", "directory"}},
		{"greet", "", 2, "", []string{"give --body or --file"}},
		{"greet --body x --file y", "", 2, "", []string{"give either --body or --file, not both"}},
		{"greet --body x --attempt 0", "", 2, "", []string{"--attempt counts from 1"}},
	} {
		t.Run(test.args, func(t *testing.T) {
			args := strings.Fields(strings.ReplaceAll(test.args, "DIR", dir))
			args = append([]string{"invoke", args[0], "-c", file}, args[1:]...)
			status, out, errs := command(t.Context(), funcs, strings.NewReader(test.in), args...)
			if status != test.status || out != test.out {
				t.Errorf("status %d, want %d; output %q, want %q\n%s", status, test.status, out, test.out, errs)
			}
			for _, want := range test.errs {
				if !strings.Contains(errs, want) {
					t.Errorf("standard error lacks %q:\n%s", want, errs)
				}
			}
		})
	}
	if made, err := filepath.Glob(filepath.Join(dir, ".drover", "nats*")); err != nil || len(made) > 0 {
		t.Errorf("a store was made: %v, %v", made, err)
	}
}

func TestInvokeAsJSON(t *testing.T) {
	t.Parallel()
	file := invokeDir(t)
	run := func(body string) (out invoke.Report, status int) {
		t.Helper()
		status, text, errs := command(t.Context(), nil, nil, "invoke", "greet", "-c", file, "--body", body, "--json")
		if err := json.Unmarshal([]byte(text), &out); err != nil {
			t.Fatalf("%v in\n%s\n%s", err, text, errs)
		}
		if errs != "" {
			t.Errorf("standard error has %q", errs)
		}
		return out, status
	}
	done, status := run("one")
	if status != ExitOK || done.Verdict != "done" || done.Output == nil || *done.Output != "hi one" || done.Took <= 0 || done.MaxAttempts != 2 ||
		!strings.Contains(done.OutputTo, "greetings") || len(done.Log) != 2 || done.Log[0].From != "stdout" || done.Log[1].From != "mine" || done.Log[1].Level != "WARN" {
		t.Errorf("status %d, %+v", status, done)
	}
	failed, status := run("failing")
	if status != ExitFailed || failed.Verdict != "retry" || failed.Delay != 3 || failed.Error != "ValueError: no luck" || !strings.Contains(failed.Detail, "Traceback") || failed.Output != nil {
		t.Errorf("status %d, %+v", status, failed)
	}
	if raw, _ := run("bytes"); raw.OutputBytes != "/wA=" || raw.Output != nil {
		t.Errorf("%+v", raw)
	}
}

func TestInvokeOnATerminalPrintsNoEscapes(t *testing.T) {
	dir := write(t, map[string]string{"drover.yaml": "functions: {f: {trigger: {nats: {}}, handler: {go: f}}}"})
	funcs := handlers.Funcs{"f": func(_ context.Context, m *triggers.Message) ([]byte, error) {
		if string(m.Body) == "fail" {
			return nil, errors.New("\x1b]0;title\x07")
		}
		return []byte("\x1b[2J" + string(m.Body)), nil
	}}
	for _, body := range []string{"x", "fail"} {
		out, errs := newPrinted(), newPrinted()
		Command(t.Context(), []string{"invoke", "f", "-c", filepath.Join(dir, "drover.yaml"), "--body", body}, &IO{In: strings.NewReader(""), Out: out, Err: errs,
			OutIsTerminal: true, ErrIsTerminal: true, Env: os.LookupEnv, Environ: os.Environ, Funcs: funcs})
		if text := out.String() + errs.String(); strings.ContainsAny(text, "\x1b\x07") || !strings.Contains(text, "?[2Jx\n") && !strings.Contains(text, "?]0;title?") {
			t.Errorf("%q", text)
		}
	}
}

func TestInvokeBesideARunningDaemonAndStopped(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"drover.yaml": pythonConfig, "app/function_app.py": "import time\ndef greet(message):\n    print('got', message.id, flush=True)\n    time.sleep(600 if message.text() == 'slow' else 0)\n"})
	file := filepath.Join(dir, "drover.yaml")
	out, stop := startCommand(t, "run", file)
	out.WaitFor(t, `"msg":"running"`)
	status, _, errs := command(t.Context(), nil, nil, "invoke", "greet", "-c", file, "--body", "x")
	if status != ExitOK || !strings.Contains(errs, "got invoke-") || strings.Contains(out.String(), "got") {
		t.Errorf("status %d\n%s\nthe daemon:\n%s", status, errs, out)
	}
	invoked, interrupt := startCommand(t, "invoke", "greet", "-c", file, "--body", "slow")
	invoked.WaitFor(t, "got invoke-")
	if status := interrupt(); status != ExitFailed || !strings.Contains(invoked.String(), "verdict: release") {
		t.Errorf("status %d\n%s", status, invoked)
	}
	if status := stop(); status != ExitOK {
		t.Errorf("the daemon ended with %d\n%s", status, out)
	}
}

func TestInvokeWithAnAppThatIsDown(t *testing.T) {
	t.Parallel() // it waits
	app := httptest.NewServer(http.NotFoundHandler())
	app.Close()
	dir := write(t, map[string]string{"drover.yaml": "functions: {f: {trigger: {nats: {}}, handler: {http: {url: '" + app.URL + "'}}}}"})
	began := time.Now()
	status, _, errs := command(t.Context(), nil, nil, "invoke", "f", "-c", filepath.Join(dir, "drover.yaml"), "--body", "x")
	if status != ExitFailed || !strings.Contains(errs, "connection refused") || !strings.Contains(errs, "the app accepts no messages") || !strings.Contains(errs, "verdict: release") {
		t.Errorf("status %d\n%s", status, errs)
	}
	if took := time.Since(began); took < invoke.SlotLimit {
		t.Errorf("it waited for %v, not for %v", took, invoke.SlotLimit)
	}
}
