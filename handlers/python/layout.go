package python

import (
	"context"

	"github.com/drover-run/drover/handlers/interpreters"
)

const layoutCode = `import json, os, sys
homes = [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, os.path.dirname(os.path.realpath(sys.executable))]
print(json.dumps({"executable": sys.executable, "homes": homes, "libraries": [p for p in sys.path if p]}))`

// ReadLayout returns the paths of an interpreter's parts: its virtual environment, the
// Python that this was created with, and its packages.
func ReadLayout(ctx context.Context, i interpreters.Interpreter) (interpreters.Layout, error) {
	return i.ReadLayout(ctx, "-c", layoutCode)
}
