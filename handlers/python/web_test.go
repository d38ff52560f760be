package python

import (
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
)

// webPythons are the environments of make functionapps, by the version of Python.
var webPythons = []string{"3.10", "3.13"}

// inEachPython runs a test in each environment, with a function that starts an app there.
func inEachPython(t *testing.T, run func(t *testing.T, start func(source string, change func(*workers.Config), functions ...string) *workers.Pool)) {
	t.Parallel()
	for _, version := range webPythons {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			path, err := filepath.Abs(filepath.Join("testdata/functionapps", version, "bin/python"))
			if err != nil {
				t.Fatal(err)
			}
			found, err := filepath.Glob(filepath.Join(filepath.Dir(path), "../lib/python*/site-packages/fastapi"))
			if _, missing := os.Stat(path); missing != nil || err != nil || len(found) == 0 {
				if os.Getenv("CI") == "true" {
					t.Fatalf("FastAPI and Flask for Python %s are missing; run: make functionapps", version)
				}
				t.Skipf("FastAPI and Flask for Python %s are missing; run: make functionapps", version)
			}
			run(t, func(source string, change func(*workers.Config), functions ...string) *workers.Pool {
				return newApp(t, source, replying(func(c *workers.Config) {
					c.Command.Path = path
					if change != nil {
						change(c)
					}
				}), functions...)
			})
		})
	}
}

// request is the message of a request to http://shop.test:81.
func request(method, target, body string, headers ...string) *triggers.Message {
	path, query, _ := strings.Cut(target, "?")
	m := &triggers.Message{
		ID: "m", Subject: path, Attempt: 1, Body: []byte(body), Attributes: map[string]string{"Host": "shop.test:81"}, Repeated: make(map[string][]string),
		Origin: triggers.Known{triggers.HTTPMethod: method, triggers.HTTPURL: "http://shop.test:81" + target, triggers.HTTPQuery: query, triggers.HTTPRemote: "192.0.2.7"},
	}
	for i := 0; i < len(headers); i += 2 {
		if _, is := m.Attributes[headers[i]]; !is {
			m.Attributes[headers[i]] = headers[i+1]
		}
		m.Repeated[headers[i]] = append(m.Repeated[headers[i]], headers[i+1])
	}
	return m
}

const fastAPI = mark + `
import logging
from contextlib import asynccontextmanager
from fastapi import BackgroundTasks, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

@asynccontextmanager
async def lifespan(app):
    logging.info("the shop opens")
    app.state.loop = asyncio.get_running_loop()
    yield {"database": "open"}
    await asyncio.sleep(0)
    logging.info("the shop closes")

shop = FastAPI(lifespan=lifespan)

@shop.get("/api/fruit/{name}")
async def fruit(name: str, request: Request, ripe: bool = False):
    if name == "stone":
        raise HTTPException(status_code=404, detail="that is not a fruit")
    return {"name": name, "ripe": ripe, "database": request.state.database, "url": str(request.url), "client": request.client.host,
            "seen": request.headers.getlist("x-seen"), "same": request.app.state.loop is asyncio.get_running_loop()}

@shop.post("/api/fruit")
async def add(request: Request):
    return {"size": len(await request.body()), "type": request.headers["content-type"]}

@shop.get("/api/cookies")
async def cookies(response: Response):
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return {}

@shop.get("/api/fails")
async def fails(): raise ValueError("on purpose")

@shop.exception_handler(KeyError)
async def own(request, error): return JSONResponse({"own": str(error)}, 503)

@shop.exception_handler(Exception)
async def any_other(request, error): return JSONResponse({"own": "any"}, 500)

@shop.get("/api/key")
async def key(): raise KeyError("k")

@shop.get("/api/large")
async def large(pieces: int):
    async def parts():
        for _ in range(pieces): yield b"x" * 100_000
    return StreamingResponse(parts(), 206, {"X-A": "1"}, "a/b")

@shop.get("/api/events")
async def events(path: str):
    async def parts():
        try:
            yield b"data: 1\n\n"
            await asyncio.sleep(1000)
        finally:
            mark(path.encode())
    return StreamingResponse(parts(), media_type="text/event-stream")

@shop.get("/api/half")
async def half():
    def parts():
        yield b"one"
        raise ValueError("midway")
    return StreamingResponse(parts())

@shop.get("/api/background")
async def background(tasks: BackgroundTasks, path: str):
    async def later():
        while not os.path.exists(path): await asyncio.sleep(0.001)
        logging.info("the task ends")
    tasks.add_task(later)
    return {"accepted": True}
`

