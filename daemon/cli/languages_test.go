package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-run/drover/handlers/python"
)

// needNode skips a test if node is missing, or fails it if every test is required.
func needNode(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("there is no node, which this test needs")
		}
		t.Skip("there is no node")
	}
}

func TestFunctionsOfThreeLanguages(t *testing.T) {
	t.Parallel()
	needNode(t)
	home, err := python.InstallWorker(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir := write(t, map[string]string{
		"drover.yaml": `
apps:
  depot: {path: ./depot}
  spare: {path: ./depot}
  stock: {path: ./stock, command: [python3, -u, ` + home + `]}
connections: {local: {nats: embedded}}
functions:
  parcels: {trigger: {nats: {}}, handler: {node: {app: depot, module: jobs.mjs}}}
  labels: {trigger: {nats: {}}, handler: {node: {app: depot, module: jobs, function: default}}}
  shelves: {trigger: {nats: {}}, handler: {worker: {app: stock, module: storage}}}
  greet: {trigger: {nats: {}}, handler: {python: {path: ./depot}}}
`,
		"depot/jobs.mjs":        "export const parcels = async (message) => `parcel ${message.text()}`;\nexport default (message) => ({ label: message.text() });\n",
		"depot/function_app.py": "def greet(body): return b'hello ' + body\n",
		"stock/storage.py":      "def shelves(body): return b'shelf ' + body\n",
	})
	file := filepath.Join(dir, "drover.yaml")
	for function, want := range map[string]string{"parcels": "parcel x", "labels": `{"label":"x"}`, "shelves": "shelf x", "greet": "hello x"} {
		if status, out, errs := command(t.Context(), nil, nil, "invoke", function, "-c", file, "--body", "x"); status != ExitOK || out != want {
			t.Errorf("%s: status %d, %q, want %q\n%s", function, status, out, want, errs)
		}
	}
	status, out, errs := command(t.Context(), nil, nil, "check", file)
	if status != ExitOK {
		t.Fatalf("check: status %d\n%s%s", status, out, errs)
	}
	for _, want := range []string{
		"node parcels of jobs.mjs in app depot", "worker shelves of storage in app stock", "python3 -u " + home,
		"(Node.js ", "python3 (command in the configuration)", "app spare is used by no function", "app depot runs with ",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	running, stop := startCommand(t, "run", file)
	running.WaitFor(t, `"msg":"running"`)
	if status, _, errs := command(t.Context(), nil, nil, "send", "parcels", "-c", file, "--body", "x"); status != ExitOK {
		t.Errorf("send: %d\n%s", status, errs)
	}
	if status, _, errs := command(t.Context(), nil, nil, "reload", "-c", file); status != ExitOK {
		t.Errorf("reload: %d\n%s", status, errs)
	}
	if status := stop(); status != ExitOK {
		t.Errorf("run: status %d\n%s", status, running)
	}
}

func TestWhatRunsAnAppIsLookedFor(t *testing.T) {
	const head = "connections: {local: {nats: embedded, listen: \"off\"}}\nfunctions:\n  f: {trigger: {nats: {}}, handler: {"
	for name, test := range map[string]struct{ handler, want string }{
		"an old node":     {"node: {path: app, interpreter: ./node}", "is Node.js 18.19.1; drover needs 20 or newer: install one, and name it with interpreter"},
		"no such node":    {"node: {path: app, interpreter: /nowhere/node}", "/nowhere/node"},
		"no such command": {"worker: {path: app, command: [drover-no-such-worker]}", "its command drover-no-such-worker: executable file not found"},
		"no executable":   {"worker: {path: app, command: [./plain]}", "plain is not executable"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, map[string]string{"drover.yaml": head + test.handler + "}}\n", "node": "#!/bin/sh\necho v18.19.1\n", "app/plain": ""})
			if err := os.Chmod(filepath.Join(dir, "node"), 0o700); err != nil {
				t.Fatal(err)
			}
			for line, want := range map[string]int{"check": ExitFailed, "run": ExitStart} {
				if status, _, errs := command(t.Context(), nil, nil, line, filepath.Join(dir, "drover.yaml")); status != want || !strings.Contains(errs, test.want) {
					t.Errorf("%s: status %d; want %q in\n%s", line, status, test.want, errs)
				}
			}
		})
	}
}
