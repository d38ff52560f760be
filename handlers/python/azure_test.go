package python

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
)

// inFunctionAppPythons runs a test with the interpreter of each environment that has the library
// azure-functions.
func inFunctionAppPythons(t *testing.T, test func(t *testing.T, python string)) {
	t.Helper()
	for _, version := range []string{"3.10", "3.13"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			test(t, functionAppPython(t, version))
		})
	}
}

func functionAppPython(t testing.TB, version string) string {
	t.Helper()
	python, err := filepath.Abs(filepath.Join("testdata", "functionapps", version, "bin", "python"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(python); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("azure-functions for Python %s is missing; run: make functionapps", version)
		}
		t.Skipf("azure-functions for Python %s is missing; run: make functionapps", version)
	}
	return python
}

// Arguments and results are the same as with the library's converters, except for features that
// only drover has.
func TestFunctionAppsGetWhatTheLibraryMakes(t *testing.T) {
	t.Parallel()
	inFunctionAppPythons(t, func(t *testing.T, python string) {
		_, home := installation.find(t)
		cmd := exec.CommandContext(t.Context(), python, "-B", filepath.Join("testdata", "azure", "checks.py"))
		cmd.Env = append(os.Environ(), "PYTHONPATH="+home)
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

// collecting is the context of a call, with the messages that the function sends.
type collecting struct {
	context.Context
	mu    sync.Mutex
	sent  []string
	about triggers.Properties
}

func (c *collecting) Describe(about triggers.Properties) { c.about = about }

func (c *collecting) Send(output string, body []byte, about triggers.Properties) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	line := output + ": " + string(body)
	if s := about[triggers.SessionID]; s != "" {
		line += " in " + s
	}
	c.sent = append(c.sent, line)
	return nil
}

func (c *collecting) Value(key any) any {
	if key == handlers.DescribedKey {
		return c
	}
	return c.Context.Value(key)
}

// native is the origin of a message, with the source's own fields.
type native map[string]any

func (native) Properties() triggers.Properties { return nil }
func (n native) Native() map[string]any        { return n }

// queued is the origin of a message of a storage queue.
func queued(id string, deliveries int64) native {
	at := time.Date(2026, 12, 1, 2, 3, 4, 5000, time.UTC)
	return native{
		"Id": id, "DequeueCount": deliveries, "PopReceipt": "receipt", "InsertionTime": at, "ExpirationTime": at.AddDate(0, 0, 7), "NextVisibleTime": at.Add(time.Minute),
	}
}

// appFunction is a function of a function app.
func appFunction(name, bindings string, change func(*workers.Function)) workers.Function {
	azure, err := json.Marshal(map[string]any{
		"name": name, "http_type": "function", "bindings": json.RawMessage(bindings), "directory": "/the/app", "file": name + "/__init__.py", "entry": "main",
	})
	if err != nil {
		panic(err)
	}
	f := workers.Function{Name: name, Module: "function_app", Function: name, Origin: true, Azure: azure}
	if change != nil {
		change(&f)
	}
	return f
}

func withOutputs(names ...string) func(*workers.Function) {
	return func(f *workers.Function) { f.Outputs = names }
}

const (
	queueBinding = `{"type": "queueTrigger", "direction": "IN", "name": "msg", "queueName": "in", "connection": "AzureWebJobsStorage"}`
	returnQueue  = `{"type": "queue", "direction": "OUT", "name": "$return", "queueName": "out", "connection": "AzureWebJobsStorage"}`
	outTopic     = `{"type": "serviceBus", "direction": "OUT", "name": "out", "topicName": "out", "connection": "Bus"}`
	httpBindings = `[{"type": "http", "direction": "OUT", "name": "$return"}, {"type": "httpTrigger", "direction": "IN", "name": "req", "route": "r"}]`
)

const functionApp = `
import asyncio, json, logging, threading, typing
import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)
log = logging.getLogger("shop")

@app.function_name("Price")
@app.queue_trigger("msg", "in", "AzureWebJobsStorage")
@app.queue_output("$return", "out", "AzureWebJobsStorage")
def main(msg: func.QueueMessage) -> str:
    return f"{msg.get_json()['price']} {msg.id} {msg.dequeue_count} {msg.insertion_time.isoformat()}"

@app.function_name("Split")
@app.queue_trigger("msg", "in", "AzureWebJobsStorage")
@app.service_bus_topic_output("out", "Bus", "out")
async def main(msg: str, out: func.Out[typing.List[str]], context: func.Context) -> None:
    await asyncio.sleep(0)
    log.info("splitting in %s", context.invocation_id)
    out.set(msg.split() + [context.function_name])

@app.queue_trigger("msg", "in", "AzureWebJobsStorage")
@app.service_bus_topic_output("out", "Bus", "out")
def session(msg: str, out: func.Out[object]) -> None:
    from azure.servicebus import ServiceBusMessage
    out.set([ServiceBusMessage(msg, session_id="s1"), "plain"])

@app.queue_trigger("msg", "in", "AzureWebJobsStorage")
def says(msg: str, context: func.Context):
    print("printed", msg)
    def beside():
        context.thread_local_storage.invocation_id = context.invocation_id
        logging.error("%s from a thread of %s", msg, context.invocation_id)
    thread = threading.Thread(target=beside)
    thread.start()
    thread.join()
    if msg == "bad":
        raise ValueError("bad it is")

@app.queue_trigger("msg", "in", "AzureWebJobsStorage")
def returns(msg: str):
    return "for nobody"

@app.route("r")
def answer(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    logging.warning("answering %s", context.invocation_id)
    response = func.HttpResponse(f"{req.method} {req.params['a']} {req.get_body().decode()}", status_code=201, headers={"X-Seen": req.headers["x-sent"]})
    response.headers.add("Set-Cookie", "a=1")
    response.headers.add("Set-Cookie", "b=2")
    return response

@app.function_name("nothing")
@app.route("r")
def nothing(req: func.HttpRequest):
    return None
`

// A function app of model v2 runs in a worker: functions by their names, arguments, outputs,
// responses, and its log.
func TestFunctionAppOfModelV2(t *testing.T) {
	t.Parallel()
	inFunctionAppPythons(t, func(t *testing.T, python string) {
		log, app := newLines(), ""
		p := startApp(t, functionApp, func(c *workers.Config) {
			app = filepath.Join(c.App, "function_app.py")
			c.Command.Path, c.Log = python, slog.New(slog.NewTextHandler(log, nil))
			c.Functions = []workers.Function{
				appFunction("Price", "["+returnQueue+","+queueBinding+"]", withOutputs("$return")),
				appFunction("Split", "["+outTopic+","+queueBinding+"]", withOutputs("out")),
				appFunction("session", "["+outTopic+","+queueBinding+"]", withOutputs("out")),
				appFunction("says", "["+queueBinding+"]", nil), appFunction("returns", "["+queueBinding+"]", nil),
				appFunction("answer", httpBindings, nil), appFunction("nothing", httpBindings, nil),
			}
		})
		run := func(function string, m *triggers.Message) (*collecting, string, error) {
			m.Attempt = max(m.Attempt, 1)
			ctx := &collecting{Context: soon(t)}
			output, err := handle(ctx, handler(t, p, function), m)
			return ctx, string(output), err
		}
		for _, test := range []struct {
			function, body string
			want           string
		}{
			{"Price", `{"price": 7}`, "[$return: 7 m1 2 2026-12-01T02:03:04.000005+00:00]"},
			{"Split", "a b", "[out: a out: b out: Split]"},
			{"session", "x", "[out: x in s1 out: plain]"},
			{"says", "good", "[]"},
		} {
			got, output, err := run(test.function, &triggers.Message{ID: "m1", Body: []byte(test.body), Origin: queued("m1", 2)})
			if err != nil || fmt.Sprint(got.sent) != test.want || output != "" {
				t.Errorf("%s: %q, %q, %v; want %s", test.function, got.sent, output, err, test.want)
			}
		}
		log.wait(t, `msg="printed good"`, "function=says", "message=m1", "invocation=")
		log.wait(t, "good from a thread of", "function=says", "message=m1")

		// The traceback begins in the function.
		_, _, err := run("says", &triggers.Message{ID: "m2", Body: []byte("bad"), Origin: queued("m2", 1)})
		var failure *handlers.Failure
		if !errors.As(err, &failure) || failure.Summary != "ValueError: bad it is" || !strings.HasPrefix(failure.Detail, "Traceback (most recent call last):\n  File \""+app) {
			t.Errorf("%v: %+v", err, failure)
		}
		if _, _, err := run("returns", &triggers.Message{ID: "m3", Origin: queued("m3", 1)}); err == nil || !strings.Contains(err.Error(), "function returns returned a str, but has no output $return") {
			t.Errorf("a result without an output: %v", err)
		}

		const id = "6e0c9e5a-0000-4000-8000-000000000001"
		request := &triggers.Message{
			ID: id, Body: []byte("body"), Attributes: map[string]string{"X-Sent": "seen"},
			Origin: triggers.Known{"http_method": "PUT", "http_url": "http://h/api/r?a=1", "http_query": "a=1", "http_params": "{}"},
		}
		got, output, err := run("answer", request)
		headers := `[["X-Seen", "seen"], ["Set-Cookie", "a=1"], ["Set-Cookie", "b=2"]]`
		if err != nil || output != "PUT 1 body" || got.about["http_status"] != "201" || got.about["http_headers"] != headers || got.about[triggers.ContentType] != "text/plain; charset=utf-8" {
			t.Errorf("%q, %v, %v", output, got.about, err)
		}
		log.wait(t, "answering "+id, "function=answer", "message="+id, "invocation="+id)
		if _, _, err := run("nothing", request); err == nil || !strings.Contains(err.Error(), "function nothing returned None, which is not an HTTP response") {
			t.Errorf("no response: %v", err)
		}
	})
}

// A function app of model v1: functions are found by their files and entries.
func TestFunctionAppOfModelV1(t *testing.T) {
	t.Parallel()
	inFunctionAppPythons(t, func(t *testing.T, python string) {
		p := startApp(t, "", func(c *workers.Config) {
			if err := os.Remove(filepath.Join(c.App, "function_app.py")); err != nil {
				t.Fatal(err)
			}
			put(t, c.App, map[string]string{
				"First/__init__.py":  "from ..common import shout\ndef main(msg: bytes) -> str:\n    return shout(msg.decode())\n",
				"Second/__init__.py": "from __app__.common import shout\nasync def main(msg, out):\n    out.set([shout(msg.id), b'bytes'])\n",
				"Third/__init__.py":  "from __app__.common import main\n",
				"common/__init__.py": "def shout(text): return text.upper()\ndef main(msg: str): return ['a', msg]\n",
			})
			c.Command.Path = python
			c.Functions = []workers.Function{
				appFunction("First", "["+queueBinding+","+returnQueue+"]", withOutputs("$return")),
				appFunction("Second", "["+queueBinding+","+outTopic+"]", withOutputs("other", "out")),
				appFunction("Third", "["+queueBinding+","+returnQueue+"]", withOutputs("$return")),
			}
		})
		for function, want := range map[string]string{"First": "[$return: X]", "Second": "[out: M1 out: bytes]", "Third": "[$return: a $return: x]"} {
			ctx := &collecting{Context: soon(t)}
			if _, err := handle(ctx, handler(t, p, function), &triggers.Message{ID: "m1", Body: []byte("x"), Attempt: 1, Origin: queued("m1", 1)}); err != nil || fmt.Sprint(ctx.sent) != want {
				t.Errorf("%s: %q, %v; want %s", function, ctx.sent, err, want)
			}
		}
	})
}

// An app may use any version of protobuf and grpcio: drover imports neither.
func TestFunctionAppWithItsOwnProtobuf(t *testing.T) {
	t.Parallel()
	inFunctionAppPythons(t, func(t *testing.T, python string) {
		p := startApp(t, `
import sys
before = [name for name in sys.modules if name.partition(".")[0] in ("google", "grpc")]
import azure.functions as func
import google.protobuf, grpc

app = func.FunctionApp()

@app.queue_trigger("msg", "in", "AzureWebJobsStorage")
@app.queue_output("$return", "out", "AzureWebJobsStorage")
def versions(msg: func.QueueMessage) -> str:
    return f"{before} {google.protobuf.__version__} {grpc.__version__} {msg.get_body().decode()}"
`, func(c *workers.Config) {
			put(t, c.App, map[string]string{
				".python_packages/lib/site-packages/google/protobuf/__init__.py": "__version__ = '1.2'\n",
				".python_packages/lib/site-packages/grpc/__init__.py":            "__version__ = '99.0'\n",
			})
			c.Command.Path = python
			c.Command.Env = append(c.Command.Env, "PYTHONPATH="+filepath.Join(c.App, ".python_packages", "lib", "site-packages"))
			c.Functions = []workers.Function{appFunction("versions", "["+queueBinding+","+returnQueue+"]", withOutputs("$return"))}
		})
		ctx := &collecting{Context: soon(t)}
		_, err := handle(ctx, handler(t, p, "versions"), &triggers.Message{ID: "m1", Body: []byte("x"), Attempt: 1, Origin: queued("m1", 1)})
		if want := "[$return: [] 1.2 99.0 x]"; err != nil || fmt.Sprint(ctx.sent) != want {
			t.Errorf("%q, %v; want %s", ctx.sent, err, want)
		}
	})
}

// The error for a function that cannot be loaded names it.
func TestFunctionAppsThatDoNotLoad(t *testing.T) {
	t.Parallel()
	const head = "import azure.functions as func\napp = func.FunctionApp()\n"
	const decorated = "@app.queue_trigger('msg', 'in', 'AzureWebJobsStorage')\n"
	inFunctionAppPythons(t, func(t *testing.T, python string) {
		for name, test := range map[string]struct{ source, bindings, want string }{
			"no such function": {head + decorated + "def other(msg): pass", queueBinding, "function f: function_app.py has no such function; it has: other"},
			"two apps":         {head + "more = func.FunctionApp()", queueBinding, "function f: function_app.py has 2 function apps"},
			"an exception":     {head + "app.trigger()", queueBinding, "function f: importing the function app"},
			"no output":        {head + decorated + "def f(msg): pass", queueBinding + "," + returnQueue, "function f: its output $return is not among those of the configuration: none"},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				p := newApp(t, test.source, func(c *workers.Config) {
					c.Command.Path, c.Functions = python, []workers.Function{appFunction("f", "["+test.bindings+"]", nil)}
				})
				var loadError *handlers.LoadError
				if err := p.WaitReady(soon(t)); !errors.As(err, &loadError) || !strings.Contains(loadError.Summary, test.want) {
					t.Errorf("%v; want %q", err, test.want)
				}
			})
		}
	})
}

