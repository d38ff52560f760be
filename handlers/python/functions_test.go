package python

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
)

// patience bounds every wait for something that must happen.
const patience = 3 * time.Minute

func soon(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func call(t testing.TB, p *workers.Pool, function string, m *triggers.Message) ([]byte, error) {
	t.Helper()
	return handle(soon(t), handler(t, p, function), m)
}

const forms = `
import asyncio, drover
def body(body): return body
def message(message): return {"id": message.id, "attempt": message.attempt, "subject": message.subject, "key": message.ordering_key,
    "attributes": message.attributes, "text": message.text(), "enqueued": message.enqueued.isoformat()}
def annotated(m: drover.Message): return m.json()
def both(message, context): return f"{context.function} {0 < context.remaining() <= 180} {context.cancelled}"
def optional(body, more=1): return body
async def abody(body): return body
async def amessage(msg): await asyncio.sleep(0); return msg.text()
async def aboth(message, context): await asyncio.sleep(0); return context.function
`

var formNames = []string{"body", "message", "annotated", "both", "optional"}

// modes are the ways in which functions run.
var modes = []struct {
	name      string
	threads   int
	functions []string
}{
	{"inline", 1, formNames},
	{"threads", 4, formNames},
	{"loop", 1, []string{"abody", "amessage", "aboth"}},
	{"loop and threads", 2, append([]string{"abody", "amessage", "aboth"}, formNames...)},
}

func TestForms(t *testing.T) {
	t.Parallel()
	m := &triggers.Message{
		ID: "S:7", Body: []byte(`{"a": "käse"}`), Attempt: 3, Subject: "orders.new", OrderingKey: "k",
		Attributes: map[string]string{"x": "1", "é": "☃"}, Enqueued: time.UnixMicro(1_700_000_000_000_000),
	}
	want := map[string]string{
		"body": `{"a": "käse"}`, "optional": `{"a": "käse"}`, "annotated": `{"a":"k\u00e4se"}`, "both": "both True False",
		"message": `{"id":"S:7","attempt":3,"subject":"orders.new","key":"k","attributes":{"x":"1","\u00e9":"\u2603"},` +
			`"text":"{\"a\": \"k\u00e4se\"}","enqueued":"2023-11-14T22:13:20+00:00"}`,
		"abody": `{"a": "käse"}`, "amessage": `{"a": "käse"}`, "aboth": "aboth",
	}
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			p := startApp(t, forms, func(c *workers.Config) { c.Settings.Threads = mode.threads }, mode.functions...)
			for _, f := range mode.functions {
				got, err := call(t, p, f, m)
				if err != nil || string(got) != want[f] {
					t.Errorf("%s returned %s, %v; want %s", f, got, err, want[f])
				}
			}
		})
	}
}

