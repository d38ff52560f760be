package python

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

// A Timeout that arrives while its call ends must not hit later code or the worker itself:
// thousands of calls are cancelled at the moment when they end, followed by calls that are not.
func TestATimeoutHitsItsCallAlone(t *testing.T) {
	t.Parallel()
	const source = `
import sys, drover.frames
sys.setswitchinterval(1e-5)
drover.frames.WATCH = 1e-4  # looks for cancellations all the time
def count(n):
    i = 0
    while i < n: i += 1
    return i
def f(body):
    count(int.from_bytes(body[:4], "little"))
    return body
def raises(body):
    count(int.from_bytes(body[:4], "little"))
    raise ValueError("of the function's own")
`
	// The thread that cancels is held up between its look at what runs and the deed.
	const late = `
import signal, time
from drover.timeouts import ThreadInterrupter
def later(deed):
    def do(*args): time.sleep(0.0002); deed(*args)
    return do
signal.pthread_kill = later(signal.pthread_kill)
begin = ThreadInterrupter.__init__
def __init__(self): begin(self); self._set = later(self._set)
ThreadInterrupter.__init__ = __init__
`
	for _, interpreter := range everyInterpreter(t) {
		for _, mode := range []struct {
			name, source string
			threads      int
			rounds       uint64
		}{{"inline", source, 1, 300}, {"threads", source, 3, 300}, {"inline, late", source + late, 1, 100}, {"threads, late", source + late, 3, 100}} {
			t.Run(filepath.Base(filepath.Dir(filepath.Dir(interpreter)))+"/"+mode.name, func(t *testing.T) {
				t.Parallel()
				d := startDirect(t, interpreter, mode.source, mode.threads, "f", "raises")
				random := rand.New(rand.NewPCG(mode.rounds, uint64(mode.threads)))
				var done, failed, late, notTried int
				for serial := uint64(0); serial < mode.rounds || done == 0 || late == 0; serial++ {
					if serial > 100*mode.rounds {
						t.Fatalf("of those that were cancelled %d were done, %d timed out", done, late)
					}
					const batch = 8
					open := make(map[uint32][]byte)
					var invokes, cancels []byte
					for id := range uint32(batch) {
						body := make([]byte, 16)
						binary.LittleEndian.PutUint32(body, uint32(random.IntN(5000)))
						binary.LittleEndian.PutUint64(body[8:], serial*batch+uint64(id))
						open[id] = body
						invokes = protocol.AppendInvoke(invokes, &protocol.Invocation{ID: id, Function: uint16(id / 2 % 2), Message: &triggers.Message{Body: body}})
						if id%2 == 0 {
							cancels = protocol.AppendCancel(cancels, id)
						}
					}
					d.write(invokes)
					for start, wait := time.Now(), time.Duration(random.IntN(1000))*time.Microsecond; time.Since(start) < wait; {
					}
					d.write(cancels)
					for len(open) > 0 {
						r := d.result()
						body, is := open[r.ID]
						if !is {
							t.Fatalf("a second answer for %d: status %d, %q", r.ID, r.Status, r.Payload)
						}
						delete(open, r.ID)
						cancelled, raises := r.ID%2 == 0, r.ID/2%2 == 1
						switch {
						case r.Status == protocol.Done && !raises && bytes.Equal(r.Payload, body):
							if cancelled {
								done++
							}
						case r.Status == protocol.Failure && raises && strings.Contains(string(r.Payload), "of the function's own"):
							failed++
						case r.Status == protocol.Failure && cancelled && bytes.Contains(r.Payload, []byte("Timeout: ")):
							late++
						case r.Status == protocol.NotTried && cancelled:
							notTried++
						default:
							t.Fatalf("call %d, cancelled: %v: status %d, %q", r.ID, cancelled, r.Status, r.Payload)
						}
					}
				}
				t.Logf("of those that were cancelled %d were done, %d timed out, %d were not tried", done, late, notTried)
			})
		}
	}
}