// BenchmarkFunctionApp compares a function of a function app with a plain one that does the same.
func BenchmarkFunctionApp(b *testing.B) {
	const source = functionApp + `
@app.queue_trigger("msg", "in", "AzureWebJobsStorage")
def noop(msg: func.QueueMessage): pass
@app.queue_trigger("msg", "in", "AzureWebJobsStorage")
async def anoop(msg: func.QueueMessage): pass
def plain(message): pass
async def aplain(message): pass
`
	for _, bench := range []struct {
		name     string
		function workers.Function
	}{
		{"plain", workers.Function{Name: "plain", Module: "function_app", Function: "plain"}},
		{"azure", appFunction("noop", "["+queueBinding+"]", nil)},
		{"plain-async", workers.Function{Name: "aplain", Module: "function_app", Function: "aplain"}},
		{"azure-async", appFunction("anoop", "["+queueBinding+"]", nil)},
	} {
		b.Run(bench.name, func(b *testing.B) {
			p := startApp(b, source, func(c *workers.Config) {
				c.Command.Path, c.Functions = functionAppPython(b, "3.13"), []workers.Function{bench.function}
			})
			benchmarkPool(b, p, bench.function.Name, func() *triggers.Message {
				return &triggers.Message{ID: "x", Body: make([]byte, 128), Attempt: 1, Origin: queued("x", 1)}
			})
		})
	}
}

