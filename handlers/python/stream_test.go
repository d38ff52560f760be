package python

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
)

// client is the context of a call whose sender waits: it receives the result's properties, and the
// parts of the result.
type client struct {
	context.Context
	properties triggers.Properties
	parts      []string
	size       atomic.Int64
	streamed   bool
	closed     bool
	write      func(part []byte) error // replaces the default, which stores the parts
}

func (c *client) Describe(properties triggers.Properties) { c.properties = properties }

func (c *client) ReplyStream(_ context.Context, properties triggers.Properties) (io.WriteCloser, error) {
	c.streamed, c.properties = true, properties
	return c, nil
}

func (c *client) Write(part []byte) (int, error) {
	c.size.Add(int64(len(part)))
	if c.write != nil {
		return len(part), c.write(part)
	}
	c.parts = append(c.parts, string(part))
	return len(part), nil
}

func (c *client) Close() error {
	c.closed = true
	return nil
}

// ask calls a function like an HTTP trigger.
func ask(t testing.TB, p *workers.Pool, function string, m *triggers.Message) (*client, string, error) {
	t.Helper()
	c := &client{Context: soon(t)}
	output, err := c.ask(t, p, function, m)
	return c, output, err
}

func (c *client) ask(t testing.TB, p *workers.Pool, function string, m *triggers.Message) (string, error) {
	t.Helper()
	output, err := handle(c, handler(t, p, function), m)
	return strings.Join(c.parts, "") + string(output), err
}

// runModes are ways of running sync functions, each as a change of the settings.
var runModes = map[string]func(*workers.Config){
	"main thread": func(c *workers.Config) { c.Settings.Threads = 1 },
	"threads":     func(c *workers.Config) { c.Settings.Threads = 4 },
}

// replying makes all functions answer HTTP requests.
func replying(change func(*workers.Config)) func(*workers.Config) {
	return func(c *workers.Config) {
		change(c)
		for i := range c.Functions {
			c.Functions[i].Reply = true
		}
	}
}

func TestResponses(t *testing.T) {
	t.Parallel()
	expressions := []struct {
		expression string
		want       triggers.Properties
		body       string
	}{
		{`"käse"`, triggers.Properties{"content_type": "text/plain; charset=utf-8"}, "käse"},
		{`b"\xff"`, triggers.Properties{"content_type": "application/octet-stream"}, "\xff"},
		{`b""`, triggers.Properties{"content_type": "application/octet-stream"}, ""},
		{`b"abc"`, triggers.Properties{"content_type": "application/octet-stream"}, "abc"},
		{`drover.Response(b"abc", 201)`, triggers.Properties{"http_status": "201", "content_type": "application/octet-stream"}, "abc"},
		{`{"a": 1}`, triggers.Properties{"content_type": "application/json"}, `{"a":1}`},
		{`drover.Response()`, triggers.Properties{"http_status": "200"}, ""},
		{`drover.Response("x", 404)`, triggers.Properties{"http_status": "404", "content_type": "text/plain; charset=utf-8"}, "x"},
		{`drover.Response([1], content_type="a/b")`, triggers.Properties{"http_status": "200", "content_type": "a/b"}, "[1]"},
		{`drover.Response("<b>", headers={"content-type": "text/html", "X-A": "1"})`, triggers.Properties{"http_status": "200", "content_type": "text/html", "http_headers": `[["X-A", "1"]]`}, "<b>"},
		{`drover.Response(None, 302, [("Location", "/x"), ("Set-Cookie", "a"), ("Set-Cookie", "b")])`, triggers.Properties{"http_status": "302", "http_headers": `[["Location", "/x"], ["Set-Cookie", "a"], ["Set-Cookie", "b"]]`}, ""},
	}
	source, names := "import drover\n", []string{}
	for i, e := range expressions {
		source += fmt.Sprintf("def f%d(body): return %s\n", i, e.expression)
		names = append(names, fmt.Sprint("f", i))
	}
	p := startApp(t, source, replying(runModes["main thread"]), names...)
	for i, e := range expressions {
		c, body, err := ask(t, p, names[i], &triggers.Message{})
		if err != nil || body != e.body || !maps.Equal(c.properties, e.want) {
			t.Errorf("%s: %q, %v, %v", e.expression, body, c.properties, err)
		}
	}
}

