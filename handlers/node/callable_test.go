package node

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

// A function that cannot be called is reported when the code loads.
func TestFunctionsThatCannotBeCalled(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		app      files
		function string
		want     string
	}{
		"a callback":             {files{"index.js": "exports.f = (message, context, callback) => callback();"}, "f", "takes 3 parameters, but drover passes no callback"},
		"an async callback":      {files{"index.js": "exports.f = async function (a, b, c) {};"}, "f", "takes 3 parameters"},
		"a callback in a module": {files{"m.mjs": "export const f = (a, b, done) => done();\nexport default f;"}, "m.mjs:f", "takes 3 parameters"},
		"Azure v3":               {files{"index.js": "module.exports.f = async function (context, item) { context.done(); };"}, "f", "in the wrong order"},
		"Azure v3, an arrow":     {files{"index.js": "exports.f = (context, item) => {};"}, "f", "in the wrong order"},
		"a class":                {files{"index.js": "exports.f = class {};"}, "f", "is a class"},
		"a generator":            {files{"index.js": "exports.f = function* (message) {};"}, "f", "is a generator function"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newApp(t, test.app, nil, test.function)
			var loadError *handlers.LoadError
			if err := p.WaitReady(soon(t)); !errors.As(err, &loadError) || !strings.Contains(loadError.Summary, test.want) || !strings.Contains(loadError.Summary, "a function takes (message, context)") {
				t.Errorf("%v; want %q", err, test.want)
			}
		})
	}
}

func TestFunctionsOfAllShapes(t *testing.T) {
	t.Parallel()
	p := startApp(t, files{"index.js": `
exports.rest = (...args) => args.length + ' given';
exports.one = (context) => context.id;
exports.defaults = (message, context, more = 1) => more;
exports.destructured = ({ id }, { function: name }) => id + name;
exports.bound = function (message) { return this.x + message.id; }.bind({ x: 'x' });
exports.thenable = () => ({ then(resolve) { resolve('thenable'); } });
`}, nil, "rest", "one", "defaults", "destructured", "bound", "thenable")
	for f, want := range map[string]string{"rest": "2 given", "one": "id", "defaults": "1", "destructured": "iddestructured", "bound": "xid", "thenable": "thenable"} {
		if got, err := call(t, p, f, &triggers.Message{ID: "id"}); err != nil || string(got) != want {
			t.Errorf("%s: %s, %v; want %s", f, got, err, want)
		}
	}
}

func TestResultsThatGoNowhere(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		results     protocol.Results
		mapped, odd string // their results; REJECTED
	}{
		{protocol.Dropped, "", ""}, {protocol.Shown, `{"a":1}`, ""}, {"", `{"a":1}`, "REJECTED"},
	} {
		t.Run("results "+string(test.results), func(t *testing.T) {
			log := new(lines)
			p := startApp(t, files{"index.js": `
exports.map = () => new Map([['a', 1]]);
exports.odd = () => { const a = {}; a.a = a; return a; };
exports.aodd = async () => Symbol('x');
`}, func(c *workers.Config) {
				c.Log = slog.New(slog.NewTextHandler(log, nil))
				for i := range c.Functions {
					c.Functions[i].Results = test.results
				}
			}, "map", "odd", "aodd")
			for f, want := range map[string]string{"map": test.mapped, "odd": test.odd, "aodd": test.odd} {
				got, err := call(t, p, f, &triggers.Message{})
				switch {
				case want == "REJECTED":
					if !handlers.Rejected(err) || !strings.Contains(err.Error(), "which cannot be sent") {
						t.Errorf("%s: %s, %v; want a rejection", f, got, err)
					}
				case err != nil || string(got) != want:
					t.Errorf("%s: %s, %v; want %s", f, got, err, want)
				}
			}
			if test.results == protocol.Shown {
				log.wait(t, "level=WARN", "odd returned an Object, which cannot be sent")
			}
		})
	}
}

