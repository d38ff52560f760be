package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers/workers/conformance"
)

// TestConformance drives this worker through the whole protocol.
func TestConformance(t *testing.T) {
	t.Parallel() // it takes the longest, and mostly waits for processes to start
	needNode(t)
	dir := t.TempDir()
	if err := conformance.WriteApp(dir, "node"); err != nil {
		t.Fatal(err)
	}
	interpreter, err := FindInterpreter(t.Context(), os.Getenv("DROVER_TEST_NODE"), os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	home, err := InstallWorker(filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	command := WorkerCommand(interpreter, home, dir, os.Environ())
	target := conformance.Target{
		Command: append([]string{command.Path}, command.Args...), Dir: command.Dir, Env: command.Env,
		App: dir, Module: conformance.Module,
	}
	var passed, skipped int
	err = conformance.Run(t.Context(), target, conformance.Options{Limit: 2 * time.Minute}, func(r conformance.Result) {
		switch r.Verdict {
		case conformance.Passed:
			passed++
		case conformance.Skipped:
			skipped++
			// A process of Node.js cannot be forked from, and has one thread.
			if !strings.HasPrefix(r.Name, "template/") && !strings.HasPrefix(r.Name, "settings/") {
				t.Errorf("%s was skipped: %s", r.Name, r.Why)
			}
		default:
			t.Error(r)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := len(conformance.CheckNames(target)); passed+skipped != want || passed < 100 {
		t.Errorf("%d of %d checks passed, and %d were skipped", passed, want, skipped)
	}
}