// HTTP functions may take the Request of FastAPI, and return its responses.
func TestFunctionAppWithRequestsOfFastAPI(t *testing.T) {
	t.Parallel()
	inFunctionAppPythons(t, func(t *testing.T, python string) {
		const queueOut = `{"type": "queue", "direction": "OUT", "name": "jobs", "queueName": "jobs", "connection": "AzureWebJobsStorage"}`
		p := startApp(t, `
import asyncio, typing
import azure.functions as func
from azurefunctions.extensions.http.fastapi import JSONResponse, Request, Response, StreamingResponse

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)

@app.route("r/{id}")
async def take(req: Request, context: func.Context) -> Response:
    body = await req.body()
    return JSONResponse({"id": req.path_params["id"], "q": req.query_params["q"], "body": body.decode(), "invocation": context.invocation_id}, 201, {"x-a": "1"})

@app.route("stream")
async def stream(req: Request) -> StreamingResponse:
    async def parts():
        for part in ("a", "b", "c"):
            yield part
            await asyncio.sleep(0)
    return StreamingResponse(parts(), media_type="text/event-stream")

@app.route("plain")
@app.queue_output("jobs", "jobs", "AzureWebJobsStorage")
def plain(req: Request, jobs: func.Out[typing.List[str]]) -> dict:
    jobs.set([req.method, req.url.path])
    return {"done": True}

@app.route("fails")
async def fails(req: Request) -> str:
    if req.query_params["q"] == "none":
        return None
    raise ValueError("on purpose")
`, func(c *workers.Config) {
			c.Command.Path = python
			c.Functions = []workers.Function{
				appFunction("take", httpBindings, nil), appFunction("stream", httpBindings, nil),
				appFunction("plain", strings.Replace(httpBindings, "]", ", "+queueOut+"]", 1), withOutputs("jobs")), appFunction("fails", httpBindings, nil),
			}
			for i := range c.Functions {
				c.Functions[i].Reply = true
			}
		})
		m := request("POST", "/api/r/7?q=1", "body")
		m.Origin.(triggers.Known)["http_params"] = `{"id": "7"}`
		c, body, err := ask(t, p, "take", m)
		want := fmt.Sprintf(`{"id":"7","q":"1","body":"body","invocation":%q}`, m.ID)
		if err != nil || body != want || c.properties["http_status"] != "201" || !strings.Contains(c.properties["http_headers"], `["x-a", "1"]`) {
			t.Errorf("%s, %v, %v; want %s", body, c.properties, err, want)
		}
		if c, body, err := ask(t, p, "stream", request("GET", "/api/stream", "")); err != nil || body != "abc" || !c.streamed {
			t.Errorf("%q, streamed %v, %v", body, c.streamed, err)
		}
		ctx := &collecting{Context: soon(t)}
		if output, err := handle(ctx, handler(t, p, "plain"), request("PUT", "/api/plain", "")); err != nil || string(output) != `{"done":true}` || fmt.Sprint(ctx.sent) != "[jobs: PUT jobs: /api/plain]" {
			t.Errorf("%s, %q, %v", output, ctx.sent, err)
		}
		for query, want := range map[string]string{"none": "the function returned None, which is not an HTTP response", "": "ValueError: on purpose"} {
			if _, _, err := ask(t, p, "fails", request("GET", "/api/fails?q="+query, "")); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v, want %q", query, err, want)
			}
		}
	})
}

