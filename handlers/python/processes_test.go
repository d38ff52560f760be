package python

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

// everyWay are the kinds of functions, as text before def, and the number of threads.
var everyWay = []struct {
	name, prefix string
	threads      int
}{{"inline", "", 1}, {"threads", "", 2}, {"async", "async ", 1}}

// A process that a function forks is not a worker: it answers nothing, and ends when the function
// does.
func TestAFunctionThatForks(t *testing.T) {
	t.Parallel()
	for _, way := range everyWay {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			log := newLines()
			p := startApp(t, fmt.Sprintf(`
import logging, multiprocessing, os, sys
def times(n, to):
    print("in a process of multiprocessing")
    to.send(6 * n)
%sdef f(body):
    kind = body.decode()
    if kind == "multiprocessing":
        context = multiprocessing.get_context("fork")
        here, there = context.Pipe()
        child = context.Process(target=times, args=(7, there))
        child.start()
        child.join(20)
        return [here.recv(), child.exitcode]
    print("half a line", end="")
    pid = os.fork()
    if pid == 0:
        print("printed by the child")
        logging.warning("logged by the child")
        if kind == "exits": sys.exit(3)
        if kind == "fails": raise RuntimeError("in the child")
        return "the child's answer"
    return os.waitpid(pid, 0)[1] >> 8
`, way.prefix), func(c *workers.Config) {
				c.Settings.Threads, c.Log = way.threads, slog.New(slog.NewTextHandler(log, nil))
			}, "f")
			pid := p.Stats().PIDs[0]
			for range 3 {
				for kind, want := range map[string]string{"returns": "0", "exits": "3", "fails": "1", "multiprocessing": "[42,0]"} {
					if got, err := call(t, p, "f", &triggers.Message{Body: []byte(kind)}); err != nil || string(got) != want {
						t.Errorf("%s: %s, %v; want %s", kind, got, err, want)
					}
				}
			}
			if s := p.Stats(); len(s.Restarts) != 0 || s.PIDs[0] != pid {
				t.Errorf("it cost the worker: %+v", s)
			}
			log.wait(t, `msg="printed by the child"`, "stream=stdout")
			log.wait(t, "WARNING root: logged by the child", "stream=stderr")
			log.wait(t, "RuntimeError: in the child", "stream=stderr")
			log.wait(t, `msg="in a process of multiprocessing"`)
		})
	}
}

