package conformance

import (
	"embed"
	"io/fs"
	"os"
)

// Module is the name of the test apps that are embedded here.
const Module = "conformance"

//go:embed apps
var apps embed.FS

// Languages returns the languages of the built-in workers; each has a test app here.
func Languages() []string { return []string{"node", "python"} }

// WriteApp writes the test app of one of the Languages into a directory.
func WriteApp(dir, language string) error {
	files, err := fs.Sub(apps, "apps/"+language)
	if err != nil {
		return err
	}
	return os.CopyFS(dir, files)
}

// functions are the functions of the test app, as docs/worker-protocol.md defines them. The names
// of the asynchronous ones end in _async.
var functions = []string{
	"echo", "nothing", "describe", "large", "fail", "fail_large", "reject", "retry",
	"sleep", "say", "warn", "write", "output", "state",
}

// sending is the function that sends to named outputs, and outputNames are their names. Only workers
// with the capability load it.
const sending = "outputs"

var outputNames = []string{"first", "second", "third"}

// batchFunction is the function that takes batches. Only workers with the capability load it.
const batchFunction = "batch"
