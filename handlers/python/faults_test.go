package python

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/triggers"
)

// mark is Python that reports to the test that a call has begun.
const mark = `
import os, time, asyncio
def mark(body):
    with open(body.decode() + ".new", "w") as f: f.write(str(os.getpid()))
    os.rename(body.decode() + ".new", body.decode())
`

// begun waits for a call's mark and returns its worker.
func begun(t *testing.T, path string) int {
	t.Helper()
	var text []byte
	eventually(t, "the beginning of the call", func() (found bool) {
		var err error
		text, err = os.ReadFile(path)
		return err == nil
	})
	return atoi(t, string(text))
}

// A SIGKILL that drover did not send uses no attempt: the message runs again alone. If its worker
// is then killed as well, it has failed.
func TestAWorkerThatIsKilled(t *testing.T) {
	t.Parallel()
	p := startApp(t, mark+`
import os, signal
def f(body):
    if body == b"ok": return "fine"
    if body == b"kills": os.kill(os.getpid(), signal.SIGKILL)
    if os.path.exists(body): return "again"
    mark(body); time.sleep(60)
`, nil, "f")
	path := filepath.Join(t.TempDir(), "mark")
	type result struct {
		output []byte
		err    error
	}
	ended := make(chan result, 1)
	go func() {
		output, err := call(t, p, "f", &triggers.Message{ID: "1", Body: []byte(path)})
		ended <- result{output, err}
	}()
	pid := begun(t, path)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got := <-ended; got.err != nil || string(got.output) != "again" {
		t.Errorf("the call ended with %q, %v; want that it runs again", got.output, got.err)
	}
	if got, err := call(t, p, "f", &triggers.Message{Body: []byte("ok")}); err != nil || string(got) != "fine" {
		t.Errorf("the replacement: %s, %v", got, err)
	}
	if s := p.Stats(); len(s.Restarts) != 1 || s.Restarts[process.CauseMemory] != 1 {
		t.Errorf("%+v; want one restart", s)
	}
	for _, id := range []string{"2", ""} {
		_, err := call(t, p, "f", &triggers.Message{ID: id, Body: []byte("kills")})
		var failure *handlers.Failure
		if !errors.As(err, &failure) || !strings.Contains(err.Error(), "killed by SIGKILL") {
			t.Errorf("a message %q that kills its worker ended with %v", id, err)
		}
	}
}

