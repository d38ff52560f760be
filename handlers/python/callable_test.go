package python

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

// put writes the files of an app.
func put(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A function that cannot be called is reported when the code loads.
func TestFunctionsThatCannotBeCalled(t *testing.T) {
	t.Parallel()
	const azure = "class QueueMessage: pass\nclass FunctionBuilder:\n    def __call__(self, *a, **k): pass\n"
	for name, test := range map[string]struct{ source, want string }{
		"three parameters":     {"def f(a, b, c): pass", "f(a, b, c) cannot be called: a function takes (body), (message) or (message, context)"},
		"no parameter":         {"def f(): pass", "f() cannot be called"},
		"a keyword":            {"def f(message, *, client): pass", "f(message, *, client) cannot be called"},
		"anything":             {"def f(*args, **kwargs): pass", "use functools.wraps"},
		"a plain decorator":    {"def d(f):\n    return lambda *a: f(*a)\n@d\ndef f(message): pass", "use functools.wraps"},
		"three behind wraps":   {"import functools\ndef d(f):\n    @functools.wraps(f)\n    def inner(*a): return f(*a)\n    return inner\n@d\ndef f(a, b, c): pass", "f(a, b, c) cannot be called"},
		"a class":              {"class f:\n    def __init__(self, message): pass", "function_app.f is a class"},
		"a generator":          {"def f(message): yield 1", "is a generator function"},
		"an async generator":   {"async def f(message): yield 1", "is an async generator function"},
		"a generator __call__": {"class F:\n    def __call__(self, message): yield 1\nf = F()", "is a generator function"},
		"a partial of too few": {"import functools\ndef g(message): pass\nf = functools.partial(g, 1)", "f() cannot be called"},
		"context first":        {"def f(context, message): pass", "wrong order"},
		"azure, decorated":     {"from azure.functions import FunctionBuilder\nf = FunctionBuilder()", "is decorated for Azure Functions"},
		"azure, a type":        {"import azure.functions as func\ndef f(msg: func.QueueMessage): pass", `docs/python.md, "Functions written for Azure Functions"`},
		"azure, a list":        {"import typing, azure.functions as func\ndef f(msg: typing.List[func.QueueMessage]): pass", "azure.functions"},
		"azure, as text":       {"from __future__ import annotations\nimport azure.functions as func\ndef f(msg: func.QueueMessage): pass", "azure.functions"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newApp(t, test.source, func(c *workers.Config) {
				if strings.HasPrefix(name, "azure") {
					put(t, c.App, map[string]string{"azure/functions/__init__.py": azure})
				}
			}, "f")
			var loadError *handlers.LoadError
			if err := p.WaitReady(soon(t)); !errors.As(err, &loadError) || !strings.Contains(loadError.Summary, test.want) {
				t.Errorf("%v; want %q", err, test.want)
			}
		})
	}
}

// A function that can be called runs, with any form of parameters.
func TestFunctionsOfAllShapes(t *testing.T) {
	t.Parallel()
	const source = `
import functools, drover
def wraps(f):
    @functools.wraps(f)
    def inner(*args, **kwargs): return f(*args, **kwargs)
    return inner
def injects(f):
    @functools.wraps(f)
    def inner(message): return f(message, "injected", 3)
    return inner
class App:
    def method(self, message): return "method " + message.id
    @wraps
    def wrapped(self, message, context): return context.function
    def __call__(self, message): return "called " + message.id
    @classmethod
    def made(cls, body): return b"class " + body
    @staticmethod
    def static(message): return "static " + message.id
app = App()
@wraps
def plain(message): return message.id
@injects
def injected(message, what, n): return f"{what} {n}"
def defaults(body, more=1, *rest, key=None, **others): return body + b" %d" % more
def context_default(message, context=None): return context.function
def typed(m: drover.Message, c: "drover.Context" = None): return c.function
def only(message, /): return message.id
method, bound, instance, made, static = app.method, app.wrapped, app, App.made, App.static
part = functools.partial(defaults, more=7)
builtin = len
lam = lambda body: body
`
	want := map[string]string{
		"plain": "id", "injected": "injected 3", "defaults": "body 1", "context_default": "context_default", "typed": "typed", "only": "id",
		"method": "method id", "bound": "bound", "instance": "called id", "made": "class body", "static": "static id", "part": "body 7", "builtin": "4", "lam": "body",
	}
	var names []string
	for name := range want {
		names = append(names, name)
	}
	p := startApp(t, source, nil, names...)
	for name, output := range want {
		if got, err := call(t, p, name, &triggers.Message{ID: "id", Body: []byte("body")}); err != nil || string(got) != output {
			t.Errorf("%s: %s, %v; want %s", name, got, err, output)
		}
	}
}

