package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The units are well formed, and have the least privileges.
func TestUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("systemd-analyze is missing: apt-get install systemd")
		}
		t.Skip("systemd-analyze is missing: apt-get install systemd")
	}
	dir := t.TempDir()
	for _, name := range []string{"drover.service", "drover@.service"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		// The program is not installed here.
		unit := strings.ReplaceAll(string(text), "/usr/local/bin/drover", "/bin/true")
		path := filepath.Join(dir, strings.Replace(name, "@", "@orders", 1))
		if err := os.WriteFile(path, []byte(unit), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"verify", "--recursive-errors=no", path}, {"security", "--offline=true", "--threshold=20", path}} {
			if out, err := exec.Command(analyze, args...).CombinedOutput(); err != nil {
				t.Errorf("%s: systemd-analyze %v: %v\n%s", name, args, err, out)
			}
		}
	}
}
