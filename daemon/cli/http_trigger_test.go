package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// httpFunctions is a configuration with HTTP functions in all languages.
const httpFunctions = `
log: {format: text, level: debug}
http: {listen: "127.0.0.1:0", prefix: api}
functions:
  hello:
    trigger: {http: {route: "hello/{name?}", methods: [GET, POST], auth: anonymous}}
    handler: {python: {path: app}}
  fails:
    trigger: {http: {auth: anonymous}}
    handler: {python: {path: app}}
  price:
    trigger: {http: {route: "price/{article:int}"}}
    handler: {go: price}
  upper:
    trigger: {http: {methods: POST, auth: anonymous}}
    handler: {exec: {command: [sh, -c, 'echo "$$DROVER_PROPERTY_HTTP_METHOD"; tr a-z A-Z']}}
  nightly:
    trigger: {timer: {schedule: "0 0 0 1 1 *"}}
    handler: {go: nightly}
`

const helloApp = `
import json
import drover

async def hello(message):
    p = message.properties
    who = json.loads(p["http_params"]).get("name") or message.text() or "nobody"
    print("greeting", who)
    out = drover.Output(f"hello {who} from {p['http_method']} {p['http_query']}")
    if who == "missing":
        out.properties["http_status"] = "404"
        out.properties["http_headers"] = json.dumps([["Set-Cookie", "a=1"], ["Set-Cookie", "b=2"]])
    if who == "json":
        return {"who": who}
    if who == "evil":
        out.properties["http_headers"] = json.dumps([["X-A", "1\r\nX-B: 2"]])
    if who == "none":
        return None
    return out

def fails(message):
    raise ValueError("secret detail")
`

// httpAnswer is the response that a client got.
type httpAnswer struct {
	status int
	body   string
	header http.Header
}

