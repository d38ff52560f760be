// Package deploy has only tests of the files in this directory: the files work with the daemon, and
// have the least privileges.
package deploy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/drover-run/drover/configs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// afterDrain is the maximum duration of a stop after the drain time: functions that do not return,
// workers that are killed, connections that are closed.
const afterDrain = 20 * time.Second

// load reads a configuration with missing secrets: each secret file is replaced by one in a
// directory of the test.
func load(t *testing.T, file, secrets string, names ...string) *configs.Config {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	there := t.TempDir()
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(there, name), []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if secrets != "" {
		text = []byte(strings.ReplaceAll(string(text), secrets, there))
	}
	cfg, err := configs.Parse(file, text, "/etc/drover", func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Warnings) > 0 {
		t.Errorf("%s: %v", file, cfg.Warnings)
	}
	return cfg
}

// fits checks a configuration against the time that its supervisor waits for a stop.
func fits(t *testing.T, cfg *configs.Config, grace time.Duration) {
	t.Helper()
	if grace < cfg.Drain.D()+afterDrain {
		t.Errorf("it is killed %v after SIGTERM; its drain is %v, and up to %v follow", grace, cfg.Drain, afterDrain)
	}
	for name, f := range cfg.Functions {
		if f.Timeout >= cfg.Drain {
			t.Errorf("function %s may take %v, and a stop cuts it short after %v", name, f.Timeout, cfg.Drain)
		}
	}
	if cfg.DataDir != dataDir {
		t.Errorf("data_dir is %s; the images have their volume at %s", cfg.DataDir, dataDir)
	}
}

// dataDir and user are those in the images.
const (
	dataDir = "/var/lib/drover"
	user    = 10001
)
