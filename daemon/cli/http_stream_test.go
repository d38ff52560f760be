package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const streamApp = `
import asyncio
import drover

released, made, ended = asyncio.Event(), 0, 0

async def events(message):
    yield "one\n"
    await released.wait()
    yield "two\n"

async def release(message):
    released.set()

async def large(message):
    global made, ended
    try:
        while True:
            made += 100_000
            yield b"x" * 100_000
            if made == 210_000_000: return
    finally:
        ended += 1

async def state(message): return {"made": made, "ended": ended}

async def half(message):
    yield "one\n"
    raise ValueError("midway")

def sync(message):
    yield "one\n"
    yield "two\n"

async def web(scope, receive, send):
    if scope["type"] != "http": raise NotImplementedError
    await send({"type": "http.response.start", "status": 202, "headers": [(b"x-path", scope["raw_path"]), (b"set-cookie", b"a"), (b"set-cookie", b"b")]})
    await send({"type": "http.response.body", "body": scope["query_string"]})
    await released.wait()  # in the background
`

// streamConfig returns a configuration with the functions of streamApp, in one worker.
func streamConfig() string {
	text := `
log: {format: text, level: debug}
http: {listen: "127.0.0.1:0"}
apps:
  app: {path: app, processes: 1, threads: 4}
functions:
  web:
    trigger: {http: {route: "web/{*path}", auth: anonymous}}
    handler: {python: {app: app}}
`
	for _, name := range []string{"events", "release", "large", "state", "half", "sync"} {
		text += fmt.Sprintf("  %s:\n    trigger: {http: {auth: anonymous}}\n    handler: {python: {app: app}}\n", name)
	}
	return text
}

// Responses that are sent in parts reach a client in parts, through the whole daemon.
func TestResponsesInParts(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"drover.yaml": streamConfig(), "app/function_app.py": streamApp})
	file := filepath.Join(dir, "drover.yaml")
	out, stop := startCommand(t, "run", file)
	out.WaitFor(t, "msg=running")
	url := listening.FindStringSubmatch(out.String())[1]

	// The client has the first part before the function makes the second one. A background task of
	// an ASGI app does not delay its response.
	res := openStream(t, t.Context(), url+"/events")
	lines := bufio.NewReader(res.Body)
	if line, err := lines.ReadString('\n'); line != "one\n" || err != nil || res.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("%q, %v, %v", line, err, res.Header)
	}
	got := request(t, "GET", url+"/web/a%2Fb?c=d", "")
	if got.status != 202 || got.body != "c=d" || got.header.Get("X-Path") != "/web/a%2Fb" || fmt.Sprint(got.header.Values("Set-Cookie")) != "[a b]" {
		t.Errorf("%+v", got)
	}
	if got := request(t, "GET", url+"/release", ""); got.status != 204 {
		t.Errorf("%+v", got)
	}
	if rest, err := io.ReadAll(lines); string(rest) != "two\n" || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
	_ = res.Body.Close()
	if got := request(t, "GET", url+"/sync", ""); got.status != 200 || got.body != "one\ntwo\n" {
		t.Errorf("%+v", got)
	}

	// A function that fails in the middle: the client notices, and the log has the traceback.
	if got, err := tryRequest(t, "GET", url+"/half", ""); err == nil || got.body != "one\n" {
		t.Errorf("a response that is cut short looks complete: %+v", got)
	}
	out.WaitFor(t, `raise ValueError(\"midway\")`)

	// A client that reads slowly slows the function down, and nothing stores the body: 200 MiB, of
	// which the sockets take some.
	made := func() int {
		t.Helper()
		var n, ended int
		if _, err := fmt.Sscanf(request(t, "GET", url+"/state", "").body, `{"made":%d,"ended":%d}`, &n, &ended); err != nil {
			t.Error(err)
		}
		return n
	}
	res = openStream(t, t.Context(), url+"/large")
	const sockets = 64 << 20 // the kernel decides how much: up to tcp_rmem and tcp_wmem, 38 MiB by default
	size := 0
	part := make([]byte, 32<<10)
	for next := 1 << 20; ; {
		n, err := res.Body.Read(part)
		if size += n; err != nil {
			if err != io.EOF {
				t.Error(err)
			}
			break
		}
		if size >= next {
			next += 20 << 20
			if n := made(); n > size+sockets {
				t.Errorf("the function has made %d bytes, but the client has read %d", n, size)
			}
		}
	}
	if _ = res.Body.Close(); size != 210_000_000 {
		t.Errorf("%d bytes", size)
	}

	// A client that disconnects in the middle ends the function.
	ctx, hangUp := context.WithCancel(t.Context())
	res = openStream(t, ctx, url+"/large")
	hangUp()
	_ = res.Body.Close()
	until(t, out, "the generator is closed", func() bool { return strings.Contains(request(t, "GET", url+"/state", "").body, `"ended":2`) })

	// Where the result is needed as a whole, it is collected.
	if status, text, errs := command(t.Context(), nil, nil, "invoke", "sync", "-c", file, "--body", ""); status != ExitOK || strings.TrimSpace(text) != "one\ntwo" {
		t.Errorf("status %d: %q, %s", status, text, errs)
	}
	if status := stop(); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}

func openStream(t *testing.T, ctx context.Context, url string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, "GET", url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// The same in Node.js.
func TestResponsesInPartsOfNode(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("there is no node")
	}
	dir := write(t, map[string]string{"drover.yaml": `
log: {format: text, level: debug}
http: {listen: "127.0.0.1:0"}
functions:
  large:
    trigger: {http: {auth: anonymous}}
    handler: {node: {path: app}}
  half:
    trigger: {http: {auth: anonymous}}
    handler: {node: {path: app}}
`, "app/index.js": `
const { Response } = require('drover');
exports.large = async (message) => new Response((async function* () {
  for (let n = Number(message.properties.http_query); n > 0; n--) yield Buffer.alloc(1000, 'x');
})(), { status: 201, headers: [['Set-Cookie', 'a'], ['Set-Cookie', 'b']], contentType: 'a/b' });
exports.half = async function* () { yield 'one'; throw new Error('midway'); };
`})
	out, stop := startCommand(t, "run", filepath.Join(dir, "drover.yaml"))
	out.WaitFor(t, "msg=running")
	url := listening.FindStringSubmatch(out.String())[1]
	got := request(t, "GET", url+"/large?"+strconv.Itoa(5000), "")
	if got.status != 201 || len(got.body) != 5_000_000 || got.header.Get("Content-Type") != "a/b" || fmt.Sprint(got.header.Values("Set-Cookie")) != "[a b]" {
		t.Errorf("%d, %d bytes, %v", got.status, len(got.body), got.header)
	}
	if got, err := tryRequest(t, "GET", url+"/half", ""); err == nil || got.body != "one" {
		t.Errorf("a response that is cut short looks complete: %+v", got)
	}
	out.WaitFor(t, "Error: midway")
	if status := stop(); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}