// Ways in which a function can handle a Timeout, and the outcome of its call.
func TestWhatAFunctionDoesWithATimeout(t *testing.T) {
	t.Parallel()
	for _, way := range []struct {
		name, cancelled, wait string
		threads               int
	}{
		{"inline", "drover.Timeout", "time.sleep(60)", 1},
		{"threads", "drover.Timeout", "\n    while True: time.sleep(0.01)", 2},
		{"async", "asyncio.CancelledError", "await asyncio.sleep(60)", 1},
	} {
		for name, test := range map[string]struct {
			code, output string
			restarts     int
		}{
			"nothing":                         {"WAIT", "", 0},
			"retries in a loop":               {"while True:\n        try: WAIT\n        except Exception: pass", "", 0},
			"cleans up":                       {"try: WAIT\n    finally: open(path + '.clean', 'w').close()", "", 0},
			"returns a value":                 {"try: WAIT\n    except CANCELLED: return 'what there was'", "what there was", 0},
			"raises another":                  {"try: WAIT\n    except CANCELLED: raise ValueError('late')", "", 0},
			"rejects":                         {"try: WAIT\n    except CANCELLED: raise drover.Reject('late')", "", 0},
			"continues, and returns too late": {"while not os.path.exists(path + '.never'):\n        try: WAIT\n        except CANCELLED: pass", "", 1},
		} {
			t.Run(way.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				prefix, await := "", ""
				if way.name == "async" {
					prefix, await = "async ", "await "
				}
				code := strings.NewReplacer("WAIT", await+"wait()", "CANCELLED", way.cancelled).Replace(test.code)
				p := startApp(t, mark+"import drover\n"+prefix+"def wait(): "+way.wait+"\n"+prefix+"def f(body):\n    path = body.decode()\n    mark(body)\n    "+code+"\n",
					func(c *workers.Config) { c.Settings.Threads, c.KillGrace = way.threads, 2*time.Second }, "f")
				path := filepath.Join(t.TempDir(), "mark")
				ctx, cancel := context.WithCancelCause(soon(t))
				ended := make(chan answer, 1)
				go func() {
					output, err := handle(ctx, handler(t, p, "f"), &triggers.Message{Body: []byte(path)})
					ended <- answer{output, err}
				}()
				pid := begun(t, path)
				cancel(errTimedOut)
				got := <-ended
				if string(got.output) != test.output || (test.output == "") != errors.Is(got.err, errTimedOut) || handlers.Rejected(got.err) {
					t.Errorf("%s, %v", got.output, got.err)
				}
				var failure *handlers.Failure
				where := " in wait" // the function that waited, in the traceback
				switch {
				case name == "rejects":
					where = "late" // a rejection has none
				case test.restarts > 0:
					where = "a call of f did not end within 2s of its timeout"
				}
				if test.output == "" && (!errors.As(got.err, &failure) || !strings.Contains(failure.Detail, where)) {
					t.Errorf("its detail does not say %q: %+v", where, failure)
				}
				if _, err := os.Stat(path + ".clean"); (err == nil) != (name == "cleans up") {
					t.Errorf("it cleaned up: %v", err)
				}
				if test.restarts > 0 {
					gone(t, pid)
				} else if s := p.Stats(); s.Ready != 1 || s.PIDs[0] != pid {
					t.Errorf("it cost the worker: %+v", s)
				}
			})
		}
	}
}

// Two threads that wait for each other's lock cannot be interrupted, which does not affect other
// calls. A main thread that waits for a lock can be interrupted.
func TestDeadlocks(t *testing.T) {
	t.Parallel()
	const source = mark + `
import threading
a, b, own = threading.Lock(), threading.Lock(), threading.Lock()
both = threading.Barrier(2)
def f(body):
    path = body.decode()
    if path.endswith("-own"):
        with own:
            mark(body)
            own.acquire()
    first, second = (a, b) if path.endswith("-a") else (b, a)
    if path.endswith(("-a", "-b")):
        with first:
            both.wait()
            mark(body)
            with second: return "no deadlock"
    with own: return "fine"
`
	t.Run("threads", func(t *testing.T) {
		t.Parallel()
		p := startApp(t, source, func(c *workers.Config) { c.Settings.Threads = 3 }, "f")
		dir := t.TempDir()
		ctx, cancel := context.WithCancelCause(soon(t))
		var all sync.WaitGroup
		for _, which := range []string{"-a", "-b"} {
			all.Go(func() {
				if output, err := handle(ctx, handler(t, p, "f"), &triggers.Message{Body: []byte(dir + "/" + which)}); !errors.Is(err, errTimedOut) {
					t.Errorf("%s: %s, %v", which, output, err)
				}
			})
		}
		pid := begun(t, dir+"/-a")
		begun(t, dir+"/-b")
		if got, err := call(t, p, "f", &triggers.Message{}); err != nil || string(got) != "fine" {
			t.Errorf("another call of their worker: %s, %v", got, err)
		}
		cancel(errTimedOut)
		all.Wait()
		gone(t, pid)
		if got, err := call(t, p, "f", &triggers.Message{}); err != nil || string(got) != "fine" {
			t.Errorf("a call after them: %s, %v", got, err)
		}
	})
	t.Run("inline", func(t *testing.T) {
		t.Parallel()
		p := startApp(t, source, func(c *workers.Config) { c.KillGrace = patience }, "f")
		path := filepath.Join(t.TempDir(), "mark-own")
		ctx, cancel := context.WithCancelCause(soon(t))
		ended := make(chan error, 1)
		go func() {
			_, err := handle(ctx, handler(t, p, "f"), &triggers.Message{Body: []byte(path)})
			ended <- err
		}()
		pid := begun(t, path)
		cancel(errTimedOut)
		if err := <-ended; !errors.Is(err, errTimedOut) {
			t.Error(err)
		}
		if got, err := call(t, p, "f", &triggers.Message{}); err != nil || string(got) != "fine" || p.Stats().PIDs[0] != pid {
			t.Errorf("a call after it: %s, %v, %+v", got, err, p.Stats())
		}
	})
}