func TestFastAPI(t *testing.T) {
	inEachPython(t, func(t *testing.T, start func(string, func(*workers.Config), ...string) *workers.Pool) {
		logs := newLines()
		p := start(fastAPI, func(c *workers.Config) { c.Log = slog.New(slog.NewTextHandler(logs, nil)) }, "shop")
		if err := p.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(logs.String(), "the shop opens"); got != 1 {
			t.Errorf("the lifespan began %d times before the app was ready", got)
		}
		json := triggers.Properties{"http_status": "200", "content_type": "application/json"}
		for _, test := range []struct {
			request *triggers.Message
			status  string
			want    string
		}{
			{request("GET", "/api/fruit/k%C3%A4se?ripe=true", "", "X-Seen", "1", "X-Seen", "2"), "200",
				`{"name":"käse","ripe":true,"database":"open","url":"http://shop.test:81/api/fruit/käse?ripe=true","client":"192.0.2.7","seen":["1","2"],"same":true}`},
			{request("GET", "/api/fruit/stone", ""), "404", `{"detail":"that is not a fruit"}`},
			{request("POST", "/api/fruit", strings.Repeat("x", 1<<20), "Content-Type", "a/b"), "200", `{"size":1048576,"type":"a/b"}`},
			{request("GET", "/api/key", ""), "503", `{"own":"'k'"}`},
			{request("GET", "/api/fails", ""), "500", `{"own":"any"}`}, // its own response, and not drover's
			{request("GET", "/nothing", ""), "404", `{"detail":"Not Found"}`},
		} {
			c, body, err := ask(t, p, "shop", test.request)
			if err != nil || body != test.want || c.properties["http_status"] != test.status || c.properties["content_type"] != json["content_type"] || c.streamed {
				t.Errorf("%s: %q, %v, %v", test.request.Subject, body, c.properties, err)
			}
		}
		if text := logs.String(); !strings.Contains(text, "ValueError: on purpose") {
			t.Error("the log has no traceback of /api/fails:", text)
		}
		c, _, err := ask(t, p, "shop", request("GET", "/api/cookies", ""))
		if headers := c.properties["http_headers"]; err != nil || strings.Count(headers, `"set-cookie"`) != 2 {
			t.Errorf("%v, %v", headers, err)
		}

		c, body, err := ask(t, p, "shop", request("GET", "/api/large?pieces=30", ""))
		want := triggers.Properties{"http_status": "206", "content_type": "a/b", "http_headers": `[["x-a","1"]]`}
		if err != nil || len(body) != 3_000_000 || !c.streamed || !c.closed || !maps.Equal(c.properties, want) {
			t.Errorf("%d bytes, %v, %v", len(body), c.properties, err)
		}
		var failure *handlers.Failure
		if c, body, err = ask(t, p, "shop", request("GET", "/api/half", "")); !errors.As(err, &failure) || !strings.Contains(failure.Detail, `raise ValueError("midway")`) || body != "one" || c.closed {
			t.Errorf("%q, %v, closed: %v", body, err, c.closed)
		}

		// A client that disconnects while nothing is sent: the generator is cancelled.
		path := filepath.Join(t.TempDir(), "closed")
		gone := &client{Context: soon(t), write: func([]byte) error { return errors.New("the client is gone") }}
		if _, err := gone.ask(t, p, "shop", request("GET", "/api/events?path="+path, "")); !errors.Is(err, handlers.ErrNotTried) {
			t.Error(err)
		}
		begun(t, path)

		// The client gets the response before the background task ends, and the call lasts until then.
		path = filepath.Join(t.TempDir(), "go")
		early := &client{Context: soon(t)}
		early.write = func(part []byte) error {
			early.parts = append(early.parts, string(part))
			return os.WriteFile(path, nil, 0o600)
		}
		if body, err := early.ask(t, p, "shop", request("GET", "/api/background?path="+path, "")); err != nil || body != `{"accepted":true}` || !early.closed || !strings.Contains(logs.String(), "the task ends") {
			t.Errorf("%q, %v, closed: %v", body, err, early.closed)
		}
		if strings.Contains(logs.String(), "the shop closes") {
			t.Error("the lifespan has ended")
		}
	})
}

