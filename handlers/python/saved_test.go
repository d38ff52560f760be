package python

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
)

// The current version of a file is loaded even if it was saved twice within a second with the same size.
// Python's cache of compiled files cannot distinguish the two versions.
func TestSavedTwiceInASecond(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, at := filepath.Join(dir, "function_app.py"), time.Now().Add(time.Hour)
	interpreter, home := installation.find(t)
	caching := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "PYTHONDONTWRITEBYTECODE=") })
	for _, version := range []string{"1", "2"} {
		if err := errors.Join(os.WriteFile(file, []byte("def main(body): return '"+version+"'\n"), 0o600), os.Chtimes(file, at, at)); err != nil {
			t.Fatal(err)
		}
		p := startApp(t, "", func(c *workers.Config) {
			c.App, c.Command = dir, WorkerCommand(interpreter, home, dir, caching)
		}, "main")
		if got, err := call(t, p, "main", &triggers.Message{}); err != nil || string(got) != version {
			t.Errorf("version %s: %q, %v", version, got, err)
		}
	}
}
