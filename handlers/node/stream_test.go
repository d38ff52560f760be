package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
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
	output, err := handle(c, t, p, function, m)
	return strings.Join(c.parts, "") + string(output), err
}

// replying makes all functions answer HTTP requests.
func replying(c *workers.Config) {
	for i := range c.Functions {
		c.Functions[i].Reply = true
	}
}

func TestResponses(t *testing.T) {
	t.Parallel()
	needNode(t)
	expressions := []struct {
		expression string
		want       triggers.Properties
		body       string
	}{
		{`'käse'`, triggers.Properties{"content_type": "text/plain; charset=utf-8"}, "käse"},
		{`Buffer.from([255])`, triggers.Properties{"content_type": "application/octet-stream"}, "\xff"},
		{`Buffer.alloc(0)`, triggers.Properties{"content_type": "application/octet-stream"}, ""},
		{`Buffer.from("abc")`, triggers.Properties{"content_type": "application/octet-stream"}, "abc"},
		{`new Response(Buffer.from("abc"), {status: 201})`, triggers.Properties{"http_status": "201", "content_type": "application/octet-stream"}, "abc"},
		{`({ a: 1 })`, triggers.Properties{"content_type": "application/json"}, `{"a":1}`},
		{`new Response()`, triggers.Properties{"http_status": "200", "content_type": "text/plain; charset=utf-8"}, ""},
		{`new Response('x', { status: 404 })`, triggers.Properties{"http_status": "404", "content_type": "text/plain; charset=utf-8"}, "x"},
		{`new Response([1], { contentType: 'a/b' })`, triggers.Properties{"http_status": "200", "content_type": "a/b"}, "[1]"},
		{`new Response('<b>', { headers: { 'content-type': 'text/html', 'X-A': '1' } })`, triggers.Properties{"http_status": "200", "content_type": "text/html", "http_headers": `[["X-A","1"]]`}, "<b>"},
		{`new Response('<b>', { headers: new Headers({ 'X-A': '1' }) })`, triggers.Properties{"http_status": "200", "content_type": "text/plain; charset=utf-8", "http_headers": `[["x-a","1"]]`}, "<b>"},
		{`new Response(null, { status: 302, headers: [['Location', '/x'], ['Set-Cookie', 'a'], ['Set-Cookie', 'b']] })`, triggers.Properties{"http_status": "302", "http_headers": `[["Location","/x"],["Set-Cookie","a"],["Set-Cookie","b"]]`}, ""},
	}
	source, names := "const { Response } = require('drover');\n", []string{}
	for i, e := range expressions {
		source += fmt.Sprintf("exports.f%d = () => %s;\n", i, e.expression)
		names = append(names, fmt.Sprint("f", i))
	}
	p := startApp(t, files{"index.js": source}, replying, names...)
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
	needNode(t)
	expressions := map[string]string{
		`new Response('', { status: 99 })`:                                 "the status of a Response is 99; it must be an integer from 200 to 599",
		`new Response('', { status: '200' })`:                              "the status of a Response is 200; it must be an integer",
		`new Response('', { headers: { X: 'a\r\nSet-Cookie: b' } })`:       "the header X of a Response has a control character, such as a line break, in its value",
		`new Response('', { headers: { 'X: y\n': 'a' } })`:                 `a Response cannot have the header "X: y\n"`,
		`new Response('', { headers: { X: 1 } })`:                          "the header X of a Response is of the type number; it must be a string",
		`new Response('', { contentType: 'a\0' })`:                         "the header Content-Type of a Response has a control character",
		`new Response([{}].values())`:                                      "a part of a response is an Object; it must be a string",
		`new Response([''].values(), { headers: { X: 'a'.repeat(2e5) } })`: "the maximum is 131072",
	}
	source, names := "const { Response } = require('drover');\n", []string{}
	for expression := range expressions {
		source += fmt.Sprintf("exports.f%d = () => %s;\n", len(names), expression)
		names = append(names, fmt.Sprint("f", len(names)))
	}
	p := startApp(t, files{"index.js": source}, replying, names...)
	for i, line := range strings.Split(strings.TrimSpace(source), "\n")[1:] {
		_, expression, _ := strings.Cut(strings.TrimSuffix(line, ";"), "=> ")
		if c, _, err := ask(t, p, names[i], &triggers.Message{}); err == nil || !strings.Contains(err.Error(), expressions[expression]) || c.streamed {
			t.Errorf("%s: %v, want %q", expression, err, expressions[expression])
		}
	}
}

const streams = mark + `
const { Readable } = require('node:stream');
const { Outputs, Response } = require('drover');
const own = { status: 201, headers: { 'X-A': '1' }, contentType: 'a/b' };
exports.generator = function* () { yield 'one'; yield Buffer.from('two'); };
exports.async_generator = async function* () { yield 'one'; await sleep(1); yield Buffer.from('two'); };
exports.body = () => new Response(exports.generator(), own);
exports.async_body = async () => new Response(exports.async_generator(), own);
exports.readable_stream = () => new Response(new ReadableStream({
  start(controller) { controller.enqueue('one'); controller.enqueue(new Uint8Array([116, 119, 111])); controller.close(); },
}), own);
exports.readable = () => new Response(Readable.from(['one', 'two']), own);
exports.fetched = async () => new globalThis.Response('onetwo', { status: 201, headers: { 'X-A': '1', 'Content-Type': 'a/b' } });
exports.nothing = () => new Response([].values(), own);
exports.large = function* (message) { for (let n = Number(message.text()); n > 0; n--) yield Buffer.alloc(100_000, 'x'); };
let made = 0;
exports.counted = async function* (message) {
  for (let n = Number(message.text()); n > 0; n--) { made += 100_000; yield Buffer.alloc(100_000, 'x'); }
};
exports.produced = async () => String(made);
exports.fails = async function* (message) {
  if (message.text() === 'early') throw new Error('at once');
  yield 'one';
  throw new Error('midway');
};
exports.endless = async function* (message) {
  try {
    for (;;) { yield Buffer.alloc(1000); await sleep(1); }
  } finally {
    mark(message);
  }
};
exports.waits = async function* (message, { signal }) {
  signal.addEventListener('abort', () => mark(message));
  yield 'one';
  await new Promise(() => {});
};
exports.pid = async () => String(process.pid);
`