// The lifespan ends when the worker does, after its last call.
func TestLifespanEnds(t *testing.T) {
	inEachPython(t, func(t *testing.T, start func(string, func(*workers.Config), ...string) *workers.Pool) {
		logs := newLines()
		t.Run("app", func(t *testing.T) {
			p := start(fastAPI, func(c *workers.Config) {
				c.Log = slog.New(slog.NewTextHandler(logs, nil))
			}, "shop")
			if _, _, err := ask(t, p, "shop", request("GET", "/api/fruit/fig", "")); err != nil {
				t.Error(err)
			}
			p.Scale(0)
			eventually(t, "the end of the lifespan", func() bool { return strings.Contains(logs.String(), "the shop closes") })
		})
	})
}

// An app whose lifespan does not start does not load. An app without a lifespan loads.
func TestLifespanFails(t *testing.T) {
	inEachPython(t, func(t *testing.T, start func(string, func(*workers.Config), ...string) *workers.Pool) {
		for source, want := range map[string]string{
			`
from contextlib import asynccontextmanager
from fastapi import FastAPI
@asynccontextmanager
async def lifespan(app):
    raise ValueError("no database")
    yield
shop = FastAPI(lifespan=lifespan)
`: "the ASGI app did not start: ValueError: no database",
			`
async def shop(scope, receive, send):
    await receive()
    raise ValueError("no database")
`: "the ASGI app did not start: ValueError: no database",
			`
async def shop(scope, receive, send):
    await receive()
    raise SystemExit(3)
`: "the ASGI app did not start: SystemExit: 3",
		} {
			p := start(source, nil, "shop")
			var failed *handlers.LoadError
			if err := p.WaitReady(soon(t)); !errors.As(err, &failed) || !strings.Contains(failed.Summary, want) || !strings.Contains(failed.Detail, "no database") && !strings.Contains(want, "SystemExit") {
				t.Errorf("%v, want %q", err, want)
			}
		}
		p := start(`
async def shop(scope, receive, send):
    if scope["type"] != "http": raise NotImplementedError
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-path", scope["raw_path"])]})
    await send({"type": "http.response.body", "body": scope["path"].encode()})
`, nil, "shop")
		c, body, err := ask(t, p, "shop", request("GET", "/a%2Fb/k%C3%A4se", ""))
		if err != nil || body != "/a/b/käse" || c.properties["http_headers"] != `[["x-path", "/a%2Fb/k%C3%A4se"]]` {
			t.Errorf("%q, %v, %v", body, c.properties, err)
		}
	})
}

// A violation of ASGI by an app is a failure with a clear error.
func TestWrongASGIApps(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]string{
		`pass`: "the ASGI app returned without a response",
		`await send({"type": "http.response.start", "status": 200})`:                                             "the ASGI app returned without a complete response",
		`await send({"type": "http.response.body"})`:                                                             "the ASGI app sent http.response.body, which it may not send now",
		`await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"a\r\nset-cookie: b")]})`: "the header x of a response has a control character",
		`await send({"type": "http.response.start", "status": 101})`:                                             "the status of the response is 101; it must be from 200 to 599",
		`await send({"type": "http.response.start", "status": 200, "headers": [(b"x y", b"a")]})`:                "a response cannot have the header 'x y'",
	} {
		p := startApp(t, "async def f(scope, receive, send):\n    if scope['type'] != 'http': raise NotImplementedError\n    "+code+"\n", replying(runModes["main thread"]), "f")
		if _, _, err := ask(t, p, "f", request("GET", "/", "")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", code, err, want)
		}
	}
}

