package python

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Each module of the worker can be read and imported after those that it imports.
func TestNoImportCycle(t *testing.T) {
	i, err := Find(t.Context(), t.TempDir(), os.Getenv("DROVER_TEST_PYTHON"), os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), i.Path, filepath.Join("testdata", "import_cycle.py"), filepath.Join("worker", "drover")).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("%v: %s", err, out)
	}
}
