package codecheck

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-run/drover/configs"
)

const pythonCode = `import json, os
try:
    import not_installed_but_optional
except ImportError:
    pass
if os.name == "posix":
    def sometimes(body): pass
else:
    def sometimes(a, b, c): pass
made = lambda body: body
def ok(message, context): pass
def three(a, b, c): pass
def typed(order: dict, message: "drover.Message", context: "drover.Context"): pass
def named(body, context, message): pass
def four(a: int, b: int, c: int, d: int): pass
def none(): pass
def keyword(body, *, needed): pass
def lines(body):
    yield 1
def inner(body):
    def g(): yield 1
    return list(g())
def order(context, message): pass
class Klass: pass
@json.dumps
def decorated(a, b, c, d): pass
async def app(scope, receive, send): pass
open("ran", "w")
`

const nodeCode = `exports.ok = async (message, context) => {};
exports.three = (a, b, c) => {};
exports.order = function (context, message) {};
function local(message) {}
module.exports.loc = local;
exports.K = class {};
exports.gen = function* () {};
exports.text = 'x';
require('node:fs').writeFileSync('ran', '');
`

// writeApps writes code in both languages, in the directories python and node.
func writeApps(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range map[string]string{
		"python/function_app.py": pythonCode, "python/bad.py": "x = 1\ndef f(:\n", "python/pkg/__init__.py": "", "python/pkg/jobs.py": "def f(body): pass\n",
		"python/uses.py": "import os\nimport not_installed_here\ndef f(body): pass\n", "python/star.py": "from os.path import *\n", "python/json.py": "raise SystemExit('imported')\ndef f(body): pass\n",
		"python/lazy.py": "def __getattr__(name): return print\n", "python/path.py": "import sys\nsys.path.append('x')\nimport not_installed_here\ndef f(body): pass\n",
		"node/index.js": nodeCode, "node/spread.js": "module.exports = { a, ...require('x') };\n", "node/obj.js": "module.exports = { a(m) {}, b: (m) => {} };\n",
		"node/m.mjs": "export const f = (m) => {};\nexport default function h(m) {}\n", "node/bad.mjs": "const x = 1;\nexport { x as f };\nfunction (\n",
		"node/open.js": "require('./lib')(exports);\n", "node/bad.js": "const a = 1;\nfunction f( {\n", "node/own/package.json": `{"main": "./lib/x.js"}`, "node/own/lib/x.js": "exports.f = (m) => {};\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// check checks a function: a module and a name.
func check(t *testing.T, dir, language, module, function, more string) (notes []string, text string) {
	t.Helper()
	handler := fmt.Sprintf("{%s: {path: ./%s, module: %q, function: %q}}", language, language, module, function)
	if module == "" {
		handler = fmt.Sprintf("{%s: {path: ./%s, function: %q}}", language, language, function)
	}
	c, err := configs.Parse("drover.yaml", []byte("functions:\n  f: {trigger: {nats: {}}, handler: "+handler+more+"}\n"), dir, os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	notes, err = Check(t.Context(), c, os.LookupEnv, os.Environ())
	if err == nil {
		return notes, ""
	}
	return notes, err.Error()
}

// Functions that load have no problem; others have the problem that a worker would report.
func TestCheck(t *testing.T) {
	t.Parallel()
	dir := writeApps(t)
	for _, test := range []struct{ language, module, function, want string }{
		{"python", "", "ok", ""},
		{"python", "", "sometimes", ""},
		{"python", "", "made", ""},
		{"python", "", "inner", ""},
		{"python", "", "decorated", ""},
		{"python", "pkg.jobs", "f", ""},
		{"python", "star", "f", ""},
		{"python", "lazy", "f", ""},
		{"python", "path", "f", ""},
		{"python", "json", "f", ""},
		{"python", "", "okk", "drover.yaml:2:73: function f: " + dir + "/python/function_app.py has no function okk; it has: Klass, app, decorated, four, inner, keyword, lines, named, none, ok, order, sometimes, three, typed; did you mean ok?"},
		{"python", "", "three", "function_app.py:12:1: function f: three has 3 parameters without a default, but drover passes the message and a context; write def three(message) or def three(message, context)\n   12 | def three(a, b, c): ..."},
		{"python", "", "typed", ""},
		{"python", "", "named", ""},
		{"python", "", "four", "four has 4 parameters without a default"},
		{"python", "", "none", "none has no parameter for the message; write def none(message)"},
		{"python", "", "keyword", "keyword needs the keyword needed, which drover does not pass"},
		{"python", "", "lines", "lines is a generator function (it has yield)"},
		{"python", "", "order", "order has its parameters in the wrong order; write def order(message)"},
		{"python", "", "Klass", "Klass is a class, not a function"},
		{"python", "", "app", "app has 3 parameters"},
		{"python", "bad", "f", "bad.py:2:7: function f: SyntaxError: "},
		{"python", "uses", "f", "uses.py:2:1: function f: it imports not_installed_here, which is not installed for "},
		{"python", "pkg.job", "f", "there is no module pkg.job: neither " + dir + "/python/pkg/job.py nor " + dir + "/python/pkg/job/__init__.py exists; " + dir + "/python/pkg has the modules pkg.jobs; module names another one"},
		{"node", "", "ok", ""},
		{"node", "", "loc", ""},
		{"node", "spread", "b", ""},
		{"node", "open", "b", ""},
		{"node", "obj", "a", ""},
		{"node", "own", "f", ""},
		{"node", "m.mjs", "f", ""},
		{"node", "m.mjs", "default", ""},
		{"node", "m.mjs", "h", dir + "/node/m.mjs exports no function h; it has: default, f"},
		{"node", "", "okk", "index.js exports no function okk; it has: K, gen, loc, ok, order, text, three; did you mean ok?"},
		{"node", "obj", "c", "obj.js exports no function c; it has: a, b, default"},
		{"node", "own", "g", "own/lib/x.js exports no function g; it has: f"},
		{"node", "", "three", "index.js:2:17: function f: three takes 3 parameters, but drover passes no callback; write async function three(message, context)\n    2 | "},
		{"node", "", "order", "order has its parameters in the wrong order"},
		{"node", "", "K", "K is a class, not a function"},
		{"node", "", "gen", "gen is a generator function"},
		{"node", "", "text", "text is not a function"},
		{"node", "bad.mjs", "f", "bad.mjs:3:10: function f: SyntaxError: "},
		{"node", "bad.js", "f", "bad.js:3: function f: SyntaxError: "},
		{"node", "missing", "f", dir + "/node has no module missing; it has bad.js, bad.mjs, index.js, m.mjs, obj.js, open.js, spread.js; module names another file"},
	} {
		t.Run(test.language+" "+test.module+" "+test.function, func(t *testing.T) {
			t.Parallel()
			if test.language == "node" {
				needNode(t)
			}
			notes, got := check(t, dir, test.language, test.module, test.function, "")
			if len(notes) > 0 || (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
				t.Errorf("%v\n%s\nwant %s", notes, got, test.want)
			}
		})
	}
	t.Cleanup(func() {
		for _, language := range []string{"python", "node"} {
			if _, err := os.Stat(filepath.Join(dir, language, "ran")); err == nil {
				t.Errorf("the code of %s ran", language)
			}
			if _, err := os.Stat(filepath.Join(dir, language, "__pycache__")); err == nil {
				t.Errorf("%s has a __pycache__", language)
			}
		}
	})
}

// needNode skips a test if node is missing, or fails it if every test is required.
func needNode(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("there is no node on the path")
		}
		t.Skip("there is no node on the path; install Node.js 20 or newer")
	}
}

// The parameters of a function depend on its settings.
func TestCheckOfSettings(t *testing.T) {
	t.Parallel()
	dir := writeApps(t)
	for _, test := range []struct{ function, more, want string }{
		{"none", ", batch: {size: 2}", "write def none(messages) or def none(messages, context)"},
		{"three", ", batch: {size: 2}", "three has 3 parameters"},
	} {
		if _, got := check(t, dir, "python", "", test.function, test.more); !strings.Contains(got, test.want) {
			t.Errorf("%s%s: %s; want %s", test.function, test.more, got, test.want)
		}
	}
	// A client waits for the response, so an ASGI app and a generator are valid.
	for _, function := range []string{"app", "lines"} {
		c, err := configs.Parse("drover.yaml", []byte("functions:\n  f: {trigger: {http: {}}, handler: {python: {path: ./python, function: "+function+"}}}\n"), dir, os.LookupEnv)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Check(t.Context(), c, os.LookupEnv, os.Environ()); err != nil {
			t.Errorf("%s: %v", function, err)
		}
	}
}

// An interpreter that cannot parse the code causes a note, not an error.
func TestCheckWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	dir := writeApps(t)
	python := filepath.Join(dir, "interpreter")
	script := "#!/bin/sh\ncase \"$*\" in *version_info*) echo 3.12.1;; *) echo no luck >&2; exit 3;; esac\n"
	if err := os.WriteFile(python, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	c, err := configs.Parse("drover.yaml", []byte("functions:\n  f: {trigger: {nats: {}}, handler: {python: {path: ./python, interpreter: ./interpreter}}}\n"), dir, os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	notes, err := Check(t.Context(), c, os.LookupEnv, os.Environ())
	if err != nil || len(notes) != 1 || !strings.Contains(notes[0], "its code was not parsed: ") || !strings.Contains(notes[0], "exit status 3: no luck") {
		t.Errorf("%q, %v", notes, err)
	}
}
