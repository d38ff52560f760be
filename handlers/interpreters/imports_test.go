package interpreters

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// code is an app whose files tests change.
type code struct {
	t   *testing.T
	dir string
}

func (c code) at(name string) string { return filepath.Join(c.dir, name) }

// write writes files: NAME=TEXT, NAME alone to remove one, NAME->TARGET to make a link.
func (c code) write(files ...string) {
	c.t.Helper()
	for _, file := range files {
		var err error
		if name, target, link := strings.Cut(file, "->"); link {
			_ = os.Remove(c.at(name)) // it may be the first
			err = errors.Join(os.MkdirAll(filepath.Dir(c.at(name)), 0o750), os.Symlink(target, c.at(name)))
		} else if name, text, there := strings.Cut(file, "="); there {
			err = errors.Join(os.MkdirAll(filepath.Dir(c.at(name)), 0o750), os.WriteFile(c.at(name), []byte(text), 0o600))
		} else {
			err = os.Remove(c.at(name))
		}
		if err != nil {
			c.t.Fatal(err)
		}
	}
}

// A change counts as new code if a worker has imported the file, or would now import it instead of
// the file that it has; otherwise not.
func TestChanges(t *testing.T) {
	node := Kinds{Imported: []string{".js", ".mjs"}, Always: []string{".json"}}
	whole := []string{"app.py=1", "helper.py=1", "test_app.py=1", "pkg/__init__.py=1", "pkg/a.py=1", "pkg/b.py=1"}
	imported := []string{"app.py", "helper.py", "pkg/__init__.py", "pkg/a.py"}
	for _, test := range []struct {
		what            string
		kinds           Kinds
		files, imported []string
		change          []string
		changed, unused string
	}{
		{"nothing", python, whole, imported, nil, "", ""},
		{"a file that was imported", python, whole, imported, []string{"helper.py=2"}, "helper.py", ""},
		{"one that was not", python, whole, imported, []string{"test_app.py=2", "pkg/b.py=2"}, "", "pkg/b.py test_app.py"},
		{"both", python, whole, imported, []string{"test_app.py=2", "pkg/a.py=2"}, "pkg/a.py", "test_app.py"},
		{"a new file", python, whole, imported, []string{"app_old.py=1", "sub/new.py=1"}, "", "app_old.py sub/new.py"},
		{"a file that was imported is gone", python, whole, imported, []string{"helper.py"}, "helper.py", ""},
		{"one that was not is gone", python, whole, imported, []string{"test_app.py"}, "", "test_app.py"},
		{"a module becomes a package", python, whole, imported, []string{"helper/__init__.py=1"}, "helper/__init__.py", ""},
		{"a package becomes a module", python, whole, imported, []string{"pkg.py=1"}, "pkg.py", ""},
		{"nobody said what was imported", python, whole, nil, []string{"test_app.py=2"}, "test_app.py", ""},
		{"what was imported is elsewhere", python, whole, []string{"/usr/lib/x.py"}, []string{"test_app.py=2"}, "test_app.py", ""},
		{"a module that was not found", python, whole, append(imported, "fast"), []string{"fast.py=1", "faster.py=1"}, "fast.py", "faster.py"},
		{"a package that was not found", python, whole, append(imported, "fast"), []string{"fast/x.py=1"}, "fast/x.py", ""},
		{"all of a directory", python, whole, append(imported, "pkg"), []string{"pkg/b.py=2", "test_app.py=2"}, "pkg/b.py", "test_app.py"},
		{"all", python, whole, append(imported, "."), []string{"test_app.py=2"}, "test_app.py", ""},
		{"a package is installed", python, whole, imported, []string{"venv/lib/python3/site-packages/x-1.dist-info/METADATA="}, "installed packages", ""},
		{
			"files of data", node, []string{"index.js=1", "test.js=1", "package.json=1"}, []string{"index.js"},
			[]string{"package.json=2", "test.js=2", "data.json=1"}, "data.json package.json", "test.js",
		},
		{
			"a file in the place of a directory", node, []string{"index.js=1", "lib/index.js=1"}, []string{"index.js", "lib/index.js"},
			[]string{"lib.mjs=1", "index2.js=1"}, "lib.mjs", "index2.js",
		},
		{
			"another language", Kinds{}, []string{"a.rb=1", "b.rb=1", "page.erb=1"}, []string{"a.rb"},
			[]string{"a.rb=2", "b.rb=2", "page.erb=2"}, "a.rb page.erb", "b.rb",
		},
		{
			"a release, named without the link", python, []string{"releases/1/app.py=1", "releases/1/x.py=1", "releases/2/app.py=1", "releases/2/x.py=2", "current->releases/1"},
			[]string{"releases/1/app.py"}, []string{"current->releases/2"}, "", "x.py",
		},
		{
			"a release with another file that was imported", python, []string{"releases/1/app.py=1", "releases/1/x.py=1", "releases/2/app.py=2", "releases/2/x.py=2", "current->releases/1"},
			[]string{"releases/1/app.py"}, []string{"current->releases/2"}, "app.py", "x.py",
		},
		{
			"a ConfigMap", python, []string{"current/..1/app.py=1", "current/..1/x.py=1", "current/..2/app.py=1", "current/..2/x.py=2", "current/..data->..1", "current/app.py->..data/app.py", "current/x.py->..data/x.py"},
			[]string{"current/..1/app.py"}, []string{"current/..data->..2"}, "", "x.py",
		},
		{
			"a ConfigMap whose imported file changes", python, []string{"current/..1/app.py=1", "current/..2/app.py=2", "current/..data->..1", "current/app.py->..data/app.py"},
			[]string{"current/..1/app.py"}, []string{"current/..data->..2"}, "app.py", "",
		},
		{
			"a directory elsewhere", python, []string{"shared/a.py=1", "shared/b.py=1", "current/app.py=1", "current/lib->../shared"},
			[]string{"current/app.py", "shared/a.py"}, []string{"shared/a.py=2", "shared/b.py=2"}, "lib/a.py", "lib/b.py",
		},
		{
			"a directory by its other name", python, []string{"current/app.py=1", "current/lib/a.py=1", "current/zlib->lib"},
			[]string{"current/app.py", "current/zlib/a.py"}, []string{"current/lib/a.py=2"}, "lib/a.py", "",
		},
	} {
		t.Run(test.what, func(t *testing.T) {
			c := code{t, t.TempDir()}
			c.write(test.files...)
			app := c.dir
			if _, err := os.Lstat(c.at("current")); err == nil {
				app = c.at("current")
			}
			before, imports := ReadCode(app, test.kinds), NewImports(app)
			for _, path := range test.imported {
				if !filepath.IsAbs(path) {
					path = c.at(path)
				}
				imports.Add([]string{path})
			}
			c.write(test.change...)
			changed, unused := ReadCode(app, test.kinds).ChangesSince(before, imports)
			if got := strings.Join(changed, " "); got != test.changed {
				t.Errorf("%q changed, want %q", got, test.changed)
			}
			if got := strings.Join(unused, " "); got != test.unused {
				t.Errorf("%q are unused, want %q", got, test.unused)
			}
		})
	}
}

// If workers report too many paths, none are kept, and all files count.
func TestImportsAreBounded(t *testing.T) {
	for _, many := range []struct{ paths, long int }{{2 * maxPaths, 0}, {20, maxPathBytes / 10}} {
		c := code{t, t.TempDir()}
		c.write("app.py=1", "other.py=1")
		before, imports := ReadCode(c.dir, python), NewImports(c.dir)
		imports.Add([]string{c.at("app.py")})
		for n := range many.paths {
			imports.Add([]string{fmt.Sprint("/nowhere/", strings.Repeat("x", many.long), n, ".py")})
		}
		if n := len(imports.paths); n > maxPaths+10 || many.long > 0 && n > 15 {
			t.Errorf("%d paths are kept", n)
		}
		c.write("other.py=2")
		if changed, _ := ReadCode(c.dir, python).ChangesSince(before, imports); !slices.Equal(changed, []string{"other.py"}) {
			t.Errorf("changed: %v", changed)
		}
	}
}
