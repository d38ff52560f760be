package cli

import (
	"go/format"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/drover-run/drover/handlers"
)

// project creates a new project, and checks what all projects have in common.
func project(t *testing.T, kind string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "a project")
	status, out, errs := command(t.Context(), nil, nil, "init", kind, dir)
	if status != ExitOK {
		t.Fatalf("status %d\n%s%s", status, out, errs)
	}
	_, next, _ := strings.Cut(out, "\nNext:\n")
	readme, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	for line := range strings.Lines(next + strings.Join(shBlock.FindStringSubmatch(string(readme))[1:], "")) {
		args, found := droverArgs(strings.Replace(line, "./orders", "drover", 1))
		if !found {
			continue
		}
		calls++
		if _, err := parses(t, args); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
	if calls < 5 || !strings.Contains(next, "cd '"+dir+"'\n") {
		t.Errorf("%d commands are named in\n%s\n%s", calls, next, readme)
	}
	for _, name := range []string{"drover.yaml", ".gitignore", "order.json"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	status, out, errs = command(t.Context(), handlers.Funcs{"orders": nil}, nil, "check", filepath.Join(dir, "drover.yaml"))
	if status != ExitOK || !strings.Contains(out, "function orders") || strings.Contains(out, "warning") {
		t.Errorf("drover check: status %d\n%s%s", status, out, errs)
	}
	return dir
}

// handles runs a configuration, sends the project's message, and waits until a text is logged.
func handles(t *testing.T, file, want string) {
	t.Helper()
	out, stop := startCommand(t, "run", file)
	out.WaitFor(t, `"msg":"running"`)
	status, _, errs := command(t.Context(), nil, nil, "send", "orders", "-c", file, "--file", filepath.Join(filepath.Dir(file), "order.json"))
	if status != ExitOK {
		t.Fatalf("drover send: status %d\n%s", status, errs)
	}
	out.WaitFor(t, want)
	if status := stop(); status != ExitOK {
		t.Errorf("drover run: status %d\n%s", status, out)
	}
}

// runIn runs a program in a directory.
func runIn(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestInitPython(t *testing.T) {
	t.Parallel()
	dir := project(t, "python")
	if out := runIn(t, dir, "python3", "-m", "unittest", "discover", "app"); !strings.Contains(out, "Ran 2 tests") {
		t.Errorf("its tests:\n%s", out)
	}
	file := filepath.Join(dir, "drover.yaml")
	status, out, errs := command(t.Context(), nil, nil, "invoke", "orders", "-c", file, "--file", filepath.Join(dir, "order.json"))
	if status != ExitOK || out != `{"id":7,"total":13}` {
		t.Errorf("status %d, %q\n%s", status, out, errs)
	}
	status, _, errs = command(t.Context(), nil, nil, "invoke", "orders", "-c", file, "--body", "no JSON")
	if status != ExitFailed || !strings.Contains(errs, "verdict: reject, to the dead letters: no JSON: Expecting value") {
		t.Errorf("status %d\n%s", status, errs)
	}
	handles(t, file, "order 7, attempt 1")
}

func TestInitNode(t *testing.T) {
	t.Parallel()
	needNode(t)
	dir := project(t, "node")
	if out := runIn(t, dir, "node", "--test"); !strings.Contains(out, "pass 2") {
		t.Errorf("its tests:\n%s", out)
	}
	file := filepath.Join(dir, "drover.yaml")
	status, out, errs := command(t.Context(), nil, nil, "invoke", "orders", "-c", file, "--file", filepath.Join(dir, "order.json"))
	if status != ExitOK || out != `{"id":7,"total":13}` {
		t.Errorf("status %d, %q\n%s", status, out, errs)
	}
	status, _, errs = command(t.Context(), nil, nil, "invoke", "orders", "-c", file, "--body", "no JSON")
	if status != ExitFailed || !strings.Contains(errs, "verdict: reject, to the dead letters: no JSON: Unexpected token") {
		t.Errorf("status %d\n%s", status, errs)
	}
	handles(t, file, "order 7, attempt 1")
}

func TestInitHTTP(t *testing.T) {
	dir := project(t, "http")
	in, app := io.Pipe()
	cmd := exec.CommandContext(t.Context(), "python3", "app.py", "0")
	cmd.Dir, cmd.Stdout = dir, app
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := newPrinted()
	copied := make(chan struct{})
	go func() { defer close(copied); _, _ = io.Copy(lines, in) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait(); _ = app.Close(); <-copied })
	lines.WaitFor(t, "listens on")
	lines.WaitFor(t, "\n")
	address := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(lines.String())
	file := filepath.Join(dir, "drover.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(text), "127.0.0.1:8080", address)), 0o600); err != nil {
		t.Fatal(err)
	}
	status, out, errs := command(t.Context(), nil, nil, "invoke", "orders", "-c", file, "--file", filepath.Join(dir, "order.json"))
	if status != ExitOK || out != `{"id": 7, "total": 13}` {
		t.Errorf("status %d, %q\n%s", status, out, errs)
	}
	status, _, errs = command(t.Context(), nil, nil, "invoke", "orders", "-c", file, "--body", "[1]")
	if status != ExitFailed || !strings.Contains(errs, "verdict: reject") || !strings.Contains(errs, "no order: TypeError") {
		t.Errorf("status %d\n%s", status, errs)
	}
	log, stop := startCommand(t, "run", file)
	log.WaitFor(t, `"msg":"running"`)
	if status, _, errs := command(t.Context(), nil, nil, "send", "orders", "-c", file, "--body", `{"id": 8, "lines": []}`); status != ExitOK {
		t.Errorf("drover send: status %d\n%s", status, errs)
	}
	lines.WaitFor(t, "order 8, attempt 1: 0")
	if status := stop(); status != ExitOK {
		t.Errorf("drover run: status %d\n%s", status, log)
	}
}

func TestInitAzure(t *testing.T) {
	dir := project(t, "azure")
	for _, test := range []struct {
		file, env string
		emulate   []string
	}{
		{"drover.yaml", "AzureWebJobsStorage", []string{"storagequeue"}},
		{"servicebus.yaml", "ServiceBusConnection", []string{"servicebus", "--subscription", "orders/billing", "--queue", "receipts"}},
	} {
		t.Run(test.file, func(t *testing.T) {
			out, _ := startCommand(t, append([]string{"emulate"}, append(test.emulate, "--listen", "127.0.0.1:0")...)...)
			at := regexp.MustCompile(`(?m)^(Endpoint=|DefaultEndpointsProtocol=)\S+\n`)
			out.WaitFor(t, "=")
			for at.FindString(out.String()) == "" { // the line may arrive in parts
				out.WaitFor(t, ";")
			}
			t.Setenv(test.env, strings.TrimSpace(at.FindString(out.String())))
			handles(t, filepath.Join(dir, test.file), `receipt: {\"id\":7,\"total\":13}`)
		})
	}
}

func TestInitGo(t *testing.T) {
	t.Parallel()
	dir := project(t, "go")
	for _, name := range []string{"main.go", "main_test.go"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if formatted, err := format.Source(text); err != nil || string(formatted) != string(text) {
			t.Errorf("%s is not as gofmt has it: %v", name, err)
		}
	}
	// The checksums of drover's dependencies are those of this repository; a user gets them by go
	// mod tidy.
	sums, err := os.ReadFile("../../go.sum")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go.sum"), sums, 0o600); err != nil {
		t.Fatal(err)
	}
	runIn(t, dir, "go", "build", "-mod=mod", "-o", "orders", ".")
	runIn(t, dir, "go", "test", "-mod=mod", ".")
	own := filepath.Join(dir, "orders")
	if out := runIn(t, dir, own, "invoke", "orders", "--file", "order.json"); !strings.Contains(out, `{"id":7,"total":13}`) {
		t.Errorf("%s", out)
	}
	cmd := exec.CommandContext(t.Context(), own, "run")
	out := newPrinted()
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	out.WaitFor(t, `"msg":"running"`)
	runIn(t, dir, own, "send", "orders", "--file", "order.json")
	out.WaitFor(t, "order 7, attempt 1: 13")
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	if status := waitFor(t, ended, out); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}

func TestInitOverwritesNothing(t *testing.T) {
	dir := write(t, map[string]string{"app/function_app.py": "mine", ".gitignore": "mine too"})
	status, out, errs := command(t.Context(), nil, nil, "init", "python", dir)
	if status != ExitFailed || !strings.Contains(errs, "nothing was written") || !strings.Contains(errs, ".gitignore, app/function_app.py already") {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("%v, %v", entries, err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "app/function_app.py")); err != nil || string(text) != "mine" {
		t.Errorf("%q, %v", text, err)
	}
	status, _, errs = command(t.Context(), nil, nil, "init", "go", filepath.Join(dir, ".gitignore"))
	if status != ExitFailed || !strings.Contains(errs, "not a directory") {
		t.Errorf("status %d\n%s", status, errs)
	}
	status, _, errs = command(t.Context(), nil, nil, "init", "cobol", dir)
	if status != ExitUsage || !strings.Contains(errs, `must be one of "python","node","go","http","azure"`) {
		t.Errorf("status %d\n%s", status, errs)
	}
}
