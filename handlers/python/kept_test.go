package python

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestWhatCallsKeep checks that a call keeps its message alone, and not what was read together with it, and
// that an idle thread keeps no body.
func TestWhatCallsKeep(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal(err)
	}
	run := exec.CommandContext(soon(t), python, filepath.Join("testdata", "kept.py"))
	run.Env = append(os.Environ(), "PYTHONPATH=worker", "PYTHONDONTWRITEBYTECODE=1")
	if out, err := run.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