func TestBodiesAndOutputs(t *testing.T) {
	t.Parallel()
	p := startApp(t, `
import drover
def echo(body): return body
def size(body): return len(body)
def none(body): return None
def text(body): return "ü"
def large(body): return b"x" * (3 << 20)
def view(body): return memoryview(bytearray(b"view"))
`, nil, "echo", "size", "none", "text", "large", "view")
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	for _, body := range [][]byte{nil, every, bytes.Repeat(every, 4096), bytes.Repeat(every, 80_000)} {
		got, err := call(t, p, "echo", &triggers.Message{Body: body})
		if err != nil || !bytes.Equal(got, body) {
			t.Errorf("%d bytes came back as %d, %v", len(body), len(got), err)
		}
	}
	for f, want := range map[string]string{"size": "3", "none": "", "text": "ü", "view": "view", "large": strings.Repeat("x", 3<<20)} {
		if got, err := call(t, p, f, &triggers.Message{Body: []byte("abc")}); err != nil || string(got) != want {
			t.Errorf("%s returned %d bytes, %v", f, len(got), err)
		}
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	const source = `
import drover, sys
def helper(): return {}["missing"]
def error(body): helper()
def reject(body): raise drover.Reject("no such customer")
def retry(body): raise drover.Retry("busy", after=2.5)
def again(body): raise drover.Retry("any time")
def unsendable(body): return object()
def nan(body): return float("nan")
def leave(body): sys.exit(3)
def interrupt(body): raise KeyboardInterrupt
def recursion(body): return recursion(body)
async def aerror(body): helper()
async def areject(body): raise drover.Reject("no")
async def aleave(body): sys.exit(3)
async def aunsendable(body): return [object()]
def ok(body): return "ok"
`
	sync := []string{"error", "reject", "retry", "again", "unsendable", "nan", "leave", "interrupt", "recursion", "ok"}
	async := []string{"aerror", "areject", "aleave", "aunsendable"}
	check := func(t *testing.T, p *workers.Pool, f string) {
		t.Helper()
		_, err := call(t, p, f, &triggers.Message{})
		text := fmt.Sprint(err)
		var failure *handlers.Failure
		if f != "ok" && !errors.As(err, &failure) {
			t.Fatalf("%s: %v; want a failure", f, err)
		}
		contains := map[string]string{
			"error": "KeyError: 'missing'", "aerror": "KeyError: 'missing'", "reject": "no such customer", "areject": "no", "retry": "busy", "again": "Retry: any time",
			"unsendable": "returned an object, which cannot be sent", "aunsendable": "returned a list with an object in it, which cannot be sent", "nan": "returned a float, which cannot be sent",
			"leave": "SystemExit: 3", "aleave": "SystemExit: 3", "interrupt": "KeyboardInterrupt", "recursion": "RecursionError", "ok": "<nil>",
		}
		if !strings.Contains(text, contains[f]) {
			t.Errorf("%s failed with %q, want %q in it", f, text, contains[f])
		}
		if handlers.Rejected(err) != (strings.HasSuffix(f, "reject") || strings.HasSuffix(f, "unsendable") || f == "nan") {
			t.Errorf("%s: rejected is %v", f, handlers.Rejected(err))
		}
		if delay, asked := handlers.RetryDelay(err); asked != (f == "retry") || asked && delay != 2500*time.Millisecond {
			t.Errorf("%s asks for %v, %v", f, delay, asked)
		}
		if strings.HasSuffix(f, "error") {
			for _, want := range []string{"function_app.py", "in helper", "Traceback"} {
				if !strings.Contains(failure.Detail, want) {
					t.Errorf("%s: the traceback lacks %q:\n%s", f, want, failure.Detail)
				}
			}
			if strings.Contains(failure.Detail, "drover/worker.py") {
				t.Errorf("%s: the traceback shows the worker:\n%s", f, failure.Detail)
			}
		}
	}
	for _, mode := range []struct {
		name      string
		threads   int
		functions []string
	}{{"inline", 1, sync}, {"threads", 3, sync}, {"loop", 2, append(async, sync...)}} {
		t.Run(mode.name, func(t *testing.T) {
			p := startApp(t, source, func(c *workers.Config) { c.Settings.Threads = mode.threads }, mode.functions...)
			pid := p.Stats().PIDs[0]
			for _, f := range mode.functions {
				check(t, p, f)
			}
			if s := p.Stats(); len(s.Restarts) != 0 || s.PIDs[0] != pid {
				t.Errorf("a failure cost the worker: %+v", s)
			}
		})
	}
}

func TestCodeThatDoesNotLoad(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		source, function string
		want             []string
	}{
		"no such package":          {"import nonexistent_pkg", "f", []string{"ModuleNotFoundError", "-m pip install nonexistent_pkg", "python"}},
		"syntax":                   {"def f(:", "f", []string{"SyntaxError"}},
		"import fails":             {"raise RuntimeError('boom')", "f", []string{"RuntimeError: boom", "function_app.py"}},
		"import exits":             {"import sys; sys.exit(1)", "f", []string{"SystemExit: 1"}},
		"import dies":              {"import os; os._exit(7)", "f", []string{"3 workers in a row ended while they loaded the code", "exit status 7"}},
		"no function":              {"def g(body): pass", "f", []string{"function_app has no function f; it has: g"}},
		"no function, but a value": {"f = 3", "f", []string{"function_app.f is not a function, but an int"}},
		"three parameters":         {"def f(a, b, c): pass", "f", []string{"f(a, b, c) cannot be called", "(message, context)"}},
		"no parameter":             {"def f(): pass", "f", []string{"f() cannot be called"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newApp(t, test.source, func(c *workers.Config) { c.Settings.Processes = 2 }, test.function)
			err := p.WaitReady(soon(t))
			var loadError *handlers.LoadError
			if !errors.As(err, &loadError) {
				t.Fatalf("Ready: %v", err)
			}
			for _, want := range test.want {
				if !strings.Contains(loadError.Summary+loadError.Detail, want) {
					t.Errorf("%q is not in\n%s\n%s", want, loadError.Summary, loadError.Detail)
				}
			}
			if _, err := call(t, p, test.function, &triggers.Message{}); !errors.As(err, &loadError) {
				t.Errorf("Handle: %v; want the load error", err)
			}
		})
	}
}

