package python

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
)

// Any exception that a function raises ends its call, and nothing else.
func TestWhateverAFunctionRaises(t *testing.T) {
	t.Parallel()
	const source = `
import asyncio, sys, drover
class Mute(Exception):
    def __str__(self): raise RuntimeError("no text")
class Rude(Exception):
    def __str__(self): raise SystemExit
class Masked(Exception):
    __class__ = property(lambda self: 1 / 0)
def chained(n):
    error = None
    for i in range(n):
        try:
            try:
                if error is not None: raise error
            finally: raise ValueError(f"number {i}")
        except ValueError as e: error = e
    raise error
def deep(n): return deep(n - 1) if n else 1 / 0
def raises(body):
    kind = body.decode()
    if kind == "mute": raise Mute
    if kind == "as a message": return body.text()
    if kind == "no method": return body.txt()
    if kind == "rude": raise Rude
    if kind == "masked": raise Masked("masked")
    if kind == "long": raise ValueError("x" * (20 << 20))
    if kind == "long rejection": raise drover.Reject("y" * (20 << 20))
    if kind == "chained": chained(500)
    if kind == "deep":
        sys.setrecursionlimit(9000)
        deep(5000)
    if kind == "exit": sys.exit("with text")
    if kind == "interrupt": raise KeyboardInterrupt
    if kind == "generator": raise GeneratorExit
    if kind == "cancelled": raise asyncio.CancelledError("by itself")
    if kind == "timeout": raise drover.Timeout
    if kind == "odd delay":
        error = drover.Retry("busy", after=1)
        error.after = object()
        raise error
    if kind in ("nan", "-1", "1e9"):
        error = drover.Retry("busy", after=1)
        error.after = float(kind)
        raise error
    return "fine"
async def araises(body): return raises(body)
`
	cases := map[string]string{
		"as a message": "AttributeError: 'bytes' object has no attribute 'text'; the function gets the body as bytes: name its parameter message, or annotate it drover.Message, to get the message",
		"no method":    "AttributeError: 'bytes' object has no attribute 'txt'",
		"mute":         "Mute: its text raised RuntimeError", "rude": "Rude: its text raised SystemExit", "masked": "Masked", "long": "ValueError: xxxxx",
		"long rejection": "yyyyy", "chained": "ValueError: number 499", "deep": "ZeroDivisionError", "exit": "SystemExit: with text",
		"interrupt": "KeyboardInterrupt", "generator": "GeneratorExit", "cancelled": "CancelledError: by itself", "timeout": "Timeout: the time for this attempt is up",
		"odd delay": "Retry, whose text cannot be read", "nan": "Retry: busy (after is nan; it is from 0 to 2592000 seconds)",
		"-1": "(after is -1.0; it is", "1e9": "(after is 1000000000.0; it is",
	}
	for _, mode := range []struct {
		name, function string
		threads        int
	}{{"inline", "raises", 1}, {"threads", "raises", 2}, {"async", "araises", 1}} {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			p := startApp(t, source, func(c *workers.Config) { c.Settings.Threads = mode.threads }, mode.function)
			pid := p.Stats().PIDs[0]
			for kind, want := range cases {
				_, err := call(t, p, mode.function, &triggers.Message{Body: []byte(kind)})
				var failure *handlers.Failure
				if !errors.As(err, &failure) || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %.200v; want %q", kind, err, want)
				} else if size := len(failure.Summary) + len(failure.Detail); size > 1<<20 {
					t.Errorf("%s: an error of %d bytes", kind, size)
				}
				if handlers.Rejected(err) != (kind == "long rejection") {
					t.Errorf("%s: rejected is %v", kind, handlers.Rejected(err))
				}
			}
			if got, err := call(t, p, mode.function, &triggers.Message{}); err != nil || string(got) != "fine" {
				t.Errorf("the call after them: %s, %v", got, err)
			}
			if s := p.Stats(); len(s.Restarts) != 0 || s.PIDs[0] != pid {
				t.Errorf("it cost the worker: %+v", s)
			}
		})
	}
}