func TestFlask(t *testing.T) {
	inEachPython(t, func(t *testing.T, start func(string, func(*workers.Config), ...string) *workers.Pool) {
		for mode, change := range runModes {
			logs := newLines()
			p := start(mark+`
from flask import Flask, Response, request
web = Flask(__name__)
@web.get("/hello/<name>")
def hello(name):
    return {"name": name, "shout": request.args.get("shout"), "url": request.url, "remote": request.remote_addr, "seen": request.headers["X-Seen"]}
@web.post("/sum")
def total(): return {"sum": sum(request.get_json())}
@web.get("/later")
def later(): return "come back", 503, [("Retry-After", "7"), ("Set-Cookie", "a"), ("Set-Cookie", "b")]
@web.get("/fails")
def fails(): raise ValueError("on purpose")
@web.get("/large")
def large():
    def parts():
        try:
            for _ in range(int(request.args["pieces"])): yield b"x" * 100_000
        finally:
            mark(request.args["path"].encode())
    from flask import stream_with_context
    return Response(stream_with_context(parts()), mimetype="a/b")
def writes(environ, start_response):
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write(b"one")
    return [b"two", b"three"]
def nothing(environ, start_response): return []
`, func(c *workers.Config) {
				change(c)
				c.Log = slog.New(slog.NewTextHandler(logs, nil))
			}, "web", "writes", "nothing")
			for _, test := range []struct {
				request      *triggers.Message
				status, want string
			}{
				{request("GET", "/hello/k%C3%A4se?shout=1", "", "X-Seen", "1", "X-Seen", "2"), "200", `{"name":"k\u00e4se","remote":"192.0.2.7","seen":"1,2","shout":"1","url":"http://shop.test:81/hello/k\u00e4se?shout=1"}`},
				{request("POST", "/sum", "[1,2]", "Content-Type", "application/json"), "200", `{"sum":3}`},
				{request("GET", "/later", ""), "503", "come back"},
			} {
				c, body, err := ask(t, p, "web", test.request)
				if err != nil || strings.TrimSpace(body) != test.want || c.properties["http_status"] != test.status || c.streamed {
					t.Errorf("%s, %s: %q, %v, %v", mode, test.request.Subject, body, c.properties, err)
				}
				if test.status == "503" && !strings.Contains(c.properties["http_headers"], `["Retry-After", "7"], ["Set-Cookie", "a"], ["Set-Cookie", "b"]`) {
					t.Errorf("%v", c.properties)
				}
			}
			if c, body, err := ask(t, p, "web", request("GET", "/fails", "")); err != nil || c.properties["http_status"] != "500" || !strings.Contains(body, "Internal Server Error") || !strings.Contains(logs.String(), "ValueError: on purpose") {
				t.Errorf("%s: %q, %v, %v", mode, body, c.properties, err)
			}
			path := filepath.Join(t.TempDir(), "closed")
			c, body, err := ask(t, p, "web", request("GET", "/large?pieces=30&path="+path, ""))
			if want := (triggers.Properties{"http_status": "200", "content_type": "a/b"}); err != nil || len(body) != 3_000_000 || !c.streamed || !maps.Equal(c.properties, want) {
				t.Errorf("%s: %d bytes, %v, %v", mode, len(body), c.properties, err)
			}
			begun(t, path)
			path += "2"
			gone := &client{Context: soon(t), write: func([]byte) error { return errors.New("the client is gone") }}
			if _, err := gone.ask(t, p, "web", request("GET", "/large?pieces=1000000&path="+path, "")); !errors.Is(err, handlers.ErrNotTried) {
				t.Errorf("%s: %v", mode, err)
			}
			begun(t, path) // close was called
			if c, body, err := ask(t, p, "writes", request("GET", "/", "")); err != nil || body != "onetwothree" || !c.streamed {
				t.Errorf("%s: %q, %v", mode, body, err)
			}
			if _, _, err := ask(t, p, "nothing", request("GET", "/", "")); err == nil || !strings.Contains(err.Error(), "the WSGI app returned without calling start_response") {
				t.Errorf("%s: %v", mode, err)
			}
		}
	})
}

