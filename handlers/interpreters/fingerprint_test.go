package interpreters

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

var python = Kinds{Imported: []string{".py"}}

// A switched link is new code, as are changed contents behind one; a changed time is not.
func TestFingerprintFollowsLinks(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, text string) func() error {
		return func() error {
			if err := os.MkdirAll(filepath.Dir(at(name)), 0o750); err != nil {
				return err
			}
			return os.WriteFile(at(name), []byte(text), 0o600)
		}
	}
	link := func(to, name string) func() error {
		return func() error {
			_ = os.Remove(at(name)) // it may be the first
			return os.Symlink(to, at(name))
		}
	}
	touch := func(name string) func() error {
		return func() error { return os.Chtimes(at(name), time.Unix(1, 0), time.Unix(2, 0)) }
	}
	steps := []struct {
		what    string
		do      func() error
		changes string // of the apps "current" and "map"
	}{
		{"two releases", write("releases/1/app.py", "1"), ""}, {"", write("releases/2/app.py", "2"), ""},
		{"current is made", link("releases/1", "current"), "current"},
		{"current is switched", link("releases/2", "current"), "current"},
		{"the file behind it changes", write("releases/2/app.py", "2b"), "current"},
		{"of the same size and time", write("releases/2/app.py", "2c"), "current"},
		{"a file is touched", touch("releases/2/app.py"), ""},
		{"the other release changes", write("releases/1/app.py", "1b"), ""},
		{"a file that is no code", write("releases/2/notes.txt", "x"), ""},
		{"a linked directory", link("../../shared", "releases/2/lib"), ""},
		{"with code in it", write("shared/helper.py", "h"), "current"},
		{"a circle", link(".", "shared/up"), ""},
		{"a link to nowhere", link("/nowhere.py", "releases/2/gone.py"), ""},
		{"a ConfigMap", write("map/..1/app.py", "1"), ""}, {"", write("map/..2/app.py", "2"), ""}, {"", link("..1", "map/..data"), ""},
		{"its file", link("..data/app.py", "map/app.py"), "map"},
		{"it is swapped", link("..2", "map/..data"), "map"},
		{"a package is installed", write("map/.python_packages/lib/site-packages/x-1.0.dist-info/METADATA", ""), "map"},
		{"a package's file is touched", write("map/.python_packages/lib/site-packages/x/__init__.py", "x"), ""},
	}
	last := map[string]string{}
	for _, app := range []string{"current", "map"} {
		last[app] = ReadCode(at(app), python).Fingerprint()
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			t.Fatal(step.what, err)
		}
		for app, before := range last {
			now := ReadCode(at(app), python).Fingerprint()
			if changed := now != before; changed != (app == step.changes) {
				t.Errorf("%s: %s changed is %v", step.what, app, changed)
			}
			last[app] = now
		}
	}
}
