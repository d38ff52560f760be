package node

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
)

func TestForms(t *testing.T) {
	t.Parallel()
	p := startApp(t, files{"index.js": `
exports.sync = (message) => message.body;
exports.async = async (message) => { await null; return message.body; };
exports.promise = (message) => Promise.resolve(message.body);
exports.thenable = (message) => ({ then(done) { setTimeout(done, 1, 'thenable'); } });
exports.message = (m) => ({
  id: m.id, attempt: m.attempt, subject: m.subject, key: m.orderingKey, attributes: m.attributes, text: m.text(), json: m.json().a,
  enqueued: m.enqueued.toISOString(), buffer: Buffer.isBuffer(m.body),
});
exports.context = async (message, context) => [
  context.function, context.deadline instanceof Date, context.remaining() > 0 && context.remaining() <= 180001, context.cancelled,
  context.signal instanceof AbortSignal, context.signal === context.signal, context.signal.aborted, context.traceparent, context.tracestate,
];
exports.bare = (message, context) => [message.enqueued, message.attributes, context.traceparent];
`}, nil, "sync", "async", "promise", "thenable", "message", "context", "bare")
	m := &triggers.Message{
		ID: "S:7", Body: []byte(`{"a": "käse"}`), Attempt: 3, Subject: "orders.new", OrderingKey: "k",
		Attributes: map[string]string{"x": "1", "é": "☃", "__proto__": "p", "traceparent": "00-1-2-01", "tracestate": "v=1"}, Enqueued: time.UnixMicro(1_700_000_000_123_000),
	}
	for f, want := range map[string]string{
		"sync": `{"a": "käse"}`, "async": `{"a": "käse"}`, "promise": `{"a": "käse"}`, "thenable": "thenable",
		"message": `{"id":"S:7","attempt":3,"subject":"orders.new","key":"k","attributes":{"__proto__":"p","traceparent":"00-1-2-01","tracestate":"v=1","x":"1","é":"☃"},` +
			`"text":"{\"a\": \"käse\"}","json":"käse","enqueued":"2023-11-14T22:13:20.123Z","buffer":true}`,
		"context": `["context",true,true,false,true,true,false,"00-1-2-01","v=1"]`,
	} {
		if got, err := call(t, p, f, m); err != nil || string(got) != want {
			t.Errorf("%s returned %s, %v; want %s", f, got, err, want)
		}
	}
	if got, err := handle(t.Context(), t, p, "bare", &triggers.Message{}); err != nil || string(got) != "[null,{},null]" {
		t.Errorf("of a message with nothing: %s, %v", got, err)
	}
	for f, async := range map[string]bool{"sync": false, "async": true, "promise": false} {
		h, err := p.HandlerOf(f)
		if err != nil || h.IsAsync() != async {
			t.Errorf("%s is async: %v, %v", f, h.IsAsync(), err)
		}
	}
}

