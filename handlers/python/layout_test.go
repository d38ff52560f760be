package python

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-run/drover/handlers/interpreters"
)

// An interpreter reports its location, even if the path contains a script that starts it.
func TestLayout(t *testing.T) {
	t.Parallel()
	i, _ := installation.find(t)
	real, err := ReadLayout(t.Context(), i)
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(t.TempDir(), "shim")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho a word of its own\nexec "+real.Executable+` "$@"`+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	i.Path = script
	l, err := ReadLayout(t.Context(), i)
	if err != nil {
		t.Fatal(err)
	}
	if l.Executable != real.Executable || len(l.Homes) == 0 || len(l.Libraries) == 0 {
		t.Errorf("%+v, and without the script %+v", l, real)
	}
	for _, home := range l.Homes {
		if info, err := os.Stat(home); err != nil || !info.IsDir() || home == "/" {
			t.Errorf("its home %s: %v", home, err)
		}
	}
	for name, c := range map[string]struct{ code, want string }{
		"silent":  {"echo 3.11", "does not say where it is: "},
		"failing": {"echo no >&2; exit 1", "does not run: exit status 1: no"},
	} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+c.code+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		if l, err := ReadLayout(t.Context(), interpreters.Interpreter{Path: path}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
	}
}

// Workers of another user can read the worker's files.
func TestInstalledFilesAreForAll(t *testing.T) {
	t.Parallel()
	home, err := InstallWorker(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{home: 0o755, filepath.Join(home, "drover"): 0o755, filepath.Join(home, "__main__.py"): 0o644} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}