// The pool and its worker end in time, regardless of what a function has set up.
func TestAWorkerThatDoesNotWantToEnd(t *testing.T) {
	t.Parallel()
	for name, source := range map[string]string{
		"ignores SIGTERM": `
def f(body):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return os.getpid()
`,
		"ignores SIGTERM and continues": `
def f(body):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    mark(body)
    while True:
        try: time.sleep(60)
        except BaseException: pass
`,
		"threads that are not daemons": `
def f(body):
    threading.Thread(target=time.sleep, args=(600,)).start()
    return os.getpid()
`,
		"threads that are not daemons, from its import": `
threading.Thread(target=time.sleep, args=(600,)).start()
def f(body): return os.getpid()
`,
		"an exit handler that waits": `
import atexit
atexit.register(time.sleep, 600)
async def f(body):
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 600)
    return os.getpid()
`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pid := 0
			start := time.Now()
			t.Run("pool", func(t *testing.T) {
				p := startApp(t, mark+"import signal, threading\n"+source, nil, "f")
				pid = p.Stats().PIDs[0]
				ctx, cancel := context.WithCancel(soon(t))
				defer cancel()
				path := filepath.Join(t.TempDir(), "mark")
				ended := make(chan error, 1)
				go func() {
					_, err := handle(ctx, handler(t, p, "f"), &triggers.Message{Body: []byte(path)})
					ended <- err
				}()
				if strings.Contains(source, "mark(body)") {
					begun(t, path)
					cancel() // as a stop does when it has waited long enough
				}
				if err := <-ended; err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			})
			gone(t, pid)
			if took := time.Since(start); took > patience {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// Code that does not load ends the worker, regardless of its threads.
func TestCodeThatStartsThreadsAndDoesNotLoad(t *testing.T) {
	t.Parallel()
	d := greetDirect(t, everyInterpreter(t)[0], "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\nraise RuntimeError('broken')\n", 1, "f")
	if text := string(d.expect(protocol.Failed)); !strings.Contains(text, "broken") {
		t.Errorf("it says %s", text)
	}
	d.ends(0)
}

// If the app's signal handler raises between two calls, the worker ends with its error, and the
// pool starts another.
func TestAnAlarmThatAFunctionLeftBehind(t *testing.T) {
	t.Parallel()
	log := newLines()
	p := startApp(t, `
import os, signal
def late(number, frame): raise RuntimeError("an alarm that nobody took back")
def f(body):
    if body == b"alarm":
        signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
    return os.getpid()
`, func(c *workers.Config) { c.Log = slog.New(slog.NewTextHandler(log, nil)) }, "f")
	if _, err := call(t, p, "f", &triggers.Message{Body: []byte("alarm")}); err != nil {
		t.Fatal(err)
	}
	log.wait(t, "an alarm that nobody took back", "stream=stderr")
	eventually(t, "the end of its worker", func() bool { return p.Stats().Restarts[process.CauseExit] == 1 })
	if _, err := call(t, p, "f", &triggers.Message{}); err != nil {
		t.Errorf("the call after it: %v", err)
	}
}

// Changes that a function makes to the process affect the next call, as in any process. They do not
// prevent it from running and logging.
func TestWhatAFunctionLeavesBehind(t *testing.T) {
	t.Parallel()
	for _, way := range everyWay {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			log := newLines()
			p := startApp(t, fmt.Sprintf(`
import gc, logging, os, sys, threading
%sdef f(body):
    if body == b"last":
        print("printed as before", file=sys.__stderr__)
        logging.warning("logged as before")
        return os.getcwd()
    sys.stdout.close()
    sys.stderr = None
    sys.excepthook = threading.excepthook = None
    sys.setswitchinterval(0.5)
    gc.disable()
    logging.getLogger().handlers[0].close()
    os.chdir("/")
    os.environ.clear()
    sys.path.clear()
    os.umask(0o777)
`, way.prefix), func(c *workers.Config) {
				c.Settings.Threads, c.Log = way.threads, slog.New(slog.NewTextHandler(log, nil))
			}, "f")
			if _, err := call(t, p, "f", &triggers.Message{}); err != nil {
				t.Error(err)
			}
			if got, err := call(t, p, "f", &triggers.Message{Body: []byte("last")}); err != nil || string(got) != "/" {
				t.Errorf("%s, %v", got, err)
			}
			log.wait(t, "logged as before", "logger=root")
			log.wait(t, "printed as before")
			if s := p.Stats(); len(s.Restarts) != 0 {
				t.Errorf("it cost the worker: %+v", s)
			}
		})
	}
}

func TestStandardErrorIsNeverFull(t *testing.T) {
	t.Parallel()
	const size = 20 << 20
	for name, line := range map[string]string{"lines": "x" + strings.Repeat(" out of cheese", 70) + "\\n", "no line": "x"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startApp(t, fmt.Sprintf(`
import os
def f(body):
    block = (b"%s" * (1 << 16))[:1 << 16]
    for _ in range(%d >> 16):
        left = memoryview(block)
        while left: left = left[os.write(2, left):]
    return "fine"
`, line, size), func(c *workers.Config) { c.Log = slog.New(slog.NewTextHandler(io.Discard, nil)) }, "f")
			for range 2 {
				if got, err := call(t, p, "f", &triggers.Message{}); err != nil || string(got) != "fine" {
					t.Errorf("%s, %v", got, err)
				}
			}
		})
	}
}

// A stopped worker reads and answers nothing. Its calls time out, it is killed and replaced, and
// until then it receives no more than it has room for.
func TestAWorkerThatIsStopped(t *testing.T) {
	t.Parallel()
	for _, way := range everyWay {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			p := startApp(t, fmt.Sprintf("import os\n%sdef f(body): return os.getpid()\n", way.prefix), func(c *workers.Config) { c.Settings.Threads, c.Settings.Coroutines = way.threads, 4 }, "f")
			f := handler(t, p, "f")
			pid := p.Stats().PIDs[0]
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			share := f.Slots().Share(0)
			full, most := 0, max(way.threads, 4)+2048
			body := make([]byte, 256<<10)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			var all sync.WaitGroup
			for {
				n, err := share.Offer(ctx)
				if err != nil {
					break // no more room until something is answered
				}
				n = share.Take(n)
				full += n
				for range n {
					all.Go(func() {
						if _, err := handle(ctx, f, &triggers.Message{Body: body}); err == nil {
							t.Error("a call in a worker that is stopped has no error")
						}
					})
				}
			}
			if full == 0 || full > most {
				t.Errorf("it was given %d calls; 1 to %d", full, most)
			}
			all.Wait()
			share.Free(full)
			gone(t, pid)
			if got, err := call(t, p, "f", &triggers.Message{}); err != nil || string(got) == fmt.Sprint(pid) {
				t.Errorf("the call after it: %s, %v", got, err)
			}
			if s := p.Stats(); s.Restarts[process.CauseTimeout] != 1 {
				t.Errorf("%+v; want one restart for a timeout", s)
			}
		})
	}
}

func TestNoFileIsLeftOpen(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		t.Skip("it needs /proc")
	}
	p := startApp(t, `
import os, subprocess
def f(body): return sorted(os.listdir("/proc/self/fd"))
def child(body): return subprocess.run(["ls", "/proc/self/fd"], capture_output=True, close_fds=False).stdout.split().__len__()
`, nil, "f", "child")
	// Of the worker's own: its socket; of a child's: the three of its own and the directory.
	if got, err := call(t, p, "child", &triggers.Message{}); err != nil || string(got) != "4" {
		t.Errorf("a child of the worker has %s open files, %v", got, err)
	}
}
