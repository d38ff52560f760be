package python

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
)

// checkParameters runs files of testdata/parameters with an interpreter.
func checkParameters(t *testing.T, interpreter string, names ...string) {
	t.Helper()
	_, home := installation.find(t)
	cmd := exec.CommandContext(t.Context(), interpreter, append([]string{"-B", filepath.Join("testdata", "parameters", "all.py")}, names...)...)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+home)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// Annotations determine what parameters get, in each version of Python; drover.testing runs
// functions like a worker.
func TestParametersFollowTheirAnnotations(t *testing.T) {
	t.Parallel()
	for _, path := range everyInterpreter(t) {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			checkParameters(t, path, "decoding", "signatures", "kit")
		})
	}
}

func TestParametersOfPydanticAndAttrs(t *testing.T) {
	t.Parallel()
	checkParameters(t, functionAppPython(t, "3.13"), "libraries")
}

const orders = `
from __future__ import annotations
import dataclasses, datetime, drover
@dataclasses.dataclass
class Item:
    name: str
    price: float
@dataclasses.dataclass
class Order:
    id: int
    items: list[Item] = dataclasses.field(default_factory=list)
    def __post_init__(self):
        if self.id == 13: raise KeyError("a bug")
def order(order: Order): return order
def text(body: str): return body.upper()
def whole(order: Order, message: drover.Message, context: drover.Context): return f"{order.id} {message.id} {context.function}"
async def later(order: Order): return order.id
async def later_whole(message: drover.Message, order: Order): return f"{order.id} {message.id}"
def parts(order: Order):
    yield f"order {order.id}"
def batch(orders: list[Order], messages: list[drover.Message]):
    return drover.Verdicts([f"{o.id} {m.id}" for o, m in zip(orders, messages)])
async def batch_later(orders: list[Order], context: drover.Context):
    return sum(order.id for order in orders)
def batch_fails(orders: list[Order]): raise ValueError("bad")
`

// With every runner, a body that does not fit is rejected at once; an error in the app's own class is a
// failed attempt.
func TestDecodedBodiesInAWorker(t *testing.T) {
	t.Parallel()
	for name, functions := range map[string][]string{"main thread": {"order", "whole"}, "threads": {"order", "whole"}, "loop": {"order", "whole", "later", "later_whole"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startApp(t, orders, func(c *workers.Config) {
				if name == "threads" {
					c.Settings.Threads = 3
				}
			}, functions...)
			want := map[string]string{"order": `{"id":7,"items":[{"name":"a","price":1.0}]}`, "whole": "7 id whole", "later": "7", "later_whole": "7 id"}
			for _, f := range functions {
				if got, err := call(t, p, f, &triggers.Message{ID: "id", Body: []byte(`{"id": 7, "items": [{"name": "a", "price": 1}]}`)}); err != nil || string(got) != want[f] {
					t.Errorf("%s: %s, %v; want %s", f, got, err, want[f])
				}
				_, err := call(t, p, f, &triggers.Message{ID: "id", Body: []byte(`{"id": 7, "items": [{"name": "a", "price": "1"}]}`)})
				if !handlers.Rejected(err) || err.Error() != "the body does not fit Order: items[0].price is a string, not a number" {
					t.Errorf("%s: %v; want a rejection", f, err)
				}
				_, err = call(t, p, f, &triggers.Message{ID: "id", Body: []byte(`{"id": 13}`)})
				if err == nil || handlers.Rejected(err) || !strings.Contains(err.Error(), "KeyError: 'a bug'") {
					t.Errorf("%s: %v; want a failed attempt", f, err)
				}
			}
		})
	}
}

// In an HTTP function a body that does not fit is the client's mistake.
func TestDecodedBodiesOfRequests(t *testing.T) {
	t.Parallel()
	p := startApp(t, orders, replying(func(*workers.Config) {}), "order", "text", "later", "parts")
	for f, want := range map[string]string{"order": `{"id":7,"items":[]}`, "text": `{"ID": 7}`, "later": "7"} {
		if got, err := call(t, p, f, request("POST", "/", `{"id": 7}`)); err != nil || string(got) != want {
			t.Errorf("%s: %s, %v; want %s", f, got, err, want)
		}
	}
	for _, f := range []string{"order", "later", "parts"} {
		about := &collecting{Context: t.Context()}
		got, err := handle(about, handler(t, p, f), request("POST", "/", `{"id": "7"}`))
		if err != nil || string(got) != "the body does not fit Order: id is a string, not a number\n" || about.about[triggers.HTTPStatus] != "400" {
			t.Errorf("%s: %s, %v, %v; want the status 400", f, got, err, about.about)
		}
	}
}