func TestACancelIsObeyedAfterDrain(t *testing.T) {
	t.Parallel()
	for _, way := range everyWay {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			sleep := map[string]string{"inline": "time.sleep(60)", "threads": "while True: time.sleep(0.01)", "async": "await asyncio.sleep(60)"}[way.name]
			d := startDirect(t, everyInterpreter(t)[0], mark+way.prefix+"def f(body):\n    mark(body)\n    "+sleep+"\n", way.threads, "f")
			path := filepath.Join(t.TempDir(), "mark")
			d.write(protocol.AppendInvoke(nil, &protocol.Invocation{ID: 7, Message: &triggers.Message{Body: []byte(path)}}))
			begun(t, path)
			d.write(protocol.AppendDrain(nil))
			d.write(protocol.AppendCancel(nil, 7))
			if r := d.result(); r.ID != 7 || r.Status != protocol.Failure {
				t.Errorf("invocation %d ended with status %d", r.ID, r.Status)
			}
			d.ends(0)
		})
	}
}

func TestWithoutCtypesTheContextTells(t *testing.T) {
	t.Parallel()
	log := newLines()
	p := startApp(t, mark+`
import sys
sys.modules["ctypes"] = None  # as in a Python that was built without it
def f(message, context):
    mark(message.body)
    while not context.cancelled: time.sleep(0.001)
    return "it saw"
`, func(c *workers.Config) {
		c.Settings.Threads, c.KillGrace, c.Log = 2, patience, slog.New(slog.NewTextHandler(log, nil))
	}, "f")
	log.wait(t, "level=WARN", "this Python has no ctypes", "context.cancelled")
	path := filepath.Join(t.TempDir(), "mark")
	ctx, cancel := context.WithCancel(soon(t))
	ended := make(chan answer, 1)
	go func() {
		output, err := handle(ctx, handler(t, p, "f"), &triggers.Message{Body: []byte(path)})
		ended <- answer{output, err}
	}()
	begun(t, path)
	cancel()
	if got := <-ended; string(got.output) != "it saw" || got.err != nil {
		t.Errorf("%s, %v", got.output, got.err)
	}
}

func TestASignalThatTheAppTookForItself(t *testing.T) {
	t.Parallel()
	log := newLines()
	p := startApp(t, mark+`
import signal
from drover.timeouts import MainThreadInterrupter
def f(body):
    signal.signal(MainThreadInterrupter.SIGNAL, signal.SIG_IGN)
    mark(body)
    time.sleep(60)
`, func(c *workers.Config) { c.Log = slog.New(slog.NewTextHandler(log, nil)) }, "f")
	path := filepath.Join(t.TempDir(), "mark")
	ctx, cancel := context.WithCancelCause(soon(t))
	ended := make(chan error, 1)
	go func() {
		_, err := handle(ctx, handler(t, p, "f"), &triggers.Message{Body: []byte(path)})
		ended <- err
	}()
	pid := begun(t, path)
	cancel(errTimedOut)
	if err := <-ended; !errors.Is(err, errTimedOut) {
		t.Error(err)
	}
	log.wait(t, "level=WARN", "the app handles the signal")
	gone(t, pid)
}