// A response that could inject a header, or is not a response, is a clear error.
func TestWrongResponses(t *testing.T) {
	t.Parallel()
	for expression, want := range map[string]string{
		`drover.Response("", 99)`:                                   "the status of a Response is 99; it must be an int from 200 to 599",
		`drover.Response("", "200")`:                                "the status of a Response is '200'",
		`drover.Response("", headers={"X": "a\r\nSet-Cookie: b"})`:  "the header X of a Response has a control character, such as a line break, in its value",
		`drover.Response("", headers={"X: y\n": "a"})`:              `cannot have the header 'X: y\n'`,
		`drover.Response("", headers={"X": 1})`:                     "the header X of a Response is int; it must be a str",
		`drover.Response("", content_type="a\0")`:                   "the header Content-Type of a Response has a control character",
		`drover.Response(iter([{}]))`:                               "a part of a response is a dict; it must be bytes or str",
		`drover.Response(iter([b""]), headers={"X": "a" * 200000})`: "the maximum is 131072",
	} {
		p := startApp(t, "import drover\ndef f(body): return "+expression+"\n", replying(runModes["main thread"]), "f")
		if c, _, err := ask(t, p, "f", &triggers.Message{}); err == nil || !strings.Contains(err.Error(), want) || c.streamed {
			t.Errorf("%s: %v, want %q", expression, err, want)
		}
	}
}

const streams = `
import asyncio, drover, io
def generator(body):
    yield "one"
    yield b"two"
async def async_generator(body):
    yield "one"
    await asyncio.sleep(0)
    yield b"two"
def generator_body(body):
    return drover.Response((part for part in ("one", "two")), 201, {"X-A": "1"}, "a/b")
def async_body(body):
    async def parts():
        yield "one"
        await asyncio.sleep(0)
        yield "two"
    return drover.Response(parts(), 201, {"X-A": "1"}, "a/b")
async def sync_body_of_async(body): return generator_body(body)
async def async_body_of_async(body): return async_body(body)
def file(body): return drover.Response(io.BytesIO(b"onetwo"))
async def file_of_async(body): return file(body)
def nothing(body): return drover.Response(iter(()), 201, {"X-A": "1"}, "a/b")
async def nothing_async(body):
    for _ in (): yield
def large(body):
    for _ in range(int(body)): yield b"x" * 100_000
async def large_async(body):
    for _ in range(int(body)): yield b"x" * 100_000
`

func TestStreams(t *testing.T) {
	t.Parallel()
	text := triggers.Properties{"http_status": "200", "content_type": "text/plain; charset=utf-8"}
	own := triggers.Properties{"http_status": "201", "content_type": "a/b", "http_headers": `[["X-A","1"]]`}
	binary := triggers.Properties{"http_status": "200", "content_type": "application/octet-stream"}
	for mode, change := range runModes {
		for _, test := range []struct {
			function string
			want     triggers.Properties
			body     string
			isWhole  bool
		}{
			{"generator", text, "onetwo", false}, {"async_generator", text, "onetwo", false},
			{"generator_body", own, "onetwo", false}, {"async_body", own, "onetwo", false},
			{"sync_body_of_async", own, "onetwo", false}, {"async_body_of_async", own, "onetwo", false},
			{"file", binary, "onetwo", false}, {"file_of_async", binary, "onetwo", false},
			{"nothing", triggers.Properties{"http_status": "201", "content_type": "a/b", "http_headers": `[["X-A", "1"]]`}, "", true},
			{"nothing_async", triggers.Properties{"http_status": "200"}, "", true},
			{"large", binary, strings.Repeat("x", 3_000_000), false}, {"large_async", binary, strings.Repeat("x", 3_000_000), false},
		} {
			t.Run(mode+"/"+test.function, func(t *testing.T) {
				t.Parallel()
				p := startApp(t, streams, replying(change), test.function)
				for range 2 {
					c, body, err := ask(t, p, test.function, &triggers.Message{Body: []byte("30")})
					if err != nil || body != test.body || c.streamed == test.isWhole || !maps.Equal(c.properties, test.want) {
						t.Errorf("%d bytes, %v, %v", len(body), c.properties, err)
					}
				}
				// A sender that needs the result as a whole gets it so.
				if output, err := call(t, p, test.function, &triggers.Message{Body: []byte("30")}); err != nil || string(output) != test.body {
					t.Errorf("%d bytes, %v", len(output), err)
				}
			})
		}
	}
}

