package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
)

func TestHowAWorkerEndsIsTold(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ code, want string }{
		"exits":               {"process.exit(17)", "exit status 17"},
		"exits with 0":        {"process.exit(0)", "exit status 0"},
		"exits later":         {"setTimeout(() => process.exit(18), 1); return sleep(60000)", "exit status 18"},
		"aborts":              {"process.abort()", "SIGABRT"},
		"out of memory":       {"const all = []; for (;;) all.push(new Array(1000).fill(all.length))", "SIGABRT: it exceeded the heap limit of Node.js (--max-old-space-size); "},
		"rubbish":             {"fs.writeSync(3, Buffer.alloc(64, 0xff)); return sleep(60000)", "a frame of type 255 of 4294967295 bytes"},
		"an unknown frame":    {"fs.writeSync(3, Buffer.from([1, 0, 0, 0, 40])); return sleep(60000)", "a frame of type 40"},
		"an unknown call":     {"fs.writeSync(3, Buffer.from([18, 0, 0, 0, 68, 99, ...Array(16).fill(0)])); return sleep(60000)", "an answer to invocation 99"},
		"closes its socket":   {"fs.closeSync(3); return sleep(60000)", "the worker process died"}, // it ends by itself, or is killed
		"half a frame":        {"fs.writeSync(3, Buffer.from([16, 0, 0, 0, 68])); process.exit(1)", "exit status 1"},
		"last words on error": {"fs.writeSync(2, 'out of cheese\\n'); process.exit(1)", "out of cheese"},
		"an error of no call": {"return outside.emit('fail')", "an uncaught exception outside of any call: Error: of nobody"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startApp(t, files{"index.js": mark + `
const { AsyncResource } = require('node:async_hooks');
const nobody = new AsyncResource('nobody');
const outside = { emit() { nobody.runInAsyncScope(() => setTimeout(() => { throw new Error('of nobody'); }, 1)); return sleep(60000); } };
exports.f = async () => { ` + test.code + " };\n"}, func(c *workers.Config) {
				c.Command.Args = append([]string{"--max-old-space-size=32"}, c.Command.Args...)
			}, "f")
			_, err := call(t, p, "f", &triggers.Message{})
			text := fmt.Sprint(err)
			var failure *handlers.Failure
			if errors.As(err, &failure) {
				text += failure.Detail
			}
			if !strings.Contains(text, test.want) {
				t.Errorf("%s; want %q in it", text, test.want)
			}
		})
	}
}

func TestErrorsThatNobodyCaughtFailTheirCall(t *testing.T) {
	t.Parallel()
	log := new(lines)
	p := startApp(t, files{"index.js": mark + `
const { EventEmitter } = require('node:events');
exports.timer = async () => { setTimeout(() => { throw new Error('in a timer'); }, 1); await sleep(60000); };
exports.emitter = () => new Promise(() => { setImmediate(() => new EventEmitter().emit('error', new Error('no listener'))); });
exports.rejection = async () => { Promise.reject(new Error('not handled')); await sleep(60000); };
exports.text = async () => { setImmediate(() => { throw 'text'; }); await sleep(60000); };
exports.signal = async (message, context) => {
  context.signal.addEventListener('abort', () => console.log('its signal fired'));
  setTimeout(() => { throw new Error('then the signal'); }, 1);
  await sleep(60000);
};
exports.neighbour = async (message) => { await sleep(50); return message.body; };
exports.late = async () => { setTimeout(() => Promise.reject(new Error('too late')), 5); };
`}, func(c *workers.Config) { c.Log = slog.New(slog.NewTextHandler(log, nil)) }, "timer", "emitter", "rejection", "text", "signal", "neighbour", "late")
	pid := p.Stats().PIDs[0]
	var all sync.WaitGroup
	for range 5 {
		for f, want := range map[string]string{
			"timer": "Error: in a timer", "emitter": "Error: no listener", "rejection": "Error: not handled", "text": "it threw a string: text", "signal": "then the signal",
		} {
			all.Go(func() {
				if _, err := call(t, p, f, &triggers.Message{}); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %v; want %s", f, err, want)
				}
			})
		}
		all.Go(func() {
			if got, err := call(t, p, "neighbour", &triggers.Message{Body: []byte("fine")}); err != nil || string(got) != "fine" {
				t.Errorf("the neighbour: %s, %v", got, err)
			}
		})
	}
	all.Wait()
	log.wait(t, `msg="its signal fired"`)
	if _, err := call(t, p, "late", &triggers.Message{}); err != nil {
		t.Error(err)
	}
	log.wait(t, "level=ERROR", "late: an unhandled rejection after the call had been answered: Error: too late", "is an await missing?")
	if s := p.Stats(); s.Ready != 1 || s.PIDs[0] != pid {
		t.Errorf("an error of a call cost the worker: %+v", s)
	}
}