// In a batch only the messages that do not fit are rejected, and the function gets the others.
func TestDecodedBodiesOfABatch(t *testing.T) {
	t.Parallel()
	p := startApp(t, orders, takesBatches, "batch", "batch_later", "batch_fails")
	texts := func(f string, bodies ...string) (out []string) {
		got, err := handler(t, p, f).HandleBatch(t.Context(), batchOf(bodies...))
		for _, each := range got.Each {
			out = append(out, describeResult(each))
		}
		got.Whole.Err = err
		return append(out, "whole: "+describeResult(got.Whole))
	}
	const refused = "reject: the body does not fit Order: id is missing"
	for _, test := range []struct {
		got, want []string
	}{
		{texts("batch", `{"id": 1}`, `{}`, `{"id": 2}`), []string{`1 {"id": 1}`, refused, `2 {"id": 2}`, "whole: "}},
		{texts("batch_later", `{}`, `{"id": 1}`, `{"id": 2}`), []string{refused, "", "", "whole: 3"}},
		{texts("batch_later", `{"id": 1}`, `{"id": 2}`), []string{"whole: 3"}},
		{texts("batch_later", `{}`, `{}`), []string{refused, refused, "whole: "}},
		{texts("batch_fails", `{}`, `{"id": 1}`), []string{"whole: fail: ValueError: bad"}},
		{texts("batch_fails", `{}`), []string{refused, "whole: "}},
	} {
		if strings.Join(test.got, "\n") != strings.Join(test.want, "\n") {
			t.Errorf("%q; want %q", test.got, test.want)
		}
	}
}

// An unsupported annotation is an error with its place when the code loads.
func TestAnnotationsThatCannotBeServed(t *testing.T) {
	t.Parallel()
	const source = "import drover, typing\nclass Money: pass\n\n\ndef f(%s): pass\n"
	for _, test := range []struct {
		parameters string
		batch      bool
		want       string
	}{
		{"price: Money", false, "function_app.f(price: function_app.Money): its parameter price: Money is not a type that a body can be decoded as; write bytes, str, dict, list, a dataclass"},
		{"order: 'Missing'", false, "function_app.f(order: 'Missing'): the annotation of its parameter order cannot be evaluated: NameError: name 'Missing' is not defined; define or import it at the top"},
		{"order: Money", true, "its parameter order is annotated Money, but the function takes batches, as its configuration has batch; annotate it list[Money]"},
		{"messages: typing.List[drover.Message]", false, "annotate it drover.Message, or set batch in its configuration"},
	} {
		t.Run(test.parameters, func(t *testing.T) {
			t.Parallel()
			dir := ""
			p := newApp(t, fmt.Sprintf(source, test.parameters), func(c *workers.Config) {
				dir = c.App
				if test.batch {
					takesBatches(c)
				}
			}, "f")
			var loadError *handlers.LoadError
			err := p.WaitReady(soon(t))
			if !errors.As(err, &loadError) || !strings.HasPrefix(loadError.Summary, filepath.Join(dir, "function_app.py")+":5: function_app.f(") || !strings.Contains(loadError.Summary, test.want) {
				t.Errorf("%v; want %q", err, test.want)
			}
		})
	}
}

// A worker imports its own package, even if the app's environment has others of the same name.
func TestWorkersOwnPackageWins(t *testing.T) {
	t.Parallel()
	i, home := installation.find(t)
	environment := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), i.Path, "-m", "venv", "--without-pip", environment).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	packages, err := filepath.Glob(filepath.Join(environment, "lib", "python*", "site-packages"))
	if err != nil || len(packages) != 1 {
		t.Fatal(packages, err)
	}
	const other = "class Reject(Exception): pass\n"
	put(t, packages[0], map[string]string{"drover/__init__.py": other, "drover/batches.py": "", "other.pth": "import drover\n"})
	elsewhere := t.TempDir()
	put(t, elsewhere, map[string]string{"drover/__init__.py": other})
	const source = `
import drover, drover.testing
def f(orders: list):
    return [m.__file__ for m in (drover, drover.testing, drover.batches)]
`
	p := startApp(t, source, func(c *workers.Config) {
		put(t, c.App, map[string]string{"drover/__init__.py": other})
		c.Command.Path, c.Command.Env = filepath.Join(environment, "bin", "python"), append(c.Command.Env, "PYTHONPATH="+elsewhere)
		takesBatches(c)
	}, "f")
	got, err := handler(t, p, "f").HandleBatch(t.Context(), batchOf("a"))
	want := fmt.Sprintf(`["%[1]s/drover/__init__.py","%[1]s/drover/testing.py","%[1]s/drover/batches.py"]`, home)
	if err != nil || string(got.Whole.Output) != want {
		t.Errorf("%s, %v; want %s", got.Whole.Output, err, want)
	}
}

// The files that apps can install import no other files of the worker.
func TestPublicFilesAreComplete(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := WriteTypings(dir); err != nil {
		t.Fatal(err)
	}
	i, _ := installation.find(t)
	for _, name := range public {
		module, isModule := strings.CutSuffix(name, ".py")
		if !isModule || module == "__init__" {
			continue
		}
		cmd := exec.CommandContext(t.Context(), i.Path, "-B", "-c", "import drover."+module)
		cmd.Env = append(os.Environ(), "PYTHONPATH="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
	if out := runPython(t, filepath.Join("testdata", "closure.py"), dir); out != "" {
		t.Error(out)
	}
}
