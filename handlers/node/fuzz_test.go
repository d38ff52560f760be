package node

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/drover-run/drover/handlers/workers/readertest"
)

// FuzzReader checks that this worker reads frames as the daemon does.
func FuzzReader(f *testing.F) {
	needNode(f)
	interpreter, err := FindInterpreter(f.Context(), os.Getenv("DROVER_TEST_NODE"), os.LookupEnv)
	if err != nil {
		f.Fatal(err)
	}
	readertest.Fuzz(f, readertest.Reader{Command: []string{interpreter.Path, filepath.Join("testdata", "reader.js")}, Plain: true})
}