func TestModules(t *testing.T) {
	t.Parallel()
	const (
		cjs    = "exports.f = async () => __filename.split('/').pop();\n"
		esm    = "export const f = async () => import.meta.url.split('/').pop();\n"
		packed = `{"name": "drover-functions", "exports": {".": "./worker/modules/drover/index.js", "./testing": "./library/testing.js"}}`
	)
	app := files{
		"index.js":                         cjs,
		"plain.js":                         cjs,
		"jobs/index.cjs":                   cjs,
		"es.mjs":                           esm + "export default async function () { return 'default'; }\n",
		"one.js":                           "module.exports = async () => 'one';\n",
		"object.mjs":                       "export default { name: 'Ada', async f() { return this.name; } };\n",
		"computed.js":                      "const all = { f: () => 'computed' }; module.exports = { ...all };\n",
		"compiled.js":                      "Object.defineProperty(exports, '__esModule', { value: true }); exports.default = async () => 'compiled';\n",
		"bound.js":                         "exports.f = (async function () { return this.x; }).bind({ x: 'bound' });\n",
		"wait.mjs":                         "await new Promise((r) => setTimeout(r, 20)); export const f = () => 'waited';\n",
		"modules/package.json":             `{"type": "module", "main": "src/main.js"}`,
		"modules/src/main.js":              esm,
		"node_modules/shop/package.json":   `{"name": "shop", "exports": {"import": "./esm.mjs"}}`,
		"node_modules/shop/esm.mjs":        esm,
		"node_modules/@a/b/package.json":   `{"name": "@a/b", "main": "lib.js"}`,
		"node_modules/@a/b/lib.js":         cjs,
		"node_modules/drovers/index.js":    cjs,
		"dropped/drover.mjs":               "import { Reject, Retry } from 'drover'; import drover from 'drover'; export const f = () => [Reject.name, drover.Retry === Retry];\n",
		"dropped/drover.js":                "const { Reject } = require('drover'); exports.f = async () => [Reject.name, Reject === (await import('drover')).Reject];\n",
		"own/node_modules/drover/index.js": "exports.mine = true;\n",
		"own/es.mjs":                       "import drover from 'drover'; export const f = () => drover;\n",
		"own/plain.js":                     "exports.f = () => require('drover');\n",
		// The package drover-functions, installed under both names.
		"packed/node_modules/drover/package.json":                             packed,
		"packed/node_modules/drover/worker/modules/drover/index.js":           "exports.mine = true;\n",
		"packed/node_modules/drover/library/testing.js":                       "exports.testing = true;\n",
		"packed/node_modules/drover-functions/package.json":                   packed,
		"packed/node_modules/drover-functions/worker/modules/drover/index.js": "exports.mine = true;\n",
		"packed/es.mjs":     "import drover, { Reject } from 'drover'; import other from 'drover-functions'; import testing from 'drover/testing'; export const f = () => [Reject.name, drover === other, testing];\n",
		"packed/plain.js":   "const drover = require('drover'); exports.f = async () => [drover.Reject.name, drover === require('drover-functions'), drover === (await import('drover')).default, require('drover/testing')];\n",
		"dropped/other.mjs": "import { Reject } from 'drover-functions'; export const f = () => Reject.name;\n",
	}
	want := map[string]string{
		".:f": "index.js", "plain:f": "plain.js", "plain.js:f": "plain.js", "./plain.js:f": "plain.js", "jobs:f": "index.cjs", "es.mjs:f": "es.mjs", "es:default": "default",
		"one:default": "one", "object:f": "Ada", "computed:f": "computed", "compiled:default": "compiled", "bound:f": "bound", "wait:f": "waited",
		"modules:f": "main.js", "shop:f": "esm.mjs", "@a/b:f": "lib.js", "drovers:f": "index.js",
		"dropped/drover.mjs:f": `["Reject",true]`, "dropped/drover.js:f": `["Reject",true]`, "own/es:f": `{"mine":true}`, "own/plain:f": `{"mine":true}`,
		"packed/es:f": `["Reject",true,{"testing":true}]`, "packed/plain:f": `["Reject",true,true,{"testing":true}]`, "dropped/other.mjs:f": "Reject",
	}
	var functions []string
	for f := range want {
		functions = append(functions, f)
	}
	p := startApp(t, app, nil, functions...)
	for f, want := range want {
		if got, err := call(t, p, f, &triggers.Message{}); err != nil || string(got) != want {
			t.Errorf("%s returned %s, %v; want %s", f, got, err, want)
		}
	}
	if h, err := p.HandlerOf("bound:f"); err != nil || !h.IsAsync() {
		t.Errorf("a bound async function is not async: %v", err)
	}
}