func TestFormsOfResults(t *testing.T) {
	t.Parallel()
	p := startApp(t, files{"index.js": `
const { Readable } = require('node:stream');
class Own { constructor() { this.x = 1; } toJSON() { return 'own'; } }
const values = {
  date: { at: new Date(0) }, top: new Date(0), big: [1n << 70n], map: new Map([['a', new Map([[1, 2]])]]), set: new Set([1, new Set([2])]),
  bytes: { a: Buffer.from([0, 255]), b: new Uint8Array([97]) }, typed: [new Float64Array([1.5])], own: [new Own()], plain: { u: undefined, n: null, nan: NaN },
  error: [new Error('x')], promise: { p: Promise.resolve() }, stream: Readable.from([1]), iterator: [1][Symbol.iterator](), circle: [],
};
values.circle.push(values.circle);
exports.f = (message) => values[message.text()];
`}, nil, "f")
	for name, want := range map[string]string{
		"date": `{"at":"1970-01-01T00:00:00.000Z"}`, "top": `"1970-01-01T00:00:00.000Z"`, "big": `["1180591620717411303424"]`, "map": `{"a":{"1":2}}`, "set": "[1,[2]]",
		"bytes": `{"a":"AP8=","b":"YQ=="}`, "typed": "[[1.5]]", "own": `["own"]`, "plain": `{"n":null,"nan":null}`,
		"error": "returned an Array with an Error in it, which cannot be sent", "promise": "returned an Object with a Promise in it", "stream": "returned a Readable, which cannot be sent",
		"iterator": "which cannot be sent", "circle": "circular",
	} {
		got, err := call(t, p, "f", &triggers.Message{Body: []byte(name)})
		if strings.Contains(want, "cannot be sent") || strings.HasPrefix(want, "returned") || want == "circular" {
			if !handlers.Rejected(err) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %s, %v; want a rejection with %q", name, got, err, want)
			}
		} else if err != nil || string(got) != want {
			t.Errorf("%s: %s, %v; want %s", name, got, err, want)
		}
	}
}

// The error has the content of the thrown value of any type.
func TestWhatErrorsHold(t *testing.T) {
	t.Parallel()
	p := startApp(t, files{"index.js": `
exports.aggregate = async () => { await Promise.any([Promise.reject(new TypeError('first')), Promise.reject(new Error('second', { cause: new RangeError('deep') }))]); };
exports.empty = () => { throw new AggregateError([new TypeError('the first')]); };
exports.object = () => { throw { code: 'E_OWN', detail: { table: 'orders' } }; };
exports.cause = () => { throw new Error('outer', { cause: { status: 503, text: 'busy' } }); };
exports.system = () => { require('node:fs').readFileSync('/nowhere/at/all'); };
exports.hostile = () => { const e = new Error('has a getter'); Object.defineProperty(e, 'x', { enumerable: true, get() { throw 1; } }); throw e; };
exports.circle = () => { const e = new Error('its own cause'); e.cause = e; throw e; };
`}, nil, "aggregate", "empty", "object", "cause", "system", "hostile", "circle")
	for f, wants := range map[string][]string{
		"aggregate": {"AggregateError: All promises were rejected", "error 1 of 2: TypeError: first", "error 2 of 2: Error: second", "caused by RangeError: deep"},
		"empty":     {"AggregateError: 1 errors, the first: TypeError: the first"},
		"object":    {"it threw an Object: { code: 'E_OWN', detail: { table: 'orders' } }"},
		"cause":     {"Error: outer", "caused by { status: 503, text: 'busy' }"},
		"system":    {"ENOENT", "path: '/nowhere/at/all'"},
		"hostile":   {"Error: has a getter"},
		"circle":    {"Error: its own cause"},
	} {
		_, err := call(t, p, f, &triggers.Message{})
		var failure *handlers.Failure
		if !errors.As(err, &failure) {
			t.Errorf("%s: %v", f, err)
			continue
		}
		for _, want := range wants {
			if !strings.Contains(failure.Summary+"\n"+failure.Detail, want) {
				t.Errorf("%s: %q is not in\n%s\n%s", f, want, failure.Summary, failure.Detail)
			}
		}
	}
}