// asyncio lets SystemExit and KeyboardInterrupt of a task end the running loop, which all calls
// share here.
func TestTasksOfAnAsyncFunctionDoNotEndTheLoop(t *testing.T) {
	t.Parallel()
	log := newLines()
	p := startApp(t, `
import asyncio, sys
async def raising(error): raise error
async def f(body):
    kind = body.decode()
    loop = asyncio.get_running_loop()
    if kind == "awaited exit": await asyncio.create_task(raising(SystemExit(3)))
    if kind == "awaited interrupt": await asyncio.create_task(raising(KeyboardInterrupt()))
    if kind == "forgotten exit":
        loop.create_task(raising(SystemExit(3)))
        await asyncio.sleep(0)
    if kind == "callback":
        loop.call_soon(sys.exit)
        await asyncio.sleep(0.01)
    if kind == "stop":
        loop.stop()
        await asyncio.sleep(0.01)
    if kind == "neighbour":
        neighbour.set()
        await go.wait()
    if kind == "go": go.set()
    if kind == "meet": await neighbour.wait()
    return "fine"
neighbour, go = asyncio.Event(), asyncio.Event()
`, func(c *workers.Config) { c.Log = slog.New(slog.NewTextHandler(log, nil)) }, "f")
	pid := p.Stats().PIDs[0]
	f := func(kind string) string {
		got, err := call(t, p, "f", &triggers.Message{Body: []byte(kind)})
		if err != nil {
			return err.Error()
		}
		return string(got)
	}
	beside := make(chan string, 1)
	go func() { beside <- f("neighbour") }()
	for _, c := range [][2]string{
		{"meet", "fine"}, {"awaited exit", "SystemExit: 3"}, {"awaited interrupt", "KeyboardInterrupt"}, {"forgotten exit", "fine"},
		{"callback", "fine"}, {"stop", "fine"}, {"go", "fine"},
	} {
		if got := f(c[0]); got != c[1] {
			t.Errorf("%s: %s; want %s", c[0], got, c[1])
		}
	}
	if got := <-beside; got != "fine" {
		t.Errorf("the call beside them: %s", got)
	}
	if s := p.Stats(); len(s.Restarts) != 0 || s.PIDs[0] != pid {
		t.Errorf("it cost the worker: %+v", s)
	}
	log.wait(t, "level=WARN", "SystemExit was raised in a task or a callback", "the worker continues")
	log.wait(t, "level=WARN", "the event loop was stopped", "the worker continues")
}

func TestAnAsyncFunctionThatCancelsAllTasks(t *testing.T) {
	t.Parallel()
	p := startApp(t, hold+`
async def f(body):
    if body == b"0":
        for task in asyncio.all_tasks(): task.cancel()
    return "fine"
`, nil, "hold", "f")
	pid := p.Stats().PIDs[0]
	for i, output := range atOnce(t, p, "f", 20) {
		if output != "fine" && !strings.Contains(output, "CancelledError") {
			t.Errorf("call %d: %s", i, output)
		}
	}
	if got, err := call(t, p, "f", &triggers.Message{}); err != nil || string(got) != "fine" {
		t.Errorf("the call after it: %s, %v", got, err)
	}
	if s := p.Stats(); len(s.Restarts) != 0 || s.PIDs[0] != pid {
		t.Errorf("it cost the worker: %+v", s)
	}
}

func TestMemoryThatRunsOutFailsTheCall(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("it needs /proc to know how much is used")
	}
	for _, mode := range []struct {
		name, prefix string
		threads      int
	}{{"inline", "", 1}, {"threads", "", 2}, {"async", "async ", 1}} {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			p := startApp(t, fmt.Sprintf(`
import resource
%sdef f(body):
    if body == b"much":
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
        try: return len(bytearray(1 << 30))
        finally: resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return "fine"
`, mode.prefix), func(c *workers.Config) { c.Settings.Threads = mode.threads }, "f")
			pid := p.Stats().PIDs[0]
			if _, err := call(t, p, "f", &triggers.Message{Body: []byte("much")}); err == nil || !strings.Contains(err.Error(), "MemoryError") {
				t.Errorf("%v; want a MemoryError", err)
			}
			if got, err := call(t, p, "f", &triggers.Message{}); err != nil || string(got) != "fine" || p.Stats().PIDs[0] != pid {
				t.Errorf("the call after it: %s, %v, %+v", got, err, p.Stats())
			}
		})
	}
}