func TestAModuleThatIsNotThere(t *testing.T) {
	t.Parallel()
	p := newApp(t, "", func(c *workers.Config) { c.Functions[0].Module = "billing.jobs" }, "f")
	err := p.WaitReady(soon(t))
	if err == nil || !strings.Contains(err.Error(), "billing") || !strings.Contains(err.Error(), "is there a file billing/jobs.py") {
		t.Errorf("%v", err)
	}
}

func TestThreadsRunAtOnce(t *testing.T) {
	t.Parallel()
	p := startApp(t, `
import threading
barrier = threading.Barrier(3)
def f(body): barrier.wait(10)
`, func(c *workers.Config) { c.Settings.Threads = 3 }, "f")
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			if _, err := call(t, p, "f", &triggers.Message{}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// lines is a log that a test can wait for.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func newLines() *lines { return &lines{more: make(chan struct{}, 1)} }

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *lines) wait(t *testing.T, parts ...string) {
	t.Helper()
	if !l.has(patience, parts...) {
		t.Fatalf("no line with %q in\n%s", parts, l)
	}
}

// has reports whether some line contains all of the parts, within a time.
func (l *lines) has(within time.Duration, parts ...string) bool {
	deadline := time.After(within)
	for {
		for line := range strings.Lines(l.String()) {
			all := true
			for _, part := range parts {
				all = all && strings.Contains(line, part)
			}
			if all {
				return true
			}
		}
		select {
		case <-l.more:
		case <-deadline:
			return false
		}
	}
}

func TestWhatFunctionsSayIsLogged(t *testing.T) {
	t.Parallel()
	const source = `
import asyncio, logging, os, sys
def speak(body):
    print("printed", body.decode())
    print("to stderr", file=sys.stderr)
    sys.stdout.write("unfinished")
    logging.getLogger("shop").warning("logged %s", "so")
    logging.debug("not this")
    os.write(1, b"raw\n")
    os.write(2, b"raw error\n")
async def aspeak(body):
    await asyncio.sleep(0)
    print("async", body.decode())
`
	log := newLines()
	p := startApp(t, source, func(c *workers.Config) { c.Log = slog.New(slog.NewTextHandler(log, nil)) }, "speak", "aspeak")
	for _, f := range []string{"speak", "aspeak"} {
		if _, err := call(t, p, f, &triggers.Message{ID: "m-" + f, Body: []byte("hello")}); err != nil {
			t.Fatal(err)
		}
	}
	worker := fmt.Sprint("worker=", p.Stats().PIDs[0])
	log.wait(t, `msg="printed hello"`, "function=speak", "message=m-speak", "logger=stdout", worker)
	log.wait(t, `msg="to stderr"`, "logger=stderr", "message=m-speak")
	log.wait(t, "msg=unfinished", "message=m-speak")
	log.wait(t, "level=WARN", `msg="logged so"`, "logger=shop", "message=m-speak")
	log.wait(t, `msg=raw`, "stream=stdout", worker)
	log.wait(t, `msg="raw error"`, "stream=stderr", worker)
	log.wait(t, `msg="async hello"`, "function=aspeak", "message=m-aspeak")
	if strings.Contains(log.String(), "not this") {
		t.Error("a debug record is logged")
	}
}

// The app's own log level is logged as the nearest lower one of DEBUG, INFO, WARN and ERROR.
func TestLevelsOfTheAppsOwn(t *testing.T) {
	t.Parallel()
	log := newLines()
	p := startApp(t, `
import logging
logging.addLevelName(25, "NOTICE")
logging.addLevelName(30, "CAREFUL")
def speak(body):
    logger = logging.getLogger("shop")
    logger.setLevel(1)
    for level in 5, 15, 20, 25, 30, 39, 40, 50, 99:
        logger.log(level, "at %d", level)
`, func(c *workers.Config) {
		c.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}, "speak")
	if _, err := call(t, p, "speak", &triggers.Message{}); err != nil {
		t.Fatal(err)
	}
	for at, level := range map[int]slog.Level{
		5: slog.LevelDebug, 15: slog.LevelDebug, 20: slog.LevelInfo, 25: slog.LevelInfo, 30: slog.LevelWarn, 39: slog.LevelWarn,
		40: slog.LevelError, 50: slog.LevelError, 99: slog.LevelError,
	} {
		log.wait(t, "level="+level.String(), fmt.Sprintf(`msg="at %d"`, at))
	}
}

func TestFindAnInterpreter(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := func(name, output string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("#!/bin/sh\necho "+output+"\n"), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	env := func(pairs map[string]string) func(string) (string, bool) {
		return func(name string) (string, bool) { v, ok := pairs[name]; return v, ok }
	}
	old := script("old", "3.8.18", 0o700)
	newer := script("newer", "3.13.0", 0o700)
	venv := filepath.Dir(filepath.Dir(script("venv/bin/python", "3.11.0", 0o700)))
	app := filepath.Join(dir, "project", "app")
	beside := script("project/.venv/bin/python", "3.12.0", 0o700)
	onPath := filepath.Dir(script("bin/python3", "3.10.0", 0o700))
	plain := script("plain", "3.13.0", 0o600)
	for name, test := range map[string]struct {
		dir, named string
		env        map[string]string
		want       string // the path, or the error
	}{
		"named":             {app, newer, nil, newer},
		"VIRTUAL_ENV":       {app, "", map[string]string{"VIRTUAL_ENV": venv, "PATH": onPath}, venv + "/bin/python"},
		".venv":             {app, "", map[string]string{"PATH": onPath}, beside},
		"path":              {filepath.Join(dir, "a", "b"), "", map[string]string{"PATH": "/nowhere:" + onPath}, onPath + "/python3"},
		"too old":           {app, old, nil, "is Python 3.8.18; drover needs 3.9 or newer"},
		"none":              {filepath.Join(dir, "a", "b"), "", map[string]string{"PATH": "/nowhere"}, "there is no python3 on the path; install"},
		"not executable":    {app, plain, nil, "is not executable"},
		"not there":         {app, "/nowhere/python3", nil, "no such file"},
		"broken VIRTUALENV": {app, "", map[string]string{"VIRTUAL_ENV": "/nowhere"}, "VIRTUAL_ENV is /nowhere, which has no bin/python"},
		"no Python":         {app, script("noise", "hello", 0o700), nil, "is Python hello; drover needs"},
		"it fails":          {app, "/bin/false", nil, "does not run"},
	} {
		t.Run(name, func(t *testing.T) {
			i, err := FindInterpreter(t.Context(), test.dir, test.named, env(test.env))
			if i.Path != test.want && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("%v, %v; want %s", i, err, test.want)
			}
		})
	}
}

func TestInstallTwice(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := InstallWorker(dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := InstallWorker(dir)
	if err != nil || second != first {
		t.Errorf("%s, %v; want %s", second, err, first)
	}
	if _, err := os.Stat(filepath.Join(first, "drover", "__init__.py")); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "python-new-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// gone waits until a process has ended.
func gone(t *testing.T, pid int) {
	t.Helper()
	eventually(t, fmt.Sprintf("the end of process %d", pid), func() bool { return syscall.Kill(pid, 0) != nil })
}