// The apps that azure-functions wraps are found, and get its keys.
func TestAppsOfAzureFunctions(t *testing.T) {
	inEachPython(t, func(t *testing.T, start func(string, func(*workers.Config), ...string) *workers.Pool) {
		p := start(`
import types
import azure.functions as func
from drover.web import app_of, make_call
async def asgi(scope, receive, send):
    if scope["type"] != "http": return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": repr(sorted((k, v) for k, v in scope.items() if k.startswith("azure_functions."))).encode()})
def wsgi(environ, start_response):
    start_response("200 OK", [])
    return [repr(sorted((k, v) for k, v in environ.items() if k.startswith("azure_functions."))).encode()]
app = func.AsgiFunctionApp(app=asgi, http_auth_level=func.AuthLevel.ANONYMOUS)
other = func.WsgiFunctionApp(app=wsgi, http_auth_level=func.AuthLevel.ANONYMOUS)
context = types.SimpleNamespace(function_name="http_app_func", invocation_id="7")
calls = {}
for a, kind in ((app, "asgi"), (other, "wsgi")):
    (function,) = a.get_functions()
    assert function.http_type == kind
    inner = app_of(function.get_user_function())
    assert inner is (asgi if kind == "asgi" else wsgi), inner
    calls[kind] = make_call(kind, inner)
async def one(message): return (await calls["asgi"].call(message, context))[1]
def two(message): return calls["wsgi"].call(message, context)[1]
def three(message): return str(app_of(two))
`, nil, "one", "two", "three")
		for function, want := range map[string]string{
			"one":   `('azure_functions.function_name', 'http_app_func'), ('azure_functions.invocation_id', '7'), ('azure_functions.retry_context', None)`,
			"two":   `[('azure_functions.function_name', 'http_app_func'), ('azure_functions.invocation_id', '7')]`,
			"three": "None",
		} {
			if _, body, err := ask(t, p, function, request("GET", "/", "")); err != nil || !strings.Contains(strings.ReplaceAll(body, `\`, ""), want) {
				t.Errorf("%s: %q, %v", function, body, err)
			}
		}
	})
}

// A function app's ASGI or WSGI app is called with the fields of its function's context, and its
// response is sent in parts.
func TestFunctionAppsOfHTTPApps(t *testing.T) {
	inEachPython(t, func(t *testing.T, start func(string, func(*workers.Config), ...string) *workers.Pool) {
		for kind, source := range map[string]string{
			"asgi": `
import azure.functions as func
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
shop = FastAPI()
@shop.get("/api/scope")
async def scope(request: Request):
    return {key: str(request.scope["azure_functions." + key]) for key in ("function_name", "function_directory", "invocation_id")}
@shop.get("/api/parts")
async def parts():
    async def made():
        yield b"one"
        yield b"two"
    return StreamingResponse(made(), media_type="a/b")
app = func.AsgiFunctionApp(app=shop, http_auth_level=func.AuthLevel.ANONYMOUS)
`,
			"wsgi": `
import azure.functions as func
from flask import Flask, Response, request
shop = Flask(__name__)
@shop.get("/api/scope")
def scope():
    return {key: str(request.environ["azure_functions." + key]) for key in ("function_name", "function_directory", "invocation_id")}
@shop.get("/api/parts")
def parts(): return Response((part for part in ("one", "two")), mimetype="a/b")
app = func.WsgiFunctionApp(app=shop.wsgi_app, http_auth_level=func.AuthLevel.ANONYMOUS)
`,
		} {
			p := start(source, func(c *workers.Config) {
				c.Functions[0].Azure = []byte(`{"name":"http_app_func","entry":"http_app_func","file":"function_app.py","model":"v2","http_type":"` + kind + `","directory":"/app","retry":null,"max_attempts":1,
					"bindings":[{"type":"httpTrigger","direction":"IN","name":"req","route":"/{*route}"},{"type":"http","direction":"OUT","name":"$return"}]}`)
			}, "http_app_func")
			_, body, err := ask(t, p, "http_app_func", request("GET", "/api/scope", ""))
			if err != nil || !strings.Contains(body, `"http_app_func"`) || !strings.Contains(body, `"/app"`) {
				t.Errorf("%s: %q, %v", kind, body, err)
			}
			c, body, err := ask(t, p, "http_app_func", request("GET", "/api/parts", ""))
			if err != nil || body != "onetwo" || !c.streamed || c.properties["content_type"] != "a/b" {
				t.Errorf("%s: %q, %v, %v", kind, body, c.properties, err)
			}
		}
	})
}
