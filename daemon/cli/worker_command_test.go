package cli

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-run/drover/handlers/workers/conformance"
	"github.com/drover-run/drover/triggers/sdktest"
)

func TestWorkerTest(t *testing.T) {
	status, out, errs := command(t.Context(), nil, nil, "worker", "test", "python", "--run", `^(hello/welcome|load/functions.*|invoke/echo\[one\])$`, "--limit", "2m")
	if status != ExitOK || errs != "" || !strings.Contains(out, "passed   load/functions[async]") || !strings.Contains(out, "\n5 passed, 0 failed, 0 skipped, in ") {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	status, out, errs = command(t.Context(), nil, nil, "worker", "test", "python", "--run", `load/functions`, "--modes", "async", "--json", "--limit", "2m")
	var got conformance.Result
	if err := json.Unmarshal([]byte(out), &got); err != nil || status != ExitOK || errs != "" || got.Verdict != conformance.Passed || got.Name != "load/functions[async]" {
		t.Errorf("status %d, %v\n%s%s", status, err, out, errs)
	}
}

// The command writes what a type checker and a test of an app need.
func TestWorkerTypings(t *testing.T) {
	dir := write(t, map[string]string{
		"typings/drover/__init__.py": "an older one", "typings/drover/py.typed": "",
		"app.py": "import drover\ndef f(message: drover.Message) -> str:\n    return message.id\nassert f(drover.Message(b'')) == ''\n",
	})
	typings := filepath.Join(dir, "typings")
	status, out, errs := command(t.Context(), nil, nil, "worker", "typings", typings)
	if status != ExitOK || out != "Written: "+filepath.Join(typings, "drover")+"\n" || errs != "" {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	cmd := exec.CommandContext(t.Context(), "python3", filepath.Join(dir, "app.py"))
	cmd.Env = append(os.Environ(), "PYTHONPATH="+typings)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if status, out, errs := command(t.Context(), nil, nil, "worker", "typings", filepath.Join(dir, "app.py")); status != ExitFailed || !strings.Contains(errs, "making the directory of the Python package: ") {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	if err := os.Remove(filepath.Join(typings, "drover", "py.typed")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(typings, "drover", "py.typed"), 0o700); err != nil {
		t.Fatal(err)
	}
	if status, out, errs := command(t.Context(), nil, nil, "worker", "typings", typings); status != ExitFailed || !strings.Contains(errs, "writing the Python package: ") {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	if out, err := sdktest.Mypy(t, []string{"MYPYPATH=" + typings}, "--strict", filepath.Join(dir, "app.py")); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestWorkerTestOfNode(t *testing.T) {
	if _, err := exec.LookPath("node"); err != nil && os.Getenv("CI") != "true" {
		t.Skip("there is no node")
	}
	status, out, errs := command(t.Context(), nil, nil, "worker", "test", "node", "--run", `^load/functions`, "--limit", "2m")
	if status != ExitOK || errs != "" || !strings.Contains(out, "\n3 passed, 0 failed, 0 skipped, in ") {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
}

func TestWorkerTestOfAWorkerThatFails(t *testing.T) {
	status, out, errs := command(t.Context(), nil, nil,
		"worker", "test", "--app", t.TempDir(), "--run", "hello/(welcome|split)", "--limit", "2m", "--", "sh", "-c", "echo not today >&2; exit 3")
	for _, want := range []string{
		"failed   hello/welcome", "the worker closed its socket: it ended with exit status 3", "wanted: a WELCOME",
		"rule: The answer to HELLO, whatever its protocol.", `sent: HELLO {"protocol":4`, "stderr: not today", "\n0 passed, 2 failed",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	if status != ExitFailed || errs != "" || t.Failed() {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
}

func TestWorkerTestRefuses(t *testing.T) {
	for _, c := range []struct {
		args   string
		status int
		want   string
	}{
		{"", ExitUsage, `expected "<command> ..."`},
		{"-- ./my-worker", ExitUsage, "name the directory of the test app with --app"},
		{"python -x", ExitUsage, "unknown flag -x"},
		{"python --run [", ExitUsage, "--run takes a regular expression: "},
		{"python --run nothing/such", ExitFailed, "no check matches nothing/such; use one of hello/welcome, "},
		{"python --limit 0s", ExitUsage, "--limit must be more than 0"},
		{"python --modes sink", ExitUsage, `must be one of "one","threads","async"`},
		{"--app nowhere -- ./my-worker", ExitUsage, "--app takes a directory, and nowhere is none"},
		{"--app . --run hello/welcome -- ./nowhere/my-worker", ExitFailed, "no such file or directory"},
	} {
		status, out, errs := command(t.Context(), nil, nil, append([]string{"worker", "test"}, strings.Fields(c.args)...)...)
		if status != c.status || !strings.Contains(out+errs, c.want) {
			t.Errorf("%s: status %d\n%s%s", c.args, status, out, errs)
		}
	}
}