func TestBodiesAndOutputs(t *testing.T) {
	t.Parallel()
	p := startApp(t, files{"index.js": `
exports.echo = (message) => message.body;
exports.aecho = async (message) => { await null; return message.body; };
exports.size = (message) => message.body.length;
exports.none = () => {};
exports.zero = () => null;
exports.text = () => 'ü';
exports.large = () => 'x'.repeat(3 << 20);
exports.view = () => new Uint8Array(Buffer.from('--view--').buffer.slice(0), 0, 0).length === 0 && new DataView(new Uint8Array([118, 105, 101, 119]).buffer);
exports.buffer = () => new Uint8Array([98]).buffer;
exports.array = () => [1, { a: null }];
const shared = Buffer.alloc(1 << 20);
exports.reused = (message) => shared.fill(message.body[0]);
`}, nil, "echo", "aecho", "size", "none", "zero", "text", "large", "view", "buffer", "array", "reused")
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	for _, body := range [][]byte{nil, every, bytes.Repeat(every, 256), bytes.Repeat(every, 4096), bytes.Repeat(every, 80_000)} {
		for _, f := range []string{"echo", "aecho"} {
			if got, err := call(t, p, f, &triggers.Message{Body: body}); err != nil || !bytes.Equal(got, body) {
				t.Errorf("%d bytes came back of %s as %d, %v", len(body), f, len(got), err)
			}
		}
	}
	for f, want := range map[string]string{
		"size": "3", "none": "", "zero": "", "text": "ü", "view": "view", "buffer": "b", "array": `[1,{"a":null}]`, "large": strings.Repeat("x", 3<<20),
	} {
		if got, err := call(t, p, f, &triggers.Message{Body: []byte("abc")}); err != nil || string(got) != want {
			t.Errorf("%s returned %d bytes, %v", f, len(got), err)
		}
	}
	// A function may overwrite its returned buffer in its next call.
	answers := make(sink, 26)
	h, err := p.HandlerOf("reused")
	if err != nil {
		t.Fatal(err)
	}
	for i := range byte(26) {
		h.Start(soon(t), &triggers.Message{Body: []byte{'a' + i}}, answers)
	}
	seen := make(map[byte]bool)
	for range 26 {
		a := <-answers
		if a.err != nil || len(a.output) != 1<<20 || bytes.Count(a.output, a.output[:1]) != 1<<20 {
			t.Fatalf("an output of %d bytes is not one letter, %v", len(a.output), a.err)
		}
		seen[a.output[0]] = true
	}
	if len(seen) != 26 {
		t.Errorf("%d outputs of 26", len(seen))
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	names := []string{
		"error", "aerror", "cause", "reject", "areject", "named", "retry", "aretry", "again", "badafter", "later", "text", "empty", "undef", "unsendable", "big", "circular", "symbol", "recursion", "hostile", "ok",
	}
	p := startApp(t, files{"index.js": `
const drover = require('drover');
function helper() { return null.missing; }
exports.error = () => helper();
exports.aerror = async () => { await null; helper(); };
exports.cause = () => { throw new Error('outer', { cause: new RangeError('inner') }); };
exports.reject = () => { throw new drover.Reject('no such customer'); };
exports.areject = async () => { throw new drover.Reject('no such customer'); };
exports.named = () => { throw Object.assign(new Error('by its name'), { name: 'Reject' }); };
exports.retry = () => { throw new drover.Retry('busy', { after: 2500 }); };
exports.aretry = async () => { throw Object.assign(new Error('busy'), { name: 'Retry', after: 2500 }); };
exports.again = () => { throw new drover.Retry('any time'); };
exports.badafter = () => { throw new drover.Retry('x', { after: -1 }); };
exports.later = () => { throw Object.assign(new Error('some time'), { name: 'Retry', after: 'soon' }); };
exports.text = () => { throw 'just text'; };
exports.empty = async () => { throw new Error(); };
exports.undef = async () => { throw undefined; };
exports.unsendable = () => () => {};
exports.big = () => ({ n: [Promise.resolve()] });
exports.circular = async () => { const a = {}; a.a = a; return a; };
exports.symbol = () => Symbol('s');
exports.recursion = () => exports.recursion();
exports.hostile = () => { throw { get name() { throw 1; }, get message() { throw 2; }, toString() { throw 3; } }; };
exports.ok = () => 'ok';
`}, nil, names...)
	contains := map[string]string{
		"error": "TypeError: Cannot read properties of null (reading 'missing')", "aerror": "TypeError: Cannot read properties of null", "cause": "Error: outer",
		"reject": "no such customer", "areject": "no such customer", "named": "by its name", "retry": "busy", "aretry": "busy", "again": "Retry: any time",
		"badafter": "RangeError: after is in milliseconds", "later": "after is soon; it is in milliseconds", "text": "it threw a string: just text", "empty": "Error", "undef": "it threw an undefined: undefined",
		"unsendable": "returned a function, which cannot be sent", "big": "returned an Object with a Promise in it, which cannot be sent", "circular": "circular structure", "symbol": "returned a symbol",
		"recursion": "RangeError: Maximum call stack size exceeded", "hostile": "it threw an Object: { name: [Getter]", "ok": "<nil>",
	}
	rejects, retries := []string{"reject", "areject", "named", "unsendable", "big", "circular", "symbol"}, []string{"retry", "aretry"}
	for _, f := range names {
		_, err := call(t, p, f, &triggers.Message{})
		var failure *handlers.Failure
		if f != "ok" && !errors.As(err, &failure) {
			t.Fatalf("%s: %v; want a failure", f, err)
		}
		if text := fmt.Sprint(err); !strings.Contains(text, contains[f]) {
			t.Errorf("%s failed with %q, want %q in it", f, text, contains[f])
		}
		if handlers.Rejected(err) != contained(rejects, f) {
			t.Errorf("%s: rejected is %v", f, handlers.Rejected(err))
		}
		if delay, asked := handlers.RetryDelay(err); asked != contained(retries, f) || asked && delay != 2500*time.Millisecond {
			t.Errorf("%s asks for %v, %v", f, delay, asked)
		}
		wanted := map[string][]string{
			"error": {"at helper", "index.js:3"}, "aerror": {"at helper", "index.js:3", "at exports.aerror"}, "cause": {"Error: outer", "caused by RangeError: inner"},
		}[f]
		for _, want := range wanted {
			if !strings.Contains(failure.Detail, want) {
				t.Errorf("%s: the stack lacks %q:\n%s", f, want, failure.Detail)
			}
		}
		if wanted != nil && (strings.Contains(failure.Detail, "calls.js") || strings.Contains(failure.Detail, "node:")) {
			t.Errorf("%s: the stack shows the worker:\n%s", f, failure.Detail)
		}
	}
	if s := p.Stats(); len(s.Restarts) != 0 {
		t.Errorf("a failure cost the worker: %+v", s)
	}
}

func contained(list []string, s string) bool {
	for _, one := range list {
		if one == s {
			return true
		}
	}
	return false
}

func TestCodeThatDoesNotLoad(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		app      files
		function string
		want     []string
	}{
		"no such package":          {files{"index.js": "require('nonexistent-pkg')"}, "f", []string{"loading index.js from", "Cannot find module 'nonexistent-pkg'", "npm install nonexistent-pkg", "node"}},
		"no such package of ES":    {files{"a.mjs": "import '@no/such/thing.js'"}, "a.mjs:f", []string{"Cannot find package '@no/such'", "npm install @no/such"}},
		"no file of the app":       {files{"index.js": "require('./lib/helper')"}, "f", []string{"Cannot find module './lib/helper'"}},
		"syntax":                   {files{"index.js": "\nexports.f = (;"}, "f", []string{"SyntaxError", "index.js:2"}},
		"syntax of ES":             {files{"a.mjs": "\nexport const f = (;"}, "a:f", []string{"SyntaxError: Unexpected token ';'", "a.mjs:2\nexport const f = (;"}},
		"syntax of another":        {files{"a.mjs": "import 'drover'; import './b.mjs';", "b.mjs": "\nexport const f = (;"}, "a:f", []string{"SyntaxError: Unexpected token ';'", "b.mjs:2"}},
		"no such export":           {files{"a.mjs": "import { g } from './b.mjs';", "b.mjs": ""}, "a:f", []string{"SyntaxError: The requested module './b.mjs' does not provide an export named 'g'"}},
		"it throws":                {files{"index.js": "throw new RangeError('boom')"}, "f", []string{"RangeError: boom", "index.js:1"}},
		"it throws late":           {files{"a.mjs": "await null; throw new RangeError('boom')"}, "a:f", []string{"RangeError: boom", "a.mjs:1"}},
		"it throws text":           {files{"index.js": "throw 'boom'"}, "f", []string{"it threw a string: boom"}},
		"it exits":                 {files{"index.js": "process.exit(3)"}, "f", []string{"the code ended the process, with exit status 3, while it was loaded"}},
		"it dies":                  {files{"index.js": "process.kill(process.pid, 'SIGKILL')"}, "f", []string{"3 workers in a row ended while they loaded the code", "SIGKILL"}},
		"it fails in a callback":   {files{"a.mjs": "setTimeout(() => { throw new Error('boom') }); await new Promise(() => {})"}, "a:f", []string{"3 workers in a row ended while they loaded the code", "exit status 1"}},
		"no module":                {files{}, "jobs/billing:f", []string{"Cannot find package", "jobs"}},
		"no module, as a path":     {files{}, "./jobs:f", []string{"there is no module ./jobs in", "with .js, .mjs, .cjs"}},
		"no function":              {files{"index.js": "exports.g = () => {}; exports.x = 3; exports.default = () => {}"}, "f", []string{"index.js exports no function f; it has: default, g"}},
		"no function of ES":        {files{"a.mjs": "export const g = () => {}; export default { h() {} }"}, "a:f", []string{"a.mjs exports no function f; it has: g, h"}},
		"nothing":                  {files{"index.js": ""}, "f", []string{"index.js exports no function f; it has: none"}},
		"no function, but a value": {files{"index.js": "exports.f = 3"}, "f", []string{"f of index.js is not a function, but a number"}},
		"a generator":              {files{"index.js": "exports.f = function* () {}"}, "f", []string{"f of index.js is a generator function; a function takes (message, context)"}},
		"a class":                  {files{"index.js": "exports.f = class {}"}, "f", []string{"f of index.js is a class"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newApp(t, test.app, nil, test.function)
			err := p.WaitReady(soon(t))
			var loadError *handlers.LoadError
			if !errors.As(err, &loadError) {
				t.Fatalf("Ready: %v", err)
			}
			for _, want := range test.want {
				if !strings.Contains(loadError.Summary+"\n"+loadError.Detail, want) {
					t.Errorf("%q is not in\n%s\n%s", want, loadError.Summary, loadError.Detail)
				}
			}
			if strings.Contains(loadError.Detail, "load.js") {
				t.Errorf("the stack shows the worker:\n%s", loadError.Detail)
			}
			if _, err := call(t, p, test.function, &triggers.Message{}); !errors.As(err, &loadError) {
				t.Errorf("Handle: %v; want the load error", err)
			}
		})
	}
}