// A generator is not a valid result of a function without an HTTP trigger.
func TestAGeneratorWithoutARequest(t *testing.T) {
	t.Parallel()
	p := startApp(t, streams, nil, "generator_body")
	if _, err := call(t, p, "generator_body", &triggers.Message{}); !handlers.Rejected(err) || !strings.Contains(err.Error(), "a generator, whose code has not run") {
		t.Error(err)
	}
}

// While the client reads slowly, the function waits: no side stores 200 MiB.
func TestAStreamIsNotStored(t *testing.T) {
	t.Parallel()
	const whole, piece = 200 << 20, 100_000
	for function, source := range map[string]string{
		"sync":              "def f(body):\n    for _ in range(int(body)):\n        count(); yield PIECE\n",
		"async":             "async def f(body):\n    for _ in range(int(body)):\n        count(); yield PIECE\n",
		"iterator of async": "async def f(body):\n    def parts():\n        for _ in range(int(body)):\n            count(); yield PIECE\n    return drover.Response(parts())\n",
	} {
		t.Run(function, func(t *testing.T) {
			t.Parallel()
			p := startApp(t, fmt.Sprintf(`
import drover
PIECE, made = b"x" * %d, 0
def count():
    global made
    made += len(PIECE)
async def produced(body): return str(made)
`, piece)+source, replying(runModes["threads"]), "f", "produced")
			c := &client{Context: soon(t)}
			next, looks := int64(1), 0
			c.write = func([]byte) error {
				size := c.size.Load()
				if size < next {
					return nil
				}
				next = size + 20<<20
				looks++
				// Another call of the same worker, while this one waits.
				text, err := call(t, p, "produced", &triggers.Message{})
				if err != nil {
					return err
				}
				made, err := strconv.ParseInt(string(text), 10, 64)
				if most := size + 256<<10 + 2*piece; err != nil || made > most {
					return fmt.Errorf("the function has made %d bytes, but the client has read %d (%w)", made, size, err)
				}
				return nil
			}
			pieces := (whole + piece - 1) / piece
			if _, err := c.ask(t, p, "f", &triggers.Message{Body: []byte(strconv.Itoa(pieces))}); err != nil || c.size.Load() != int64(pieces*piece) || looks < 10 {
				t.Errorf("%d bytes of %d, %d looks, %v", c.size.Load(), pieces*piece, looks, err)
			}
		})
	}
}

// A failure after the first part is an error with its traceback, and the response does not look
// complete. An earlier failure is an ordinary one.
func TestAStreamFails(t *testing.T) {
	t.Parallel()
	for mode, change := range runModes {
		p := startApp(t, `
def f(body):
    if body == b"early": raise ValueError("at once")
    yield "one"
    raise ValueError("midway")
async def g(body):
    if body == b"early": raise ValueError("at once")
    yield "one"
    raise ValueError("midway")
`, replying(change), "f", "g")
		for _, function := range []string{"f", "g"} {
			c, body, err := ask(t, p, function, &triggers.Message{})
			var failure *handlers.Failure
			if !errors.As(err, &failure) || failure.Summary != "ValueError: midway" || !strings.Contains(failure.Detail, `raise ValueError("midway")`) || body != "one" || c.closed {
				t.Errorf("%s, %s: %q, %v, closed: %v", mode, function, body, err, c.closed)
			}
			if c, _, err := ask(t, p, function, &triggers.Message{Body: []byte("early")}); err == nil || err.Error() != "ValueError: at once" || c.streamed {
				t.Errorf("%s, %s: %v", mode, function, err)
			}
		}
	}
}