func TestTheAppsOwnListenerDecides(t *testing.T) {
	t.Parallel()
	log := new(lines)
	p := startApp(t, files{"index.js": `
process.on('uncaughtException', (error) => console.log('the app saw %s', error.message));
setTimeout(() => { throw new Error('of nobody'); }, 1);
exports.f = () => 'fine';
`}, func(c *workers.Config) { c.Log = slog.New(slog.NewTextHandler(log, nil)) }, "f")
	log.wait(t, "the app saw of nobody")
	if got, err := call(t, p, "f", &triggers.Message{}); err != nil || string(got) != "fine" {
		t.Errorf("%s, %v", got, err)
	}
}

func TestTheCulpritIsToldFromItsNeighbours(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"", "async "} {
		t.Run(prefix+"function", func(t *testing.T) {
			t.Parallel()
			p := startApp(t, files{"index.js": "exports.f = " + prefix + "(message) => { if (message.text() === 'poison') process.exit(9); return message.body; };\n"}, nil, "f")
			var all sync.WaitGroup
			for i := range 30 {
				body := fmt.Sprint(i)
				if i == 20 {
					body = "poison"
				}
				all.Go(func() {
					got, err := call(t, p, "f", &triggers.Message{ID: body, Body: []byte(body)})
					switch {
					case body == "poison":
						if err == nil || !strings.Contains(err.Error(), "exit status 9") {
							t.Errorf("the culprit ended with %v", err)
						}
					case err != nil || string(got) != body:
						t.Errorf("innocent %s: %q, %v", body, got, err)
					}
				})
			}
			all.Wait()
		})
	}
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	timedOut := errors.New("its time is up")
	for _, test := range []struct {
		name, code string
		killed     bool
	}{
		{"its signal ends a wait", "async (message, context) => { mark(message); await require('node:timers/promises').setTimeout(60000, null, { signal: context.signal }); }", false},
		{"the signal is asked for late", "async (message, context) => { mark(message); while (!context.cancelled) await sleep(1); context.signal.throwIfAborted(); }", false},
		{"it succeeds all the same", "async (message, context) => { mark(message); while (!context.cancelled) await sleep(1); return 'done'; }", false},
		{"it does not listen", "async (message) => { mark(message); await sleep(60000); }", true},
		{"an endless loop", "(message) => { mark(message); for (;;); }", true},
		{"an endless loop of microtasks", "async (message) => { mark(message); for (;;) await null; }", true},
		{"it ignores SIGTERM", "(message) => { process.on('SIGTERM', () => {}); mark(message); for (;;) block(1000); }", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := startApp(t, files{"index.js": mark + "exports.f = " + test.code + ";\n"}, nil, "f")
			path := filepath.Join(t.TempDir(), "mark")
			ctx, cancel := context.WithCancelCause(t.Context())
			ended := make(chan error, 1)
			go func() {
				_, err := handle(ctx, t, p, "f", &triggers.Message{Body: []byte(path)})
				ended <- err
			}()
			pid := begun(t, path)
			cancel(timedOut)
			select {
			case err := <-ended:
				if succeeds := strings.Contains(test.code, "'done'"); !succeeds && !errors.Is(err, timedOut) || succeeds && err != nil {
					t.Errorf("%v; want the context's cause", err)
				}
			case <-time.After(patience):
				t.Fatal("Handle does not end")
			}
			if test.killed {
				gone(t, pid)
			} else if s := p.Stats(); s.Ready != 1 || s.PIDs[0] != pid {
				t.Errorf("the worker is gone: %+v", s)
			}
		})
	}
}