// Any awaitable that a function returns is awaited, and reported once in the log.
func TestAwaitablesAreAwaited(t *testing.T) {
	t.Parallel()
	const source = `
import asyncio, concurrent.futures, functools, time
def timed(f):
    @functools.wraps(f)
    def inner(*args): return f(*args)
    return inner
def acommon(f):
    @functools.wraps(f)
    async def inner(*args): return f(*args)  # its await is missing
    return inner
class Awaitable:
    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        return "awaitable"
@timed
async def deco(message):
    await asyncio.sleep(0)
    return "ran " + message.id
@acommon
async def twice(message): return "twice"
def awaitable(message): return Awaitable()
def thread(message):
    with concurrent.futures.ThreadPoolExecutor(1) as pool: return pool.submit(lambda: "thread")
def nested(message):
    async def outer():
        async def inner(): return "nested"
        return inner()
    return outer()
@timed
async def nothing(message): pass
@timed
async def fails(message): raise ValueError("inside")
@timed
async def hangs(message):
    print("hanging")
    try: await asyncio.sleep(600)
    except asyncio.CancelledError:
        print("was cancelled")
        raise
def generator(message): return (n for n in range(3))
async def neighbour(message): return "neighbour"
`
	want := map[string]string{"deco": "ran id", "twice": "twice", "awaitable": "awaitable", "thread": "thread", "nested": "nested", "nothing": ""}
	functions := []string{"deco", "twice", "awaitable", "thread", "nested", "nothing", "fails", "hangs", "generator"}
	for _, mode := range []struct {
		name      string
		threads   int
		functions []string
	}{
		{"inline", 1, functions[:1:1]}, {"threads", 3, functions}, {"loop", 2, append(functions, "neighbour")},
	} {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			functions := mode.functions
			if mode.name == "inline" { // without one that is declared async
				functions = []string{"deco", "awaitable", "thread", "nested", "nothing", "fails", "hangs", "generator"}
			}
			log := newLines()
			p := startApp(t, source, func(c *workers.Config) {
				c.Settings.Threads, c.Log = mode.threads, slog.New(slog.NewTextHandler(log, nil))
			}, functions...)
			for range 2 {
				for f, output := range want {
					if f == "twice" && mode.name == "inline" {
						continue
					}
					if got, err := call(t, p, f, &triggers.Message{ID: "id"}); err != nil || string(got) != output {
						t.Errorf("%s: %s, %v; want %s", f, got, err, output)
					}
				}
			}
			if _, err := call(t, p, "fails", &triggers.Message{}); err == nil || !strings.Contains(err.Error(), "ValueError: inside") {
				t.Errorf("fails: %v", err)
			}
			if _, err := call(t, p, "generator", &triggers.Message{}); !handlers.Rejected(err) || !strings.Contains(err.Error(), "a generator, whose code has not run") {
				t.Errorf("generator: %v; want a rejection", err)
			}
			ctx, cancel := context.WithCancel(soon(t))
			ended := make(chan error, 1)
			go func() {
				_, err := handle(ctx, handler(t, p, "hangs"), &triggers.Message{})
				ended <- err
			}()
			log.wait(t, "msg=hanging")
			cancel()
			if err := <-ended; err == nil {
				t.Error("hangs did not fail when it was cancelled")
			}
			log.wait(t, `msg="was cancelled"`)
			log.wait(t, "level=WARN", "deco returned a coroutine, but is not declared async")
			if n := strings.Count(log.String(), "deco returned a coroutine"); n != 1 {
				t.Errorf("the warning was logged %d times", n)
			}
		})
	}
}

