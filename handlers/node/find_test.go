package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-run/drover/handlers/interpreters"
)

func TestFind(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := func(name, output string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("#!/bin/sh\necho "+output+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	onPath := filepath.Dir(script("bin/node", "v22.23.3"))
	for name, test := range map[string]struct{ named, path, want string }{ // the path, or the error
		"on the path":    {"", "/nowhere:" + onPath, onPath + "/node (Node.js 22.23.3, node on the path)"},
		"named":          {script("twenty", "v20.0.0"), onPath, dir + "/twenty (Node.js 20.0.0, interpreter in the configuration)"},
		"named, no path": {"node", onPath, onPath + "/node (Node.js 22.23.3, interpreter in the configuration)"},
		"newer":          {script("newer", "v100.0.0-rc.1"), "", "Node.js 100.0.0-rc.1"},
		"none":           {"", "/nowhere", "there is no node on the path; install Node.js 20 or newer"},
		"too old":        {script("old", "v18.20.4"), "", "is Node.js 18.20.4; drover needs 20 or newer: install one, and name it with interpreter"},
		"no Node.js":     {script("noise", "hello"), "", "is Node.js hello; drover needs"},
		"not there":      {"/nowhere/node", "", "the interpreter /nowhere/node (interpreter in the configuration): stat /nowhere/node: no such file"},
		"it fails":       {"/bin/false", "", "does not run"},
	} {
		t.Run(name, func(t *testing.T) {
			i, err := FindInterpreter(t.Context(), test.named, func(string) (string, bool) { return test.path, true })
			said := i.String()
			if err != nil {
				said = err.Error()
			}
			if !strings.Contains(said, test.want) {
				t.Errorf("%s; want %s in it", said, test.want)
			}
		})
	}
}

func TestFingerprint(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, dir, files{"index.js": ""})
	last := interpreters.ReadCode(dir, Kinds).Fingerprint()
	for _, c := range []struct {
		name    string
		changes bool
	}{{"index.js", true}, {"lib/a.mjs", true}, {"package-lock.json", true}, {"a.ts", true}, {"notes.txt", false}, {"node_modules/a/index.js", false}, {".git/x.js", false}} {
		put(t, dir, files{c.name: "more"})
		now := interpreters.ReadCode(dir, Kinds).Fingerprint()
		if (now != last) != c.changes {
			t.Errorf("%s: changed is %v", c.name, now != last)
		}
		last = now
	}
}
