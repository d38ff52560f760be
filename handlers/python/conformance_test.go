package python

import (
	"os"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers/workers/conformance"
)

// TestConformance drives this worker through the whole protocol.
func TestConformance(t *testing.T) {
	t.Parallel() // it takes the longest, and mostly waits for processes to start
	dir := t.TempDir()
	if err := conformance.WriteApp(dir, "python"); err != nil {
		t.Fatal(err)
	}
	interpreter, home := installation.find(t)
	command := WorkerCommand(interpreter, home, dir, os.Environ())
	target := conformance.Target{
		Command: append([]string{command.Path}, command.Args...), Dir: command.Dir, Env: command.Env,
		App: dir, Module: conformance.Module,
	}
	var passed int
	err := conformance.Run(t.Context(), target, conformance.Options{Limit: 2 * time.Minute}, func(r conformance.Result) {
		switch r.Verdict {
		case conformance.Passed:
			passed++
		case conformance.Skipped:
			t.Errorf("%s was skipped: %s", r.Name, r.Why)
		default:
			t.Error(r)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := len(conformance.CheckNames(target)); passed != want || want < 100 {
		t.Errorf("%d of %d checks passed", passed, want)
	}
}
