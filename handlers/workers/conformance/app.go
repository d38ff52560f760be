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

// Languages are those of the workers that drover brings, whose test apps are here.
func Languages() []string { return []string{"node", "python"} }

// WriteApp writes the test app of one of the Languages into a directory.
func WriteApp(dir, language string) error {
	files, err := fs.Sub(apps, "apps/"+language)
	if err != nil {
		return err
	}
	return os.CopyFS(dir, files)
}

// functions are those of the test app, as docs/worker-protocol.md says what each does.
// The asynchronous ones have _async behind their names.
var functions = []string{
	"echo", "nothing", "describe", "large", "fail", "fail_large", "reject", "retry",
	"sleep", "say", "warn", "write", "output", "state",
}
