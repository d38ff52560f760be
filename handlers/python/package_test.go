package python

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/sdktest"
)

// runPython runs a script with the modules that the worker's apps can import, and returns its
// output.
func runPython(t *testing.T, args ...string) string {
	t.Helper()
	i, _ := installation.find(t)
	cmd := exec.CommandContext(t.Context(), i.Path, append([]string{"-B"}, args...)...)
	cmd.Env = append(os.Environ(), "PYTHONPATH=worker")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	return string(out)
}

// Each module of the worker can be read and imported after the modules that it imports.
func TestNoImportCycle(t *testing.T) {
	t.Parallel()
	if cycle := runPython(t, filepath.Join("testdata", "import_cycle.py"), filepath.Join("worker", "drover")); cycle != "" {
		t.Error(cycle)
	}
}

// Mypy checks the worker, and a function that uses the whole API, in strict mode.
func TestTypes(t *testing.T) {
	t.Parallel()
	home, err := InstallWorker(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(home, "drover", "py.typed")); err != nil {
		t.Error(err)
	}
	app := filepath.Join("testdata", "typed", "function_app.py")
	// OpenTelemetry and uvloop are the app's, if it has them.
	out, err := sdktest.Mypy(t, []string{"MYPYPATH=" + home}, "--strict", "--ignore-missing-imports", "--python-version", "3.10", filepath.Join(home, "drover"), app)
	if err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
}

// The app that TestTypes checks uses the whole package, and works.
func TestAppThatUsesAllOfThePackage(t *testing.T) {
	t.Parallel()
	if unused := runPython(t, filepath.Join("testdata", "typed", "names.py")); unused != "" {
		t.Error("not used: " + unused)
	}
	source, err := os.ReadFile(filepath.Join("testdata", "typed", "function_app.py"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range everyInterpreter(t) {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			p := startApp(t, string(source)+"\ntested()\n", func(c *workers.Config) { c.Command.Path = path }, "orders")
			out, err := handle(soon(t), handler(t, p, "orders"), &triggers.Message{ID: "42", Body: []byte(`{"id": 7}`), Attempt: 1})
			if err != nil || !strings.Contains(string(out), `"order": {"id": 7}`) || !strings.Contains(string(out), `"opened": ["connection"]`) {
				t.Errorf("%s, %v", out, err)
			}
		})
	}
}