// A client that disconnects ends the function: its generator is closed, and the worker continues.
func TestAStreamWithoutAClient(t *testing.T) {
	t.Parallel()
	for mode, change := range runModes {
		for _, function := range []string{"f", "g"} {
			t.Run(mode+"/"+function, func(t *testing.T) {
				t.Parallel()
				p := startApp(t, mark+`
import asyncio, os
def f(body):
    try:
        while True: yield b"x" * 1000
    finally:
        mark(body)
async def g(body):
    try:
        yield b"x"
        await asyncio.sleep(1000)
    finally:
        mark(body)
def pid(body): return str(os.getpid())
`, replying(change), function, "pid")
				_, before, err := ask(t, p, "pid", &triggers.Message{})
				if err != nil {
					t.Fatal(err)
				}
				c := &client{Context: soon(t), write: func([]byte) error { return errors.New("the client is gone") }}
				path := filepath.Join(t.TempDir(), "closed")
				if _, err := c.ask(t, p, function, &triggers.Message{Body: []byte(path)}); !errors.Is(err, handlers.ErrNotTried) || c.closed {
					t.Errorf("%v, closed: %v", err, c.closed)
				}
				begun(t, path)
				if _, after, err := ask(t, p, "pid", &triggers.Message{}); err != nil || after != before {
					t.Errorf("worker %s, and then %s, %v", before, after, err)
				}
			})
		}
	}
}

// A worker that dies in the middle of a response does not run the call again.
func TestAWorkerDiesDuringAStream(t *testing.T) {
	t.Parallel()
	p := startApp(t, `
import os
def f(body):
    with open(body, "a") as f: f.write("x")
    yield "one"
    os._exit(3)
`, replying(runModes["main thread"]), "f")
	path := filepath.Join(t.TempDir(), "runs")
	c, body, err := ask(t, p, "f", &triggers.Message{ID: "m", Body: []byte(path)})
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || errors.Is(err, handlers.ErrNotTried) || body != "one" || c.closed {
		t.Errorf("%q, %v, closed: %v", body, err, c.closed)
	}
	if runs, err := os.ReadFile(path); err != nil || string(runs) != "x" {
		t.Errorf("%q, %v", runs, err)
	}
}

// sendingClient also receives the messages to named outputs.
type sendingClient struct {
	*client
	sent []string
}

func (s *sendingClient) Send(output string, body []byte, _ triggers.Properties) error {
	s.sent = append(s.sent, output+" "+string(body))
	return nil
}

// A function sends to its named outputs and answers in parts. The dispatcher ends the response when
// the outputs have accepted the messages.
func TestAStreamWithOutputs(t *testing.T) {
	t.Parallel()
	p := startApp(t, `
import drover
def parts():
    yield "one"
    yield "two"
def f(body): return drover.Outputs(jobs=["a", "b"], result=drover.Response(parts(), 202))
async def g(body): return drover.Outputs(jobs=["a", "b"], result=parts())
def empty(body): return drover.Outputs(jobs="a", result=drover.Response(iter(()), 202))
`, func(c *workers.Config) {
		replying(runModes["threads"])(c)
		for i := range c.Functions {
			c.Functions[i].Outputs = []string{"jobs"}
		}
	}, "f", "g", "empty")
	for function, want := range map[string]struct{ sent, body, status string }{
		"f": {"[jobs a jobs b]", "onetwo", "202"}, "g": {"[jobs a jobs b]", "onetwo", "200"}, "empty": {"[jobs a]", "", "202"},
	} {
		c := &sendingClient{client: &client{Context: soon(t)}}
		output, err := handle(c, handler(t, p, function), &triggers.Message{})
		body := strings.Join(c.parts, "") + string(output)
		if err != nil || body != want.body || c.properties["http_status"] != want.status || fmt.Sprint(c.sent) != want.sent || c.closed {
			t.Errorf("%s: %q, %v, %v, closed: %v, %v", function, body, c.properties, c.sent, c.closed, err)
		}
	}
}