func TestWhatFunctionsSayIsLogged(t *testing.T) {
	t.Parallel()
	log := new(lines)
	p := startApp(t, files{"index.js": `
console.log('while it loads');
const fs = require('node:fs');
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
exports.speak = (message) => {
  console.log('printed %s', message.text());
  console.warn('careful');
  console.error('oh no\nsecond line');
  console.debug('not this');
  console.group('group'); console.log('indented'); console.groupEnd();
  process.stderr.write('to stderr\n');
  process.stdout.write(Buffer.from('k\xc3', 'latin1')); process.stdout.write(Buffer.from('\xa4se', 'latin1'));
  fs.writeSync(1, 'raw\n');
  fs.writeSync(2, 'raw error\n');
};
exports.together = async (message) => {
  for (let i = 0; i < 3; i++) { await sleep(Math.random() * 5); console.log('%s says %d', message.text(), i); }
  setTimeout(() => console.log('%s is late', message.text()), 20);
};
exports.written = (message) => new Promise((resolve) => process.stdout.write('with a callback\n', 'utf8', () => resolve('called')));
`}, func(c *workers.Config) { c.Log = slog.New(slog.NewTextHandler(log, nil)) }, "speak", "together", "written")
	if _, err := call(t, p, "speak", &triggers.Message{ID: "m-speak", Body: []byte("hello")}); err != nil {
		t.Fatal(err)
	}
	h, err := p.HandlerOf("together")
	if err != nil {
		t.Fatal(err)
	}
	answers := make(sink, 10)
	for i := range 10 {
		h.Start(soon(t), &triggers.Message{ID: fmt.Sprint("m-", i), Body: []byte(fmt.Sprint("no", i))}, answers)
	}
	for range 10 {
		if a := <-answers; a.err != nil {
			t.Error(a.err)
		}
	}
	if got, err := call(t, p, "written", &triggers.Message{}); err != nil || string(got) != "called" {
		t.Errorf("%s, %v", got, err)
	}
	worker := fmt.Sprint("worker=", p.Stats().PIDs[0])
	log.wait(t, `msg="while it loads"`, worker)
	log.wait(t, `msg="printed hello"`, "level=INFO", "function=speak", "message=m-speak", "logger=stdout", worker)
	log.wait(t, "msg=careful", "level=WARN", "message=m-speak", "logger=console")
	log.wait(t, `msg="oh no\nsecond line"`, "level=ERROR", "message=m-speak")
	log.wait(t, `msg="  indented"`, "message=m-speak")
	log.wait(t, `msg="to stderr"`, "logger=stderr", "message=m-speak")
	log.wait(t, "msg=käse", "message=m-speak")
	log.wait(t, "msg=raw", "stream=stdout", worker)
	log.wait(t, `msg="raw error"`, "stream=stderr", worker)
	for i := range 10 {
		for said := range 3 {
			log.wait(t, fmt.Sprintf(`msg="no%d says %d"`, i, said), "function=together", fmt.Sprint("message=m-", i))
		}
		log.wait(t, fmt.Sprintf(`msg="no%d is late"`, i)) // no longer of a call
	}
	if text := log.String(); strings.Contains(text, "not this") {
		t.Error("a debug line is logged")
	}
}