func TestHowAWorkerEndsIsTold(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ code, want string }{
		"exits":               {"os._exit(17)", "exit status 17"},
		"exits with 0":        {"os._exit(0)", "exit status 0"},
		"crashes":             {"import ctypes; ctypes.string_at(0)", "SIGSEGV"},
		"rubbish":             {"os.write(3, b'\\xff' * 64)", "a frame of type 255 of 4294967295 bytes"},
		"an unknown frame":    {"os.write(3, b'\\x01\\0\\0\\0\\x28')", "a frame of type 40"},
		"an unknown call":     {"os.write(3, b'\\x12\\0\\0\\0\\x44' + b'\\x63\\0\\0\\0' + b'\\0' * 13)", "an answer to invocation 99"},
		"closes its socket":   {"os.close(3); time.sleep(60)", "Bad file descriptor; did a function close it?"},
		"half a frame":        {"os.write(3, b'\\x10\\0\\0\\0\\x44'); os._exit(1)", "exit status 1"},
		"last words on error": {"os.write(2, b'out of cheese\\n'); os._exit(1)", "out of cheese"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startApp(t, "import os, time\ndef f(body):\n    "+test.code+"\n", nil, "f")
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

func TestTheCulpritIsToldFromItsNeighbours(t *testing.T) {
	t.Parallel()
	for _, mode := range []struct {
		name, prefix string
		threads      int
	}{{"inline", "", 1}, {"threads", "", 8}, {"async", "async ", 1}} {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			p := startApp(t, "import os, time\n"+mode.prefix+`def f(body):
    if body == b"poison": os._exit(9)
    return body
`, func(c *workers.Config) { c.Settings.Threads = mode.threads }, "f")
			var all sync.WaitGroup
			var poisoned atomic.Int64
			for i := range 60 {
				body := fmt.Sprint(i)
				if i == 20 {
					body = "poison"
				}
				all.Go(func() {
					got, err := call(t, p, "f", &triggers.Message{ID: body, Body: []byte(body)})
					if body == "poison" {
						if err == nil || !strings.Contains(err.Error(), "exit status 9") {
							t.Errorf("the culprit ended with %v", err)
						}
						poisoned.Add(1)
					} else if err != nil || string(got) != body {
						t.Errorf("innocent %s: %q, %v", body, got, err)
					}
				})
			}
			all.Wait()
			if poisoned.Load() != 1 {
				t.Errorf("%d culprits", poisoned.Load())
			}
		})
	}
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, code string
		threads    int
		restarts   int
	}{
		{"async is cancelled", "async def f(body):\n    mark(body)\n    await asyncio.sleep(60)\n", 1, 0},
		{"sync is interrupted", "def f(body):\n    mark(body)\n    time.sleep(60)\n", 1, 0},
		{"a thread that runs is interrupted", "def f(body):\n    mark(body)\n    while True: time.sleep(0.01)\n", 2, 0},
		{"a thread that waits is killed", "def f(body):\n    mark(body)\n    time.sleep(60)\n", 2, 1},
		{"it looks at its context", "def f(message, context):\n    mark(message.body)\n    while not context.cancelled: time.sleep(0.01)\n    raise RuntimeError('gave up')\n", 2, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := startApp(t, mark+test.code, func(c *workers.Config) { c.Settings.Threads = test.threads }, "f")
			path := filepath.Join(t.TempDir(), "mark")
			ctx, cancel := context.WithCancelCause(t.Context())
			ended := make(chan error, 1)
			go func() {
				_, err := handle(ctx, handler(t, p, "f"), &triggers.Message{Body: []byte(path)})
				ended <- err
			}()
			pid := begun(t, path)
			cancel(errTimedOut)
			select {
			case err := <-ended:
				if !errors.Is(err, errTimedOut) {
					t.Errorf("%v; want the context's cause", err)
				}
			case <-time.After(patience):
				t.Fatal("Handle does not end")
			}
			if test.restarts > 0 {
				gone(t, pid)
			} else if s := p.Stats(); s.Ready != 1 || s.PIDs[0] != pid {
				t.Errorf("the worker is gone: %+v", s)
			}
		})
	}
}

func TestNeighboursOfATimeoutAreNotCharged(t *testing.T) {
	t.Parallel()
	p := startApp(t, mark+`
def f(body):
    if body != b"neighbour":
        mark(body); time.sleep(60)
    if os.path.exists("seen"): return "second time"
    open("seen", "w").close()
    time.sleep(60)
`, func(c *workers.Config) { c.Settings.Threads = 2 }, "f")
	path := filepath.Join(t.TempDir(), "mark")
	ctx, cancel := context.WithCancel(t.Context())
	slow, neighbour := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := handle(ctx, handler(t, p, "f"), &triggers.Message{Body: []byte(path)})
		slow <- err
	}()
	begun(t, path)
	go func() {
		got, err := call(t, p, "f", &triggers.Message{Body: []byte("neighbour")})
		if err == nil && string(got) != "second time" {
			err = fmt.Errorf("it returned %q", got)
		}
		neighbour <- err
	}()
	cancel()
	if err := <-slow; !errors.Is(err, context.Canceled) {
		t.Errorf("the slow one: %v", err)
	}
	if err := <-neighbour; err != nil {
		t.Errorf("the neighbour: %v", err)
	}
}

