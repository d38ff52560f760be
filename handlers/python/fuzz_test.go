package python

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/drover-run/drover/handlers/workers/readertest"
)

// FuzzReader checks that this worker reads frames as the daemon does.
func FuzzReader(f *testing.F) {
	interpreter, err := FindInterpreter(f.Context(), ".", os.Getenv("DROVER_TEST_PYTHON"), os.LookupEnv)
	if err != nil {
		f.Fatal(err)
	}
	readertest.Fuzz(f, readertest.Reader{
		Command: []string{interpreter.Path, "-B", filepath.Join("testdata", "reader.py")}, Environ: []string{"PYTHONPATH=worker"},
	})
}
