package python

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-run/drover/handlers/interpreters"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
)

// Imports of all kinds, when the app is loaded and later.
const importing = `
import importlib.util, os
import used
from pkg import part
try: import missing
except ImportError: pass
def f(body): pass
async def af(body): pass
def lazy(body): import late
def broken(body): import bad
def absent(body):
    import nowhere
def absent_part(body):
    from pkg import nothing
def plugin(body):
    spec = importlib.util.spec_from_file_location("a_plugin", os.path.join(os.path.dirname(os.path.realpath(__file__)), "plugins", "a.py"))
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
def process(body):
    import multiprocessing
    child = multiprocessing.get_context("fork").Process(target=int)
    child.start()
    child.join()
`

// A file counts once it is imported, and a missing one once it is looked up.
func TestImports(t *testing.T) {
	t.Parallel()
	steps := []struct {
		function     string // that is called first
		fails        string
		counts, idle string // files of which a change, or their making, is new code, and is not
	}{
		{
			"f", "", "function_app.py used.py pkg/__init__.py pkg/part.py missing.py missing/x.py used/__init__.py json.py",
			"late.py bad.py pkg/other.py test_app.py nowhere.py pkg/nothing.py plugins/a.py function_app_old.py notes.txt",
		},
		{"lazy", "", "late.py used.py", "bad.py test_app.py"},
		{"broken", "SyntaxError", "bad.py", "test_app.py"},
		{"absent", "No module named", "nowhere.py nowhere/__init__.py", "nothing.py test_app.py"},
		{"absent_part", "cannot import name", "pkg/nothing.py", "pkg/other.py"},
		{"plugin", "", "plugins/a.py", "plugins/b.py"},
		{"process", "", "test_app.py pkg/other.py", ""},
	}
	for _, path := range everyInterpreter(t) {
		for _, mode := range []struct {
			name     string
			threads  int
			template bool
			async    []string
			linked   bool
		}{{name: "inline"}, {name: "threads", threads: 4}, {name: "loop", async: []string{"af"}, linked: true}, {name: "template", template: true}} {
			t.Run(path+" "+mode.name, func(t *testing.T) {
				t.Parallel()
				var dir, app string
				var imports *interpreters.Imports
				put := func(name, text string) {
					t.Helper()
					if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				functions := mode.async
				for _, step := range steps {
					functions = append(functions, step.function)
				}
				p := startApp(t, importing, func(cfg *workers.Config) {
					dir = cfg.App
					cfg.Command.Path, cfg.Settings.Threads, cfg.Template = path, mode.threads, mode.template
					for name, text := range map[string]string{
						"used.py": "", "pkg/__init__.py": "", "pkg/part.py": "", "pkg/other.py": "", "late.py": "", "bad.py": "x = \n",
						"test_app.py": "", "plugins/a.py": "", "plugins/b.py": "",
					} {
						put(name, text)
					}
					if mode.linked {
						cfg.App = filepath.Join(t.TempDir(), "current")
						if err := os.Symlink(dir, cfg.App); err != nil {
							t.Fatal(err)
						}
					}
					app, imports = cfg.App, interpreters.NewImports(cfg.App)
					cfg.Imported = imports.Add
				}, functions...)
				before := interpreters.ReadCode(app, Kinds)
				for _, step := range steps {
					_, err := call(t, p, step.function, &triggers.Message{})
					if (err != nil) != (step.fails != "") || err != nil && !strings.Contains(err.Error(), step.fails) {
						t.Fatalf("%s: %v", step.function, err)
					}
					for _, want := range []struct {
						names  string
						counts bool
					}{{step.counts, true}, {step.idle, false}} {
						for _, name := range strings.Fields(want.names) {
							was, err := os.ReadFile(filepath.Join(dir, name))
							put(name, "# changed\n")
							if changed, _ := interpreters.ReadCode(app, Kinds).ChangesSince(before, imports); (len(changed) > 0) != want.counts {
								t.Errorf("after a call of %s, a change of %s: counts is %v", step.function, name, !want.counts)
							}
							if err == nil {
								put(name, string(was))
							} else if err := os.Remove(filepath.Join(dir, name)); err != nil {
								t.Fatal(err)
							}
						}
					}
				}
			})
		}
	}
}
