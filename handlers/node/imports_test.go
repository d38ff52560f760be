package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-run/drover/handlers/interpreters"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
)

// A file counts once it is imported or required, and a missing one once it is looked up.
func TestImports(t *testing.T) {
	t.Parallel()
	app := files{
		"index.js": `
const { Worker } = require('node:worker_threads');
const path = require('node:path');
require('./used');
require('pkg');
try { require('./missing'); } catch { /* it need not be there */ }
exports.f = () => {};
exports.again = () => { require('./used'); require('drover'); };
exports.lazy = () => { require('./late'); };
exports.imports = async () => { await import('./late.mjs'); };
exports.broken = async () => { await import('./bad.mjs'); };
exports.absent = async () => { await import('./nowhere.mjs'); };
exports.thread = () => new Promise((resolve) => { new Worker(path.join(__dirname, 'thread.js')).on('exit', () => resolve()); });
`,
		"module.mjs": "import './part.mjs';\nimport 'drover';\nexport const m = async () => {};\n",
		"used.js":    "require('./deep/one.cjs');", "deep/one.cjs": "", "part.mjs": "import './both.js';", "both.js": "require('./inner.js');", "inner.js": "",
		"late.js": "", "late.mjs": "", "bad.mjs": "const x = ;", "other.js": "", "other.mjs": "", "thread.js": "", "package.json": "{}", "data.json": "{}",
		"node_modules/pkg/index.js": "",
	}
	steps := []struct {
		function     string // that is called first
		fails        string
		counts, idle string // files of which a change, or their making, is new code, and is not
	}{
		{
			"f", "", "index.js module.mjs used.js deep/one.cjs part.mjs both.js inner.js missing.js missing/index.js used/index.js package.json data.json new.json",
			"late.js late.mjs bad.mjs other.js other.mjs nowhere.mjs thread.js index.test.js typed.ts node_modules/pkg/index.js notes.txt",
		},
		{"again", "", "used.js", "late.js other.js"},
		{"lazy", "", "late.js", "late.mjs other.js"},
		{"imports", "", "late.mjs", "other.mjs"},
		{"broken", "SyntaxError", "bad.mjs", "other.mjs"},
		{"absent", "Cannot find module", "nowhere.mjs", "nowhere.js other.mjs"},
		{"thread", "", "thread.js other.js", ""},
	}
	functions := []string{"module.mjs:m"}
	for _, step := range steps {
		functions = append(functions, step.function)
	}
	for _, path := range everyInterpreter(t) {
		for _, linked := range []string{"", "current", "..data"} {
			t.Run(path+" "+linked, func(t *testing.T) {
				t.Parallel()
				var dir, where string
				var imports *interpreters.Imports
				p := startApp(t, files{}, func(cfg *workers.Config) {
					dir = cfg.App
					switch linked {
					case "current":
						cfg.App = filepath.Join(t.TempDir(), linked)
						link(t, dir, cfg.App)
					case "..data":
						dir = filepath.Join(cfg.App, "..1")
						link(t, "..1", filepath.Join(cfg.App, linked))
						for name := range app {
							name, _, _ = strings.Cut(name, "/")
							_ = os.Remove(filepath.Join(cfg.App, name)) // of deep/one.cjs and deep/two.cjs it is one
							link(t, filepath.Join(linked, name), filepath.Join(cfg.App, name))
						}
					}
					put(t, dir, app)
					where, imports = cfg.App, interpreters.NewImports(cfg.App)
					cfg.Command.Path, cfg.Imported = path, imports.Add
				}, functions...)
				before := interpreters.ReadCode(where, Kinds)
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
							was, known := app[name]
							top, _, _ := strings.Cut(name, "/")
							if _, err := os.Lstat(filepath.Join(where, top)); err != nil && linked == "..data" {
								link(t, filepath.Join(linked, top), filepath.Join(where, top))
							}
							put(t, dir, files{name: "// changed\n"})
							counts := func() bool {
								changed, _ := interpreters.ReadCode(where, Kinds).ChangesSince(before, imports)
								return len(changed) > 0
							}
							if want.counts { // before Node.js 22.15 another thread reports the imports
								eventually(t, "change that counts, of "+name+", after a call of "+step.function, counts)
							} else if counts() {
								t.Errorf("after a call of %s a change of %s counts", step.function, name)
							}
							if known {
								put(t, dir, files{name: was})
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

func link(t *testing.T, to, name string) {
	t.Helper()
	if err := os.Symlink(to, name); err != nil {
		t.Fatal(err)
	}
}