// AsgiFunctionApp and WsgiFunctionApp run their app, which gets the context of the call.
func TestFunctionAppsOfWebApps(t *testing.T) {
	t.Parallel()
	const asgi = `
async def inner(scope, receive, send):
    if scope["type"] != "http": raise RuntimeError("no lifespan")
    keys = [scope["azure_functions." + key] for key in ("function_name", "invocation_id", "function_directory")]
    await send({"type": "http.response.start", "status": 202, "headers": [(b"x-a", b"1")]})
    await send({"type": "http.response.body", "body": " ".join(keys).encode() + (await receive())["body"]})
app = func.AsgiFunctionApp(app=inner, http_auth_level=func.AuthLevel.ANONYMOUS)
`
	const wsgi = `
def inner(environ, start_response):
    keys = [environ["azure_functions." + key] for key in ("function_name", "invocation_id", "function_directory")]
    start_response("202 Accepted", [("x-a", "1")])
    return [" ".join(keys).encode(), environ["wsgi.input"].read()]
app = func.WsgiFunctionApp(app=inner, http_auth_level=func.AuthLevel.ANONYMOUS)
`
	const bindings = `[{"type": "http", "direction": "OUT", "name": "$return"}, {"type": "httpTrigger", "direction": "IN", "name": "req", "route": "/{*route}"}]`
	inFunctionAppPythons(t, func(t *testing.T, python string) {
		for kind, source := range map[string]string{"asgi": asgi, "wsgi": wsgi} {
			p := startApp(t, "import azure.functions as func\n"+source, func(c *workers.Config) {
				f := appFunction("http_app_func", bindings, nil)
				f.Azure, f.Reply = json.RawMessage(strings.Replace(string(f.Azure), `"http_type":"function"`, `"http_type":"`+kind+`"`, 1)), true
				c.Command.Path, c.Functions = python, []workers.Function{f}
			})
			m := request("POST", "/any", " body")
			m.ID = "6e0c9e5a-0000-4000-8000-000000000001"
			c, body, err := ask(t, p, "http_app_func", m)
			if want := "http_app_func " + m.ID + " /the/app body"; err != nil || body != want || c.properties["http_status"] != "202" || c.properties["http_headers"] != `[["x-a", "1"]]` {
				t.Errorf("%s: %q, %v, %v; want %q", kind, body, c.properties, err, want)
			}
		}
	})
}

