package cli

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-run/drover/handlers/workers/conformance"
	"github.com/drover-run/drover/triggers/sdktest"
)

func TestWorkerTest(t *testing.T) {
	t.Parallel()
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

// The command writes the files that a type checker and a test of an app need.
func TestWorkerTypings(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{
		"typings/drover/__init__.py": "an older one", "typings/drover/py.typed": "",
		"app.py": "import drover.testing\ndef f(message: drover.Message) -> str:\n    return message.id\nassert drover.testing.run(f, b'') == '1'\n",
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
	// So does the project that init writes.
	app := filepath.Join(project(t, "python"), "app")
	files := []string{"--strict", filepath.Join(dir, "app.py"), filepath.Join(app, "function_app.py"), filepath.Join(app, "test_function_app.py")}
	if out, err := sdktest.Mypy(t, []string{"MYPYPATH=" + typings}, files...); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// The wheel has the same bytes each time. pip installs it without an index, the tests of an app run with
// it, and mypy finds its types.
func TestWorkerWheel(t *testing.T) {
	t.Parallel()
	needVenv(t)
	dir := write(t, map[string]string{
		"app/function_app.py": `from __future__ import annotations
import dataclasses
import drover.testing

@dataclasses.dataclass
class Order:
    id: int

async def orders(order: Order, context: drover.Context) -> drover.Output:
    return drover.Output({"id": order.id}, subject=context.function)

def wrong(message: drover.Message) -> None:
    """If there were no types, mypy --strict would report that these comments are not needed."""
    number: int = message.id  # type: ignore[assignment]
    drover.testing.message(id=7)  # type: ignore[arg-type]
`,
		"app/test_function_app.py": `import unittest
import drover.testing
from function_app import orders

class OrdersTest(unittest.TestCase):
    def test_order(self) -> None:
        output: drover.Output = drover.testing.run(orders, {"id": 7}, context=drover.testing.context("orders", timeout=60))
        self.assertEqual((output.body, output.properties["subject"]), ({"id": 7}, "orders"))

    def test_bad_order(self) -> None:
        with self.assertRaises(drover.Reject):
            drover.testing.run(orders, drover.testing.message({}, attempt=2, attributes={"a": ["b"]}))
`,
	})
	var contents []string
	var path string
	for _, to := range []string{"dist", "again"} {
		status, out, errs := command(t.Context(), nil, nil, "worker", "wheel", filepath.Join(dir, to))
		path = strings.TrimSpace(strings.TrimPrefix(out, "Written: "))
		content, err := os.ReadFile(path)
		if status != ExitOK || errs != "" || err != nil || !strings.HasPrefix(filepath.Base(path), "drover_functions-") {
			t.Fatalf("status %d, %v\n%s%s", status, err, out, errs)
		}
		contents = append(contents, string(content))
	}
	if contents[0] != contents[1] {
		t.Error("the second wheel has different bytes")
	}
	python := filepath.Join(dir, "environment", "bin", "python")
	for _, args := range [][]string{
		{"python3", "-m", "venv", filepath.Join(dir, "environment")},
		{python, "-m", "pip", "install", "--no-index", "--disable-pip-version-check", path},
		{python, "-m", "unittest", "discover", filepath.Join(dir, "app")},
	} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	if status, _, errs := command(t.Context(), nil, nil, "worker", "wheel", path); status != ExitFailed || !strings.Contains(errs, "making the directory of the wheel: ") {
		t.Errorf("status %d\n%s", status, errs)
	}
	if out, err := sdktest.Mypy(t, nil, "--strict", "--python-executable", python, filepath.Join(dir, "app", "function_app.py"), filepath.Join(dir, "app", "test_function_app.py")); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// For Node.js the command writes the types of the module.
func TestWorkerTypingsOfNode(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"file": ""})
	status, out, errs := command(t.Context(), nil, nil, "worker", "typings", dir, "--language", "node")
	if status != ExitOK || out != "Written: "+filepath.Join(dir, "drover")+"\n" || errs != "" {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	text, err := os.ReadFile(filepath.Join(dir, "drover", "index.d.ts"))
	if err != nil || !strings.Contains(string(text), "export class Outputs {") {
		t.Errorf("%v\n%s", err, text)
	}
	if status, _, errs := command(t.Context(), nil, nil, "worker", "typings", filepath.Join(dir, "file"), "--language", "node"); status != ExitFailed || !strings.Contains(errs, "making the directory of the types: ") {
		t.Errorf("status %d\n%s", status, errs)
	}
	if err := errors.Join(os.Remove(filepath.Join(dir, "drover", "index.d.ts")), os.Mkdir(filepath.Join(dir, "drover", "index.d.ts"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if status, _, errs := command(t.Context(), nil, nil, "worker", "typings", dir, "--language", "node"); status != ExitFailed || !strings.Contains(errs, "writing the types: ") {
		t.Errorf("status %d\n%s", status, errs)
	}
	if status, _, _ := command(t.Context(), nil, nil, "worker", "typings", dir, "--language", "ruby"); status != ExitUsage {
		t.Errorf("status %d", status)
	}
}

func TestWorkerTestOfNode(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("node"); err != nil && os.Getenv("CI") != "true" {
		t.Skip("there is no node")
	}
	status, out, errs := command(t.Context(), nil, nil, "worker", "test", "node", "--run", `^load/functions`, "--limit", "2m")
	if status != ExitOK || errs != "" || !strings.Contains(out, "\n3 passed, 0 failed, 0 skipped, in ") {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
}

func TestWorkerTestOfAWorkerThatFails(t *testing.T) {
	t.Parallel()
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