func TestStreams(t *testing.T) {
	t.Parallel()
	needNode(t)
	text := triggers.Properties{"http_status": "200", "content_type": "text/plain; charset=utf-8"}
	own := triggers.Properties{"http_status": "201", "content_type": "a/b", "http_headers": `[["X-A","1"]]`}
	p := startApp(t, files{"index.js": streams}, replying, "generator", "async_generator", "body", "async_body", "readable_stream", "readable", "fetched", "nothing", "large")
	for _, test := range []struct {
		function string
		want     triggers.Properties
		body     string
		isWhole  bool
	}{
		{"generator", text, "onetwo", false}, {"async_generator", text, "onetwo", false}, {"body", own, "onetwo", false}, {"async_body", own, "onetwo", false},
		{"readable_stream", own, "onetwo", false}, {"readable", own, "onetwo", false},
		{"fetched", triggers.Properties{"http_status": "201", "content_type": "a/b", "http_headers": `[["x-a","1"]]`}, "onetwo", false},
		{"nothing", own, "", true},
		{"large", triggers.Properties{"http_status": "200", "content_type": "application/octet-stream"}, strings.Repeat("x", 3_000_000), false},
	} {
		for range 2 {
			c, body, err := ask(t, p, test.function, &triggers.Message{Body: []byte("30")})
			if err != nil || body != test.body || c.streamed == test.isWhole || !maps.Equal(c.properties, test.want) {
				t.Errorf("%s: %d bytes, %v, %v", test.function, len(body), c.properties, err)
			}
		}
		// A sender that needs the result as a whole gets it so.
		if output, err := call(t, p, test.function, &triggers.Message{Body: []byte("30")}); err != nil || string(output) != test.body {
			t.Errorf("%s: %d bytes, %v", test.function, len(output), err)
		}
	}
}

// While the client reads slowly, the function waits: no side stores 200 MiB.
func TestAStreamIsNotStored(t *testing.T) {
	t.Parallel()
	needNode(t)
	const whole, piece = 200 << 20, 100_000
	p := startApp(t, files{"index.js": streams}, replying, "counted", "produced")
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
	if _, err := c.ask(t, p, "counted", &triggers.Message{Body: []byte(strconv.Itoa(pieces))}); err != nil || c.size.Load() != int64(pieces*piece) || looks < 10 {
		t.Errorf("%d bytes of %d, %d looks, %v", c.size.Load(), pieces*piece, looks, err)
	}
}

// A failure after the first part is an error with its stack, and the response does not look
// complete. An earlier failure is an ordinary one.
func TestAStreamFails(t *testing.T) {
	t.Parallel()
	needNode(t)
	p := startApp(t, files{"index.js": streams}, replying, "fails")
	c, body, err := ask(t, p, "fails", &triggers.Message{})
	var failure *handlers.Failure
	if !errors.As(err, &failure) || failure.Summary != "Error: midway" || !strings.Contains(failure.Detail, "index.js:") || body != "one" || c.closed {
		t.Errorf("%q, %v, closed: %v", body, err, c.closed)
	}
	if c, _, err := ask(t, p, "fails", &triggers.Message{Body: []byte("early")}); err == nil || err.Error() != "Error: at once" || c.streamed {
		t.Error(err)
	}
}

// A client that disconnects ends the function: its generator is closed, its signal fires, and the
// worker continues.
func TestAStreamWithoutAClient(t *testing.T) {
	t.Parallel()
	needNode(t)
	p := startApp(t, files{"index.js": streams}, replying, "endless", "waits", "pid")
	_, before, err := ask(t, p, "pid", &triggers.Message{})
	if err != nil {
		t.Fatal(err)
	}
	for _, function := range []string{"endless", "waits"} {
		c := &client{Context: soon(t), write: func([]byte) error { return errors.New("the client is gone") }}
		path := filepath.Join(t.TempDir(), "closed")
		if _, err := c.ask(t, p, function, &triggers.Message{Body: []byte(path)}); !errors.Is(err, handlers.ErrNotTried) || c.closed {
			t.Errorf("%s: %v, closed: %v", function, err, c.closed)
		}
		begun(t, path)
	}
	if _, after, err := ask(t, p, "pid", &triggers.Message{}); err != nil || after != before {
		t.Errorf("worker %s, and then %s, %v", before, after, err)
	}
}

// A generator is not a valid result of a function without an HTTP trigger.
func TestAGeneratorWithoutARequest(t *testing.T) {
	t.Parallel()
	needNode(t)
	p := startApp(t, files{"index.js": streams}, nil, "body")
	if _, err := call(t, p, "body", &triggers.Message{}); !handlers.Rejected(err) {
		t.Error(err)
	}
}