func TestACallThatWaitsIsNotTried(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"", "async "} {
		t.Run(prefix+"function", func(t *testing.T) {
			t.Parallel()
			p := startApp(t, files{"index.js": mark + "exports.f = " + prefix + `(message) => {
  if (message.text() === 'waits') throw new Error('it ran');
  mark(message);
  block(500);
};
`}, func(c *workers.Config) { c.KillGrace = patience }, "f")
			path := filepath.Join(t.TempDir(), "mark")
			first := make(chan error, 1)
			go func() {
				_, err := call(t, p, "f", &triggers.Message{Body: []byte(path)})
				first <- err
			}()
			begun(t, path)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := handle(ctx, t, p, "f", &triggers.Message{Body: []byte("waits")}); !errors.Is(err, handlers.ErrNotTried) {
				t.Errorf("%v; want not tried", err)
			}
			if err := <-first; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAnswersAndLinesDoNotWaitBehindALongCall(t *testing.T) {
	t.Parallel()
	log := new(lines)
	dir := t.TempDir()
	p := startApp(t, files{"index.js": mark + `
exports.f = (message) => {
  if (message.text() === 'short') return 'done';
  console.log('it says so');
  process.stdout.write('begun ');
  while (!fs.existsSync(message.text())) block(1);
};
`}, func(c *workers.Config) { c.Log = slog.New(slog.NewTextHandler(log, nil)) }, "f")
	h, err := p.HandlerOf("f")
	if err != nil {
		t.Fatal(err)
	}
	short, long := make(sink, 1), make(sink, 1)
	release := filepath.Join(dir, "release")
	// Both are sent before the first has begun.
	h.Start(soon(t), &triggers.Message{Body: []byte("short")}, short)
	h.Start(soon(t), &triggers.Message{ID: "long", Body: []byte(release)}, long)
	if a := <-short; a.err != nil || string(a.output) != "done" {
		t.Errorf("%s, %v", a.output, a.err)
	}
	log.wait(t, `msg="it says so"`, "message=long")
	select {
	case a := <-long:
		t.Errorf("the long call has ended: %v", a.err)
	default:
	}
	put(t, dir, files{"release": ""})
	if a := <-long; a.err != nil {
		t.Error(a.err)
	}
	log.wait(t, `msg="begun "`, "message=long")
}

func TestACallThatSaysVeryMuch(t *testing.T) {
	t.Parallel()
	log := new(lines)
	p := startApp(t, files{"index.js": `
exports.f = () => {
  for (let i = 0; i < 20_000; i++) console.log('line %d of very many, and each of some length', i);
  return String(process.memoryUsage().rss >> 20);
};
`}, func(c *workers.Config) { c.Log = slog.New(slog.NewTextHandler(log, nil)) }, "f")
	got, err := call(t, p, "f", &triggers.Message{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the worker has %s MiB", got)
	if n := strings.Count(log.String(), "of very many"); n != 20_000 {
		t.Errorf("%d lines of 20000", n)
	}
}

func TestLargeMessages(t *testing.T) {
	t.Parallel()
	p := startApp(t, files{"index.js": "exports.f = (message) => message.body;\n"}, nil, "f")
	page := make([]byte, 1<<20+1)
	for i := range page {
		page[i] = byte(i >> 12)
	}
	body := bytes.Repeat(page, 100)
	if got, err := call(t, p, "f", &triggers.Message{Body: body}); err != nil || !bytes.Equal(got, body) {
		t.Errorf("100 MiB came back as %d bytes, %v", len(got), err)
	}
	small := startApp(t, files{"index.js": "exports.g = () => Buffer.alloc(2 << 20);\n"}, func(c *workers.Config) { c.MaxFrame = 1 << 20 }, "g")
	if _, err := call(t, small, "g", &triggers.Message{}); err == nil || !strings.Contains(err.Error(), "returned 2097152 bytes, more than fit in a frame (1048576)") {
		t.Errorf("%v", err)
	}
	if _, err := call(t, small, "g", &triggers.Message{Body: body[:1<<20]}); !handlers.Rejected(err) {
		t.Errorf("%v", err)
	}
	if s := small.Stats(); s.Ready != 1 || len(s.Restarts) != 0 {
		t.Errorf("it cost the worker: %+v", s)
	}
}

func TestADrainFinishesWhatWasInvoked(t *testing.T) {
	t.Parallel()
	var h *workers.Handler
	answers := make(sink, 40)
	t.Run("pool", func(t *testing.T) {
		p := startApp(t, files{"index.js": mark + "exports.f = async (message) => { await sleep(300); return message.body; };\n"}, nil, "f")
		h, _ = p.HandlerOf("f")
		for range 40 {
			h.Start(context.Background(), &triggers.Message{Body: []byte("x")}, answers)
		}
	})
	for range 40 {
		if a := <-answers; a.err != nil || string(a.output) != "x" {
			t.Errorf("%s, %v", a.output, a.err)
		}
	}
}

func TestNoProcessIsLeft(t *testing.T) {
	t.Parallel()
	children := filepath.Join(t.TempDir(), "mark")
	var pids []int
	t.Run("pool", func(t *testing.T) {
		p := startApp(t, files{"index.js": mark + `
exports.f = (message) => {
  const child = require('node:child_process').spawn('sleep', ['60']);
  fs.writeFileSync(message.text() + '.new', String(child.pid));
  fs.renameSync(message.text() + '.new', message.text());
};
`}, func(c *workers.Config) { c.Settings.Processes = 2 }, "f")
		if _, err := call(t, p, "f", &triggers.Message{Body: []byte(children)}); err != nil {
			t.Fatal(err)
		}
		pids = p.Stats().PIDs
	})
	for _, pid := range append(pids, begun(t, children)) {
		gone(t, pid)
	}
}

func TestTheLoopsLagIsMeasured(t *testing.T) {
	t.Parallel()
	waits := make(chan time.Duration, 10_000)
	p := startApp(t, files{"index.js": mark + "exports.f = async () => { await sleep(10); block(250); await sleep(1200); };\n"}, func(c *workers.Config) {
		c.Lagged = func(wait time.Duration) { waits <- wait }
	}, "f")
	if _, err := call(t, p, "f", &triggers.Message{}); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(patience)
	for {
		select {
		case wait := <-waits:
			if wait >= 100*time.Millisecond {
				return
			}
		case <-deadline:
			t.Fatal("a loop that was blocked for 250 ms was never late")
		}
	}
}

// memorySession is a session without a source.
type memorySession struct{ state []byte }

func (s *memorySession) State(context.Context) ([]byte, error) { return s.state, nil }

func (s *memorySession) SetState(_ context.Context, state []byte) error {
	s.state = state
	return nil
}

func TestSessionState(t *testing.T) {
	t.Parallel()
	names := []string{"count", "acount", "fails", "clear", "wrong", "view"}
	p := startApp(t, files{"index.js": `
exports.count = (message, context) => {
  const before = context.sessionState;
  context.sessionState = Buffer.concat([before ?? Buffer.alloc(0), message.body]);
  return 'was ' + before;
};
exports.acount = async (message, context) => { await null; return exports.count(message, context); };
exports.fails = async (message, context) => { context.sessionState = Buffer.from('never kept'); throw new Error('no luck'); };
exports.clear = (message, context) => { context.sessionState = null; };
exports.wrong = (message, context) => { context.sessionState = 'text'; };
exports.view = (message, context) => { context.sessionState = new Uint8Array([]); };
`}, func(c *workers.Config) {
		for i := range c.Functions {
			c.Functions[i].SessionState = c.Functions[i].Name != "view"
		}
	}, names...)
	s := new(memorySession)
	run := func(function, body string) (string, error) {
		out, err := call(t, p, function, &triggers.Message{Body: []byte(body), OrderingKey: "k", Session: s})
		return string(out), err
	}
	for _, step := range []struct{ function, body, out, state string }{
		{"count", "one", "was null", "one"}, {"acount", "\x00two", "was one", "one\x00two"}, {"clear", "", "", ""}, {"acount", "x", "was null", "x"},
	} {
		if out, err := run(step.function, step.body); err != nil || out != step.out || string(s.state) != step.state {
			t.Errorf("%s: %q, %v; the state is %q", step.function, out, err, s.state)
		}
	}
	for function, want := range map[string]string{
		"fails": "no luck", "wrong": "a session's state is a Buffer, a Uint8Array or null", "view": "set session_state: true in the trigger",
	} {
		if _, err := run(function, "x"); err == nil || !strings.Contains(err.Error(), want) || string(s.state) != "x" {
			t.Errorf("%s: %v; the state is %q", function, err, s.state)
		}
	}
}