func request(t *testing.T, method, url, body string, header ...string) httpAnswer {
	t.Helper()
	got, err := tryRequest(t, method, url, body, header...)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func tryRequest(t *testing.T, method, url, body string, header ...string) (httpAnswer, error) {
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		return httpAnswer{}, err
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(r)
	if err != nil {
		return httpAnswer{}, err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	return httpAnswer{res.StatusCode, string(text), res.Header}, err
}

var listening = regexp.MustCompile(`url=(http://127\.0\.0\.1:\d+)/`)

// HTTP functions in Python, Go and as a command, through the whole daemon.
func TestHTTPFunctions(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"drover.yaml": httpFunctions, "app/function_app.py": helloApp})
	file := filepath.Join(dir, "drover.yaml")
	ran, revoked, release := make(chan string, 10), make(chan error, 1), make(chan struct{})
	funcs := handlers.Funcs{
		"price": func(ctx context.Context, m *triggers.Message) ([]byte, error) {
			var params struct{ Article string }
			if err := json.Unmarshal([]byte(m.Property(triggers.HTTPParams)), &params); err != nil {
				return nil, err
			}
			switch params.Article {
			case "0":
				ran <- "waits"
				<-ctx.Done()
				revoked <- context.Cause(ctx)
				return nil, ctx.Err()
			case "1":
				ran <- "holds"
				<-release
			}
			handlers.Respond(ctx, http.StatusAccepted, [2]string{"Location", "/price/" + params.Article}, [2]string{"Content-Type", "application/json"})
			return []byte(`{"cents": 100}`), nil
		},
		"nightly": func(_ context.Context, m *triggers.Message) ([]byte, error) {
			ran <- string(m.Body)
			return nil, nil
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	out, ended := newPrinted(), make(chan int, 1)
	go func() {
		ended <- Command(ctx, []string{"run", file}, &IO{In: strings.NewReader(""), Out: out, Err: out, Env: os.LookupEnv, Environ: os.Environ, Funcs: funcs})
	}()
	defer cancel()
	out.WaitFor(t, "msg=running")
	at := listening.FindStringSubmatch(out.String())
	if at == nil {
		t.Fatal(out)
	}
	url := at[1]
	if got := request(t, "GET", url+"/", ""); got.status != 200 {
		t.Errorf("%+v", got)
	}
	for _, c := range []struct {
		method, path, body string
		status             int
		want, kind         string
	}{
		{"GET", "/api/hello/Ada?x=1&code=2", "", 200, "hello Ada from GET x=1&code=2", "text/plain; charset=utf-8"},
		{"POST", "/API/Hello", "Bob", 200, "hello Bob from POST ", "text/plain; charset=utf-8"},
		{"GET", "/api/hello/missing", "", 404, "hello missing from GET ", "text/plain; charset=utf-8"},
		{"GET", "/api/hello/json", "", 200, `{"who":"json"}`, "application/json"},
		{"GET", "/api/hello/none", "", 204, "", ""},
		{"GET", "/api/hello/evil", "", 500, "the function failed\n", "text/plain; charset=utf-8"},
		{"PUT", "/api/hello", "", 405, "this route has the methods GET, POST\n", "text/plain; charset=utf-8"},
		{"GET", "/hello", "", 404, "no function has this route\n", "text/plain; charset=utf-8"},
		{"GET", "/api/fails", "", 500, "the function failed\n", "text/plain; charset=utf-8"},
		{"GET", "/api/price/17", "", 202, `{"cents": 100}`, "application/json"},
		{"GET", "/api/price/x", "", 404, "no function has this route\n", "text/plain; charset=utf-8"},
		{"POST", "/api/upper", "shout", 200, "POST\nSHOUT", "text/plain; charset=utf-8"},
	} {
		got := request(t, c.method, url+c.path, c.body)
		if got.status != c.status || got.body != c.want || got.header.Get("Content-Type") != c.kind {
			t.Errorf("%s %s: %d %q %s", c.method, c.path, got.status, got.body, got.header.Get("Content-Type"))
		}
		if c.path == "/api/hello/missing" && fmt.Sprint(got.header.Values("Set-Cookie")) != "[a=1 b=2]" || c.path == "/api/price/17" && got.header.Get("Location") != "/price/17" {
			t.Errorf("%s: %v", c.path, got.header)
		}
	}
	out.WaitFor(t, "secret detail") // in the log
	out.WaitFor(t, "line break")

	// The client disconnects: the function is cancelled.
	short, hangUp := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(short, "GET", url+"/api/price/0", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() {
		res, err := http.DefaultClient.Do(r)
		if err == nil {
			_ = res.Body.Close()
		}
		gone <- err
	}()
	<-ran
	hangUp()
	if cause := <-revoked; cause == nil || !strings.Contains(cause.Error(), "lost") {
		t.Error(cause)
	}
	<-gone

	// Any function runs by its name.
	if got := request(t, "POST", url+"/admin/functions/nightly", `{"input": "now"}`); got.status != 202 {
		t.Errorf("%+v", got)
	}
	if body := <-ran; body != "now" {
		t.Errorf("nightly ran with %q", body)
	}
	if got := request(t, "POST", url+"/admin/functions/Nightly", `{}`); got.status != 202 {
		t.Errorf("%+v", got)
	}
	if body := <-ran; !strings.Contains(body, "IsPastDue") {
		t.Errorf("nightly ran with %q", body)
	}

	// Commands.
	run := func(args ...string) string {
		t.Helper()
		status, text, errs := command(t.Context(), funcs, nil, append(args, "-c", file)...)
		if status != ExitOK {
			t.Errorf("%v: status %d: %s%s", args, status, text, errs)
		}
		return text
	}
	run("pause", "hello")
	if got := request(t, "GET", url+"/api/hello/x", ""); got.status != 503 || got.header.Get("Retry-After") == "" {
		t.Errorf("while paused: %+v", got)
	}
	run("resume", "hello")
	if got := request(t, "GET", url+"/api/hello/x", ""); got.status != 200 {
		t.Errorf("after the pause: %+v", got)
	}
	if text := run("explain", "price"); !strings.Contains(text, "requests are answered at "+url+"/api/price/{article:int}") {
		t.Error(text)
	}
	if text := run("invoke", "hello", "--body", "me", "-P", "http_method=PATCH"); text != "hello me from PATCH \n" && text != "hello me from PATCH " {
		t.Errorf("%q", text)
	}
	if status, _, errs := command(t.Context(), funcs, nil, "capture", "hello", "-c", file); status == ExitOK || !strings.Contains(errs, "whose requests wait only in the daemon") {
		t.Errorf("status %d, %s", status, errs)
	}
	if _, _, errs := command(t.Context(), funcs, nil, "invoke", "hello", "-c", file, "--body", "x"); !strings.Contains(errs, "would go to the client, as the response") {
		t.Error(errs)
	}
	if status, _, errs := command(t.Context(), funcs, nil, "send", "hello", "-c", file, "--body", "x"); status == ExitOK || !strings.Contains(errs, "curl -X GET http://127.0.0.1:0/api/hello/{name?}") {
		t.Errorf("status %d, %s", status, errs)
	}

	// A stop finishes the request in flight.
	last := make(chan httpAnswer, 1)
	go func() {
		got, err := tryRequest(t, "GET", url+"/api/price/1", "")
		if err != nil {
			got.body = err.Error()
		}
		last <- got
	}()
	<-ran
	cancel()
	out.WaitFor(t, "receiving has ended")
	close(release)
	if got := <-last; got.status != 202 || got.body != `{"cents": 100}` {
		t.Errorf("during the stop: %+v", got)
	}
	if status := <-ended; status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
	if _, err := tryRequest(t, "GET", url+"/", ""); err == nil {
		t.Error("it listens after the stop")
	}
}

// streamingFunctions answer in parts, and by whole web apps.
const streamingFunctions = `
log: {format: text, level: debug}
http: {listen: "127.0.0.1:0"}
functions:
  made: {trigger: {http: {auth: anonymous}}, handler: {python: {path: app}}}
  large: {trigger: {http: {auth: anonymous}}, handler: {python: {path: app}}}
  progress: {trigger: {http: {auth: anonymous}}, handler: {python: {path: app}}}
  cut: {trigger: {http: {auth: anonymous}}, handler: {python: {path: app}}}
  web: {trigger: {http: {route: "web/{*path}", auth: anonymous}}, handler: {python: {path: app}}}
`

const streamingApp = `
import asyncio
import drover

sent = 0

def made(message):
    return drover.Response({"made": True}, status=201, headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])

async def large(message):
    global sent
    try:
        for sent in range(1, 1025):
            yield b"x" * 262144
    finally:
        print("the generator has ended after", sent)

async def progress(message):
    return sent

async def cut(message):
    yield "first"
    raise ValueError("in the middle")

async def web(scope, receive, send):
    assert scope["type"] == "http", scope
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 203, "headers": [(b"x-path", scope["path"].encode()), (b"x-method", scope["method"].encode())]})
    await send({"type": "http.response.body", "body": b"<" + body, "more_body": True})
    await send({"type": "http.response.body", "body": b">"})
`

// Responses in parts. A client that reads slowly slows the function down, and no process holds the
// response.
func TestHTTPStreams(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"drover.yaml": streamingFunctions, "app/function_app.py": streamingApp})
	out, stop := startCommand(t, "run", filepath.Join(dir, "drover.yaml"))
	out.WaitFor(t, "msg=running")
	url := listening.FindStringSubmatch(out.String())[1]
	if got := request(t, "POST", url+"/made", ""); got.status != 201 || got.body != `{"made":true}` || got.header.Get("Content-Type") != "application/json" || len(got.header.Values("Set-Cookie")) != 2 {
		t.Errorf("%+v", got)
	}
	if got := request(t, "PUT", url+"/web/a/b?x=1", "body"); got.status != 203 || got.body != "<body>" || got.header.Get("X-Path") != "/web/a/b" || got.header.Get("X-Method") != "PUT" {
		t.Errorf("%+v", got)
	}
	if _, err := tryRequest(t, "GET", url+"/cut", ""); err == nil {
		t.Error("a response that is cut short looks whole")
	}
	out.WaitFor(t, "in the middle")

	get := func() *http.Response {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), "GET", url+"/large", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	slow := get()
	if _, err := io.ReadFull(slow.Body, make([]byte, 1)); err != nil {
		t.Fatal(err, out)
	}
	// 256 MiB would take a second. The buffers of the sockets, the worker and the daemon hold only a few MiB.
	last := 0
	for range 50 {
		got := request(t, "GET", url+"/progress", "")
		n, err := strconv.Atoi(got.body)
		if err != nil || n > 256 {
			t.Fatalf("%d parts are sent to a client that reads nothing: %+v, %v", n, got, err)
		}
		last = n
	}
	n, err := io.Copy(io.Discard, slow.Body)
	if err != nil || n != 1024<<18-1 {
		t.Errorf("%d bytes came, %v; %d parts were sent before", n, err, last)
	}
	_ = slow.Body.Close()
	out.WaitFor(t, "the generator has ended after 1024")

	// A client that disconnects ends the generator.
	gone := get()
	if _, err := io.ReadFull(gone.Body, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	_ = gone.Body.Close()
	until(t, out, "the generator ends", func() bool { return strings.Count(out.String(), "the generator has ended after") == 2 })
	if status := stop(); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}

// Keys are files of the host, and appear in no log.
func TestHTTPKeys(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{
		"secrets/host.json": `{"masterKey": {"name": "master", "value": "the-master-key-1", "encrypted": false}, "functionKeys": []}`,
		"secrets/echo.json": `{"keys": [{"name": "default", "value": "the-echo-key-12345", "encrypted": false}]}`,
		"key":               "the-key-of-a-file-1",
		"drover.yaml": `
log: {format: text, level: debug}
http: {listen: "127.0.0.1:0", keys: {directory: secrets, all: "file:key"}}
functions:
  echo:
    trigger: {http: {}}
    handler: {exec: {command: [sh, -c, 'echo "$$DROVER_PROPERTY_HTTP_URL $$DROVER_ATTRIBUTES"']}}
`})
	out, stop := startCommand(t, "run", filepath.Join(dir, "drover.yaml"))
	out.WaitFor(t, "msg=running")
	url := listening.FindStringSubmatch(out.String())[1]
	for key, status := range map[string]int{"": 401, "wrong-key": 401, "the-echo-key-12345": 200, "the-master-key-1": 200, "the-key-of-a-file-1": 200} {
		for _, got := range []httpAnswer{request(t, "GET", url+"/echo?a=1&code="+key, ""), request(t, "GET", url+"/echo?a=1", "", "x-functions-key", key)} {
			if got.status != status || key != "" && strings.Contains(got.body, key) {
				t.Errorf("%q: %+v", key, got)
			}
		}
	}
	if status := stop(); status != ExitOK {
		t.Errorf("status %d", status)
	}
	for _, key := range []string{"the-echo-key-12345", "the-master-key-1", "the-key-of-a-file-1"} {
		if strings.Contains(out.String(), key) {
			t.Errorf("the log has the key %s", key)
		}
	}
}

// A reload changes a route while requests run, and refuses what does not open.
func TestHTTPReload(t *testing.T) {
	t.Parallel()
	config := func(route string) string {
		return fmt.Sprintf(`
log: {format: text}
http: {listen: "127.0.0.1:0"}
functions:
  a:
    trigger: {http: {route: %s, auth: anonymous}}
    handler: {exec: {command: [echo, one]}}
  b:
    trigger: {http: {auth: anonymous}}
    handler: {exec: {command: [echo, two]}}
`, route)
	}
	dir := write(t, map[string]string{"drover.yaml": config("first")})
	file := filepath.Join(dir, "drover.yaml")
	out, stop := startCommand(t, "run", file)
	out.WaitFor(t, "msg=running")
	url := listening.FindStringSubmatch(out.String())[1]
	reload := func(text string) (status int, errs string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		status, _, errs = command(t.Context(), nil, nil, "reload", "-c", file)
		return status, errs
	}
	if status, errs := reload(config("second")); status != ExitOK {
		t.Fatal(errs)
	}
	for path, want := range map[string]int{"/first": 404, "/second": 200, "/b": 200} {
		if got := request(t, "GET", url+path, ""); got.status != want {
			t.Errorf("%s: %+v", path, got)
		}
	}
	if status, errs := reload(config("b")); status == ExitOK || !strings.Contains(errs, "function a has the same route") {
		t.Errorf("status %d, %s", status, errs)
	}
	broken := strings.Replace(config("third"), "[echo, one]", "[no-such-command-here]", 1)
	if status, errs := reload(broken); status == ExitOK {
		t.Errorf("a command that is missing: %s", errs)
	}
	if got := request(t, "GET", url+"/second", ""); got.status != 200 {
		t.Errorf("after reloads that were refused: %+v", got)
	}
	if status, errs := reload(strings.Replace(config("second"), "listen: \"127.0.0.1:0\"", "listen: \"127.0.0.1:0\", prefix: v2", 1)); status != ExitOK {
		t.Fatal(errs)
	}
	if got := request(t, "GET", url+"/v2/second", ""); got.status != 200 || got.body != "one\n" {
		t.Errorf("with a prefix: %+v", got)
	}
	if status := stop(); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}

// Several instances share a port. One that is killed is replaced, and a second daemon is refused.
func TestHTTPOfInstances(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	text := fmt.Sprintf(`
log: {format: text}
http: {listen: %q}
scale: {instances: {min: 2, max: 2}}
functions:
  who:
    trigger: {http: {auth: anonymous}}
    handler: {exec: {command: [sh, -c, 'echo $$PPID']}}
`, port)
	dir := write(t, map[string]string{"drover.yaml": text})
	cmd, out, ended := child(t, "run", filepath.Join(dir, "drover.yaml"))
	until(t, out, "two instances answer", func() bool {
		return len(pids(t, out)) == 2 && strings.Count(out.String(), "listening for requests") == 2
	})
	other := write(t, map[string]string{"drover.yaml": strings.Replace(text, "scale: {instances: {min: 2, max: 2}}", "", 1)})
	if status, _, errs := command(t.Context(), nil, nil, "run", filepath.Join(other, "drover.yaml")); status == ExitOK || !strings.Contains(errs, "another program does") {
		t.Errorf("a second daemon: status %d, %s", status, errs)
	}
	url := "http://" + port + "/who"
	answered := 0
	until(t, out, "requests are answered", func() bool {
		got, err := tryRequest(t, "GET", url, "")
		if err == nil && got.status == 200 {
			answered++
		}
		return answered > 10
	})
	if err := syscall.Kill(pids(t, out)[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, out, "the instance is replaced", func() bool { return strings.Count(out.String(), "listening for requests") == 3 })
	if got := request(t, "GET", url, ""); got.status != 200 {
		t.Errorf("%+v", got)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := waitFor(t, ended, out); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}

// A start reports the address, and whether keys are needed.
func TestHTTPStarts(t *testing.T) {
	t.Parallel()
	taken, stop := startCommand(t, "run", filepath.Join(write(t, map[string]string{"drover.yaml": `
log: {format: text}
http: {listen: "127.0.0.1:0"}
functions: {f: {trigger: {http: {}}, handler: {exec: {command: [cat]}}}}
`}), "drover.yaml"))
	taken.WaitFor(t, "msg=running")
	taken.WaitFor(t, "requests need no key")
	url := listening.FindStringSubmatch(taken.String())[1]
	file := filepath.Join(write(t, map[string]string{"drover.yaml": fmt.Sprintf(`
http: {listen: %q}
functions: {f: {trigger: {http: {}}, handler: {exec: {command: [cat]}}}}
`, strings.TrimPrefix(url, "http://"))}), "drover.yaml")
	status, _, errs := command(t.Context(), nil, nil, "run", file)
	if status == ExitOK || !strings.Contains(errs, "another program does; set http.listen to another port") {
		t.Errorf("an address in use: status %d, %s", status, errs)
	}
	stop()
	open := filepath.Join(write(t, map[string]string{"drover.yaml": `
http: {listen: ":0"}
functions: {f: {trigger: {http: {}}, handler: {exec: {command: [cat]}}}}
`}), "drover.yaml")
	status, text, errs := command(t.Context(), nil, nil, "check", open)
	if status != ExitOK || !strings.Contains(text+errs, "openssl rand -hex 32") {
		t.Errorf("check of an open address without keys: status %d, %s%s", status, text, errs)
	}
	lost := filepath.Join(write(t, map[string]string{"drover.yaml": `
http: {keys: {directory: nowhere}}
functions: {f: {trigger: {http: {}}, handler: {exec: {command: [cat]}}}}
`}), "drover.yaml")
	if status, _, errs := command(t.Context(), nil, nil, "run", lost); status == ExitOK || !strings.Contains(errs, "does not exist") {
		t.Errorf("a directory of keys that is missing: status %d, %s", status, errs)
	}
}