// An app that is laid out for Azure Functions finds its packages and its own modules.
func TestAzureLayout(t *testing.T) {
	t.Parallel()
	p := newApp(t, "", func(c *workers.Config) {
		put(t, c.App, map[string]string{
			".python_packages/lib/site-packages/vendored_dep.py": "VERSION = 'vendored'\n",
			"Order/__init__.py":  "import vendored_dep\nfrom ..shared.helper import helper\nfrom . import own\ndef main(msg): return [vendored_dep.VERSION, helper(), own.NAME]\n",
			"Order/own.py":       "NAME = 'own'\n",
			"Bill/__init__.py":   "from __app__.shared import helper\ndef main(msg): return helper.helper()\n",
			"shared/__init__.py": "",
			"shared/helper.py":   "def helper(): return 'h'\n",
		})
		c.Functions = []workers.Function{{Name: "order", Module: "Order", Function: "main"}, {Name: "bill", Module: "Bill", Function: "main"}}
	})
	if err := p.WaitReady(soon(t)); err != nil {
		t.Fatal(err)
	}
	for f, want := range map[string]string{"order": `["vendored","h","own"]`, "bill": "h"} {
		if got, err := call(t, p, f, &triggers.Message{}); err != nil || string(got) != want {
			t.Errorf("%s: %s, %v; want %s", f, got, err, want)
		}
	}
}

func TestARelativeImportAboveThePath(t *testing.T) {
	t.Parallel()
	p := newApp(t, "from ...shared import helper\ndef f(body): pass\n", nil, "f")
	if err := p.WaitReady(soon(t)); err == nil || !strings.Contains(err.Error(), "names a directory above path") {
		t.Errorf("%v", err)
	}
}

// A module of the app may have the name of a standard library module: the app gets its own, and the
// worker and libraries get the standard one.
func TestModulesNamedLikeTheStandardLibrarys(t *testing.T) {
	t.Parallel()
	own := map[string]string{"queue/__init__.py": "from . import inner\ndef push(x): return 'own queue ' + inner.NAME\n", "queue/inner.py": "NAME = 'inner'\n"}
	for _, name := range []string{"json", "logging", "types", "socket", "struct", "traceback", "ast", "tokenize", "uuid", "email", "calendar", "asyncio", "threading", "faulthandler", "ctypes", "decimal", "enum", "dataclasses"} {
		own[name+".py"] = "import json, base64\nMINE = '" + name + "'\ndef handle(message): return MINE\n"
	}
	own["lib/site-packages/thing.py"] = "import email.message, queue, calendar\nOK = email.message.Message and queue.Queue and calendar.month\n"
	p := newApp(t, `
import sys
sys.path.append(sys.path[0] + "/lib/site-packages")
import queue, email, logging, thing
import queue.inner
from queue import push
from calendar import MINE
def f(message):
    assert thing.OK
    return [push(1), queue.inner.NAME, email.MINE, logging.MINE, MINE]
def fails(message): raise ValueError("as ever")
async def loop(message): return "loop"
`, func(c *workers.Config) {
		put(t, c.App, own)
		c.Settings.Threads, c.Log = 2, slog.New(slog.NewTextHandler(t.Output(), nil))
		for _, name := range []string{"logging", "json", "email"} {
			c.Functions = append(c.Functions, workers.Function{Name: name, Module: name, Function: "handle"})
		}
	}, "f", "fails", "loop")
	if err := p.WaitReady(soon(t)); err != nil {
		t.Fatal(err)
	}
	for f, want := range map[string]string{"f": `["own queue inner","inner","email","logging","calendar"]`, "logging": "logging", "json": "json", "email": "email", "loop": "loop"} {
		if got, err := call(t, p, f, &triggers.Message{}); err != nil || string(got) != want {
			t.Errorf("%s: %s, %v; want %s", f, got, err, want)
		}
	}
	_, err := call(t, p, "fails", &triggers.Message{})
	var failure *handlers.Failure
	if !errors.As(err, &failure) || failure.Summary != "ValueError: as ever" || !strings.Contains(failure.Detail, "in fails") {
		t.Errorf("fails: %v, %+v", err, failure)
	}
}

func TestResultsThatGoNowhere(t *testing.T) {
	t.Parallel()
	const source = `
import datetime, drover
def at(message): return {"at": datetime.datetime(2026, 1, 2)}
def odd(message): return object()
async def aodd(message): return {object()}
`
	for _, test := range []struct {
		results protocol.Results
		at, odd string // their results; REJECTED
	}{
		{protocol.Dropped, "", ""}, {protocol.Shown, `{"at":"2026-01-02T00:00:00"}`, ""}, {"", `{"at":"2026-01-02T00:00:00"}`, "REJECTED"},
	} {
		t.Run("results "+string(test.results), func(t *testing.T) {
			log := newLines()
			p := startApp(t, source, func(c *workers.Config) {
				c.Log = slog.New(slog.NewTextHandler(log, nil))
				for i := range c.Functions {
					c.Functions[i].Results = test.results
				}
			}, "at", "odd", "aodd")
			for f, want := range map[string]string{"at": test.at, "odd": test.odd, "aodd": test.odd} {
				got, err := call(t, p, f, &triggers.Message{})
				switch {
				case want == "REJECTED":
					if !handlers.Rejected(err) || !strings.Contains(err.Error(), "an object") {
						t.Errorf("%s: %s, %v; want a rejection that names the type", f, got, err)
					}
				case err != nil || string(got) != want:
					t.Errorf("%s: %s, %v; want %s", f, got, err, want)
				}
			}
			if test.results == protocol.Shown {
				log.wait(t, "level=WARN", "odd returned an object, which cannot be sent")
			}
		})
	}
}