// Functions with cardinality many get a list of messages, each with its own fields, and may give a
// verdict on each.
func TestFunctionAppsWithBatches(t *testing.T) {
	t.Parallel()
	const many = `{"type": "serviceBusTrigger", "direction": "IN", "name": "msgs", "cardinality": "MANY", "queueName": "in", "connection": "Bus"}`
	inFunctionAppPythons(t, func(t *testing.T, python string) {
		p := startApp(t, `
import typing, drover
import azure.functions as func
app = func.FunctionApp()

@app.service_bus_queue_trigger("msgs", "Bus", "in", cardinality=func.Cardinality.MANY)
@app.queue_output("$return", "out", "AzureWebJobsStorage")
def lists(msgs: typing.List[func.ServiceBusMessage]):
    return [f"{m.get_body().decode()} {m.message_id} {m.delivery_count} {m.application_properties} {m.metadata['MessageId']}" for m in msgs]

@app.service_bus_queue_trigger("msgs", "Bus", "in", cardinality=func.Cardinality.MANY)
@app.queue_output("$return", "out", "AzureWebJobsStorage")
@app.service_bus_topic_output("out", "Bus", "out")
async def verdicts(msgs: typing.List[func.ServiceBusMessage], out: func.Out[str], context: func.Context):
    out.set(f"{len(msgs)} {context.function_name}")
    of = {"reject": drover.Reject("no"), "fail": ValueError("bad"), "own": "its own", "object": object()}
    return drover.Verdicts([of.get(m.get_body().decode()) for m in msgs], result="of all")

@app.service_bus_queue_trigger("msgs", "Bus", "in", cardinality=func.Cardinality.MANY)
def fails(msgs: typing.List[func.ServiceBusMessage]) -> None:
    raise RuntimeError(f"{len(msgs)} at once")
`, func(c *workers.Config) {
			c.Command.Path = python
			both := func(f *workers.Function) { f.Outputs, f.Batch = []string{"$return", "out"}, 100 }
			c.Functions = []workers.Function{
				appFunction("lists", "["+many+","+returnQueue+"]", both), appFunction("verdicts", "["+many+","+returnQueue+","+outTopic+"]", both),
				appFunction("fails", "["+many+"]", func(f *workers.Function) { f.Batch = 100 }),
			}
		})
		batch := func(bodies ...string) []*triggers.Message {
			all := batchOf(bodies...)
			for i, m := range all {
				m.Origin = native{"MessageId": m.ID, "DeliveryCount": int64(i + 1), "ApplicationProperties": map[string]any{"n": int64(i)}, "UserProperties": map[string]any{}}
			}
			return all
		}
		got, err := handler(t, p, "lists").HandleBatch(soon(t), batch("a", "b"))
		if want := " [$return: a a 1 {'n': 0} a] [$return: b b 2 {'n': 1} b]"; err != nil || describeResult(got.Whole) != want || len(got.Each) > 0 {
			t.Errorf("%q, %v, %v; want %q", describeResult(got.Whole), got.Each, err, want)
		}
		bodies := []string{"done", "reject", "fail", "own", "object"}
		want := []string{"", "reject: no", "fail: ValueError: bad", " [$return: its own]", "fail: TypeError: the output $return got an object, which cannot be sent"}
		got, err = handler(t, p, "verdicts").HandleBatch(soon(t), batch(bodies...))
		if err != nil || len(got.Each) != len(want) || describeResult(got.Whole) != " [out: 5 verdicts] [$return: of all]" {
			t.Fatalf("%q, %v, %v", describeResult(got.Whole), got.Each, err)
		}
		for i, one := range got.Each {
			if text := describeResult(one); !strings.HasPrefix(text, want[i]) {
				t.Errorf("%s: %q, want %q", bodies[i], text, want[i])
			}
		}
		if _, err := handler(t, p, "fails").HandleBatch(soon(t), batch("a", "b", "c")); err == nil || err.Error() != "RuntimeError: 3 at once" {
			t.Error(err)
		}
	})
}
