package python

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/drover-run/drover/handlers/interpreters"
)

func TestFingerprint(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("app.py", "1")
	last := interpreters.ReadCode(dir, Kinds).Fingerprint()
	for _, c := range []struct {
		name, text string
		changes    bool
	}{
		{"app.py", "12", true}, {"lib/more.py", "", true}, {"data.json", "{}", false}, {".venv/lib/x.py", "", false},
		{"__pycache__/app.py", "", false}, {"node_modules/x/y.py", "", false},
	} {
		put(c.name, c.text)
		now := interpreters.ReadCode(dir, Kinds).Fingerprint()
		if (now != last) != c.changes {
			t.Errorf("%s: changed is %v, want %v", c.name, now != last, c.changes)
		}
		last = now
	}
	if err := os.Remove(filepath.Join(dir, "app.py")); err != nil {
		t.Fatal(err)
	}
	if interpreters.ReadCode(dir, Kinds).Fingerprint() == last {
		t.Error("a file that went is not noticed")
	}
	if interpreters.ReadCode(filepath.Join(dir, "nowhere"), Kinds).Fingerprint() != interpreters.ReadCode(filepath.Join(dir, "elsewhere"), Kinds).Fingerprint() {
		t.Error("directories that are not there differ")
	}
}