func TestFormsOfResults(t *testing.T) {
	t.Parallel()
	const source = `
import collections, dataclasses, datetime, decimal, enum, ipaddress, pathlib, types, uuid, sys
sys.modules["numpy"] = types.ModuleType("numpy")
class Color(enum.Enum): RED = "red"
class Size(enum.IntEnum): BIG = 3
@dataclasses.dataclass
class Line: price: decimal.Decimal; color: Color = Color.RED
@dataclasses.dataclass
class Order:
    id: uuid.UUID
    lines: list
    at: datetime.date
class Pydantic:
    def model_dump(self, mode): return {"mode": mode}
class Pydantic1:
    __fields__ = {}
    def dict(self): return {"a": datetime.date(2026, 1, 2)}
class Struct:
    __struct_fields__ = ("x",)
    x = 1
Number = type("int64", (), {"tolist": lambda self: 5, "__module__": "numpy"})
Point = collections.namedtuple("Point", "x y")
values = {
    "order": Order(uuid.UUID(int=1), [Line(decimal.Decimal("1.10"))], datetime.date(2026, 1, 2)),
    "times": [datetime.datetime(2026, 1, 2, 3, 4, 5, 6, datetime.timezone.utc), datetime.time(1, 2), datetime.timedelta(seconds=1.5)],
    "enums": [Color.RED, Size.BIG], "top": datetime.date(2026, 1, 2),
    "bytes": {"raw": b"\x00\xff", "array": bytearray(b"a")},
    "sets": [{3, 1, 2}, frozenset(["b", "a"])], "views": {"k": {"a": 1}.keys(), "d": collections.deque([1]), "m": types.MappingProxyType({"x": 1}), "p": Point(1, 2)},
    "texts": [pathlib.Path("/a/b"), ipaddress.ip_address("10.0.0.1")],
    "pydantic": [Pydantic(), Pydantic1(), Struct()], "numpy": [Number()], "tuple": (1, None, True),
    "nan": [float("nan")], "circle": [], "object": {"deep": [object()]}, "class": Order, "key": {(1, 2): 3},
}
values["circle"].append(values["circle"])
def f(message): return values[message.text()]
`
	p := startApp(t, source, nil, "f")
	for name, want := range map[string]string{
		"order": `{"id":"00000000-0000-0000-0000-000000000001","lines":[{"price":"1.10","color":"red"}],"at":"2026-01-02"}`,
		"times": `["2026-01-02T03:04:05.000006+00:00","01:02:00",1.5]`, "enums": `["red",3]`, "top": `"2026-01-02"`,
		"bytes": `{"raw":"AP8=","array":"YQ=="}`, "sets": `[[1,2,3],["a","b"]]`, "views": `{"k":["a"],"d":[1],"m":{"x":1},"p":[1,2]}`,
		"texts": `["/a/b","10.0.0.1"]`, "pydantic": `[{"mode":"json"},{"a":"2026-01-02"},{"x":1}]`, "numpy": "[5]", "tuple": "[1,null,true]",
		"nan": "returned a list, which cannot be sent", "circle": "Circular reference", "object": "returned a dict with an object in it, which cannot be sent",
		"class": "returned the class Order, which cannot be sent", "key": "returned a dict, which cannot be sent: keys must be",
	} {
		got, err := call(t, p, "f", &triggers.Message{Body: []byte(name)})
		if strings.HasPrefix(want, "returned") || want == "Circular reference" {
			if !handlers.Rejected(err) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %s, %v; want a rejection with %q", name, got, err, want)
			}
		} else if err != nil || string(got) != want {
			t.Errorf("%s: %s, %v; want %s", name, got, err, want)
		}
	}
}