func TestAFunctionThatReturnsAPromiseRunsOneAtATime(t *testing.T) {
	t.Parallel()
	log := new(lines)
	p := startApp(t, files{"index.js": `
let running = 0;
exports.f = () => {
  if (++running > 1) throw new Error('two at a time');
  return new Promise((resolve) => setTimeout(() => { running--; resolve(); }, 1));
};
`}, func(c *workers.Config) { c.Log = slog.New(slog.NewTextHandler(log, nil)) }, "f")
	h, err := p.HandlerOf("f")
	if err != nil {
		t.Fatal(err)
	}
	answers := make(sink, 50)
	for range 50 {
		h.Start(soon(t), &triggers.Message{}, answers)
	}
	for range 50 {
		if a := <-answers; a.err != nil {
			t.Error(a.err)
		}
	}
	log.wait(t, "f returned a promise, but is not declared async", "level=WARN")
	if n := strings.Count(log.String(), "returned a promise"); n != 1 {
		t.Errorf("it is logged %d times", n)
	}
}

func TestMany(t *testing.T) {
	t.Parallel()
	p := startApp(t, files{"index.js": `
exports.f = (message) => message.body;
exports.g = async (message) => { if (message.body[0] & 1) await null; return message.body; };
exports.h = async (message) => { await new Promise(setImmediate); return message.body; };
`}, func(c *workers.Config) { c.Settings.Processes = 2 }, "f", "g", "h")
	for _, f := range []string{"f", "g", "h"} {
		h, err := p.HandlerOf(f)
		if err != nil {
			t.Fatal(err)
		}
		const many = 5_000
		for i := range many {
			body := fmt.Appendf(nil, "%d %s", i, strings.Repeat("x", i%300))
			h.Start(t.Context(), &triggers.Message{Body: body}, checked{t, body})
		}
		eventually(t, "end of "+f, func() bool { return p.Stats().InFlight == 0 })
	}
}

// checked receives the results of a function, which are its arguments.
type checked struct {
	t    *testing.T
	want []byte
}

func (c checked) SetResult(output []byte, err error) {
	if err != nil || !bytes.Equal(output, c.want) {
		c.t.Errorf("%.20s came back as %.20s, %v", c.want, output, err)
	}
}