func TestACallThatWaitsIsNotTried(t *testing.T) {
	t.Parallel()
	p := startApp(t, mark+`
def f(body):
    if body == b"waits": open("ran", "w").close(); return
    mark(body)
    while not os.path.exists(body.decode() + ".go"): time.sleep(0.001)
`, func(c *workers.Config) { c.KillGrace = 3 * patience }, "f")
	path := filepath.Join(t.TempDir(), "mark")
	first := make(chan error, 1)
	go func() {
		_, err := call(t, p, "f", &triggers.Message{Body: []byte(path)})
		first <- err
	}()
	begun(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	// It is answered while the one before it runs: that is not killed for its sake.
	if _, err := handle(ctx, handler(t, p, "f"), &triggers.Message{Body: []byte("waits")}); !errors.Is(err, handlers.ErrNotTried) {
		t.Errorf("%v; want not tried", err)
	}
	if err := os.WriteFile(path+".go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-first; err != nil {
		t.Error(err)
	}
}

func TestATaskThatIsCancelledBeforeItBegins(t *testing.T) {
	t.Parallel()
	p := startApp(t, mark+`
async def f(body):
    if body == b"waits": open("ran", "w").close()
    else: mark(body); time.sleep(0.5)  # holds up the loop
`, func(c *workers.Config) { c.KillGrace = patience }, "f")
	path := filepath.Join(t.TempDir(), "mark")
	first := make(chan error, 1)
	go func() {
		_, err := call(t, p, "f", &triggers.Message{Body: []byte(path)})
		first <- err
	}()
	begun(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	start := time.Now()
	if _, err := handle(ctx, handler(t, p, "f"), &triggers.Message{Body: []byte("waits")}); !errors.Is(err, handlers.ErrNotTried) {
		t.Errorf("%v; want not tried", err)
	}
	if took := time.Since(start); took > patience/2 {
		t.Errorf("it took %v", took)
	}
	if err := <-first; err != nil {
		t.Error(err)
	}
}

func TestNoProcessIsLeft(t *testing.T) {
	t.Parallel()
	children := filepath.Join(t.TempDir(), "mark")
	var workersPIDs []int
	t.Run("pool", func(t *testing.T) {
		p := startApp(t, mark+`
import subprocess
def f(body):
    child = subprocess.Popen(["sleep", "60"])
    with open(body.decode() + ".new", "w") as out: out.write(str(child.pid))
    os.rename(body.decode() + ".new", body.decode())
`, func(c *workers.Config) { c.Settings.Processes = 3 }, "f")
		if _, err := call(t, p, "f", &triggers.Message{Body: []byte(children)}); err != nil {
			t.Fatal(err)
		}
		workersPIDs = p.Stats().PIDs
	})
	for _, pid := range append(workersPIDs, begun(t, children)) {
		gone(t, pid)
	}
}

func TestALargeMessageIsRejected(t *testing.T) {
	t.Parallel()
	p := startApp(t, "def f(body): return None\n", func(c *workers.Config) { c.MaxFrame = 1 << 20 }, "f")
	_, err := call(t, p, "f", &triggers.Message{Body: make([]byte, 1<<20)})
	if !handlers.Rejected(err) || !strings.Contains(err.Error(), "1048576 is the most") {
		t.Errorf("%v", err)
	}
}

func TestAnOutputThatIsTooLarge(t *testing.T) {
	t.Parallel()
	p := startApp(t, "def f(body): return b'x' * (2 << 20)\n", func(c *workers.Config) { c.MaxFrame = 1 << 20 }, "f")
	if _, err := call(t, p, "f", &triggers.Message{}); err == nil || !strings.Contains(err.Error(), "returned 2097152 bytes, more than fit in a frame (1048576)") {
		t.Errorf("%v", err)
	}
	if s := p.Stats(); s.Ready != 1 || len(s.Restarts) != 0 {
		t.Errorf("it cost the worker: %+v", s)
	}
}

func TestCodeThatDoesNotLoadAnyMore(t *testing.T) {
	t.Parallel()
	log := newLines()
	var app string
	p := startApp(t, "def f(body): return 'fine'\n", func(c *workers.Config) {
		app, c.Log = c.App, slog.New(slog.NewTextHandler(log, nil))
	}, "f")
	if err := os.WriteFile(filepath.Join(app, "function_app.py"), []byte("raise RuntimeError('broken by an edit')\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(p.Stats().PIDs[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	log.wait(t, "level=ERROR", "no longer loads", "broken by an edit", "Traceback")
	// There is room for a message, which finds out.
	share := handler(t, p, "f").Slots().Share(0)
	if _, err := share.Offer(soon(t)); err != nil {
		t.Fatal(err)
	}
	var loadError *handlers.LoadError
	if _, err := call(t, p, "f", &triggers.Message{}); !errors.As(err, &loadError) || !strings.Contains(loadError.Detail, "function_app.py") {
		t.Errorf("%v", err)
	}
}
