package autoscale

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/drover-run/drover/scaler/autotune"
)

// TestStoreWithABrokenFile replaces tuning.json with something else. The daemon starts without
// stored settings, reports the problem, and writes the next ones if possible.
func TestStoreWithABrokenFile(t *testing.T) {
	for name, c := range map[string]struct {
		make  func(path string) error
		warns bool
	}{
		"nothing": {func(string) error { return nil }, false},
		"null":    {func(path string) error { return os.WriteFile(path, []byte("null\n"), 0o600) }, false},
		"half":    {func(path string) error { return os.WriteFile(path, []byte(`{"a": {"of": "x`), 0o600) }, true},
		"zeros":   {func(path string) error { return os.WriteFile(path, make([]byte, 4096), 0o600) }, true},
		"huge": {func(path string) error {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				return err
			}
			return os.Truncate(path, 1<<40) // sparse: it takes no space on the disk
		}, true},
		"fifo":      {func(path string) error { return syscall.Mkfifo(path, 0o600) }, true},
		"directory": {func(path string) error { return os.Mkdir(path, 0o700) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir, log := t.TempDir(), new(strings.Builder)
			if err := c.make(filepath.Join(dir, "tuning.json")); err != nil {
				t.Fatal(err)
			}
			l := OpenStore(dir, slog.New(slog.NewTextHandler(log, nil)))
			if l.learnedOf("a", "x") != nil {
				t.Error("it has learned something")
			}
			if warned := strings.Contains(log.String(), "tuning.json"); warned != c.warns {
				t.Errorf("log: %s", log)
			}
			l.saveLearned("a", "x", autotune.Learned{})
			again := OpenStore(dir, slog.New(slog.DiscardHandler))
			if learned := again.learnedOf("a", "x") != nil; learned != (name != "directory") {
				t.Errorf("the next lesson was kept: %v", learned)
			}
		})
	}
}
