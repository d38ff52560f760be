package configs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A secret's file that others may read is an error, a warning, or allowed.
func TestFilesOfSecretsAreKeptFromOthers(t *testing.T) {
	text := "version: 1\nadmin: {listen: \"127.0.0.1:7070\", token: \"file:token\"}\nfunctions: {f: {trigger: {nats: {}}, handler: {go: f}}}\n"
	for _, c := range []struct {
		mode    os.FileMode
		mounted bool
		owner   int
		wrong   bool
		warns   bool
	}{
		{mode: 0o600}, {mode: 0o400}, {mode: 0o644, wrong: true}, {mode: 0o604, wrong: true},
		{mode: 0o440, owner: 65534, warns: true}, {mode: 0o440, owner: 0},
		{mode: 0o644, mounted: true},
	} {
		dir := t.TempDir()
		file := filepath.Join(dir, "token")
		if c.mounted {
			if err := os.Mkdir(filepath.Join(dir, "..data"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("..data/token", file); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(file, []byte("0123456789abcdef0123\n"), c.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, c.mode); err != nil {
			t.Fatal(err)
		}
		if c.owner != os.Getuid() {
			if err := os.Chown(file, c.owner, -1); err != nil {
				continue // not root: whose file it is cannot be tried
			}
		}
		cfg, err := Parse("drover.yaml", []byte(text), dir, environment())
		if (err != nil) != c.wrong || err != nil && !strings.Contains(err.Error(), "chmod 600 it") {
			t.Errorf("%+v: %v", c, err)
		}
		if err == nil && (len(cfg.Warnings) > 0) != c.warns {
			t.Errorf("%+v: warnings %q", c, cfg.Warnings)
		}
	}
}
