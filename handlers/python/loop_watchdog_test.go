package python

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/triggers"
)

// blocks is an app whose functions block the event loop for about a third of a second, each in a
// different way; fine does not.
const blocks = `
import asyncio, ctypes, fcntl, os, random, re, socket, tempfile, threading, time, zlib
usleep = ctypes.PyDLL(None).usleep  # which keeps the GIL

async def sleeps(body):
    time.sleep(0.3)  # here

def count(until):
    n = 0
    while time.monotonic() < until: n += 1  # here

async def counts(body):
    count(time.monotonic() + 0.3)

async def matches(body):
    begin, n = time.monotonic(), 18
    while time.monotonic() < begin + 0.3:
        re.match("(a+)+$", "a" * n + "b")  # here
        n += 1

async def holds(body):
    usleep(300_000)  # here

async def reads(body):
    a, b = socket.socketpair()
    threading.Timer(0.3, b.send, [b"x"]).start()
    a.recv(1)  # here

async def locks(body):
    with tempfile.NamedTemporaryFile() as file:
        first = open(file.name)
        fcntl.flock(first, fcntl.LOCK_EX)
        threading.Timer(0.3, first.close).start()
        with open(file.name) as second:
            fcntl.flock(second, fcntl.LOCK_EX)  # here

data = random.randbytes(1 << 20)
async def zips(body):
    until = time.monotonic() + 0.3
    while time.monotonic() < until: zlib.compress(data)  # here

async def inner():
    await asyncio.sleep(0.01)
    time.sleep(0.3)  # here

async def gathers(body):
    await asyncio.gather(asyncio.sleep(0.02), inner())

async def fine(body):
    await asyncio.sleep(0.6)
`

// blocking are the blocking functions and their places, by the name of the function that contains
// the line; places finds the lines.
var blocking = map[string]string{
	"sleeps": "sleeps", "counts": "count", "matches": "matches", "holds": "holds", "reads": "reads", "locks": "locks", "zips": "zips", "gathers": "inner",
}

// placeIn is the marked line in a function of the app.
func placeIn(t *testing.T, source, function string) string {
	t.Helper()
	in := ""
	for i, line := range strings.Split(source, "\n") {
		if _, name, is := strings.Cut(line, "def "); is {
			in, _, _ = strings.Cut(name, "(")
		}
		if in == function && strings.HasSuffix(line, "# here") {
			return fmt.Sprintf("function_app.py:%d in %s", i+1, function)
		}
	}
	t.Fatalf("no line is marked in %s", function)
	return ""
}

// The log names the function, the message and the line that block the event loop, even with other
// calls in flight.
func TestWhatBlocksTheEventLoop(t *testing.T) {
	// It does not run in parallel, because it measures times.
	for _, interpreter := range everyInterpreter(t) {
		t.Run(filepath.Base(filepath.Dir(filepath.Dir(interpreter))), func(t *testing.T) {
			t.Parallel()
			var names []string
			for name := range blocking {
				names = append(names, name)
			}
			log := newLines()
			p := startApp(t, blocks, func(c *workers.Config) {
				c.Command.Path = interpreter
				c.Log = slog.New(slog.NewTextHandler(log, nil))
			}, append(names, "fine")...)
			for _, name := range names {
				want := []string{"blocks the event loop", "function=" + name + " ", "message=culprit-" + name + " ", placeIn(t, blocks, blocking[name]), "stack="}
				// On a busy machine C code that waits and holds the GIL looks like a process without
				// a core: so it may take several tries.
				for try := 1; try == 1 || try <= 40 && !log.has(2*time.Second, want...); try++ {
					var all sync.WaitGroup
					for range 5 {
						all.Go(func() {
							if _, err := call(t, p, "fine", &triggers.Message{ID: "beside"}); err != nil {
								t.Error(err)
							}
						})
					}
					if _, err := call(t, p, name, &triggers.Message{ID: "culprit-" + name, Body: []byte("x")}); err != nil {
						t.Error(err)
					}
					all.Wait()
				}
				log.wait(t, want...)
			}
			got := p.BlockStats()
			for _, name := range names {
				if b := got[name]; b.Times < 1 || b.Longest < 100*time.Millisecond {
					t.Errorf("%s blocked %d times, %v the longest", name, b.Times, b.Longest)
				}
			}
			if b, is := got["fine"]; is {
				t.Errorf("fine is said to block: %+v", b)
			}
			if !got["counts"].Computes || got["sleeps"].Computes || !got["holds"].GIL || got["sleeps"].GIL {
				t.Errorf("of what kind they are: %+v", got)
			}
		})
	}
}

// A loop that makes progress is not blocked, even if it or the machine is busy.
func TestABusyLoopIsNotBlocked(t *testing.T) {
	// It does not run in parallel, because it measures times.
	p := startApp(t, `
import asyncio, time
async def short(n):
    for _ in range(n):
        sum(range(100))
        await asyncio.sleep(0)
async def busy(body):
    tasks = []
    for _ in range(100):  # to make them all at once would block
        tasks += [asyncio.create_task(short(20)) for _ in range(100)]
        await asyncio.sleep(0)
    await asyncio.gather(*tasks[:1])
    while not all(t.done() for t in tasks): await asyncio.sleep(0.001)
async def noop(body): pass
`, nil, "busy", "noop")
	stop := make(chan struct{})
	var others sync.WaitGroup
	for range 4 { // what else the machine has to do
		others.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	if _, err := call(t, p, "busy", &triggers.Message{}); err != nil {
		t.Error(err)
	}
	for range 100 {
		if _, err := call(t, p, "noop", &triggers.Message{}); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	others.Wait()
	if got := p.BlockStats(); len(got) > 0 {
		t.Errorf("%+v", got)
	}
}

// Waiting for a processor, or for a thread that waits for one, does not count as blocking the loop.
func TestAStarvedLoopIsNotBlocked(t *testing.T) {
	// It does not run in parallel, because it measures times.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	defer serving.Wait()
	defer func() { _ = listener.Close() }()
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
			})
		}
	})
	// Its threads get less CPU time than those of this process.
	p := startApp(t, `
import asyncio, hashlib, os
os.nice(15)
async def fetch(body):
    reader, writer = await asyncio.open_connection("127.0.0.1", int(body))
    writer.write(b"x")
    await reader.read(1)
    writer.close()
def digest(body):
    for _ in range(20000):
        body = hashlib.sha256(body).digest()
async def thread(body):
    await asyncio.to_thread(digest, body)
`, nil, "fetch", "digest", "thread")
	stop := make(chan struct{})
	var others sync.WaitGroup
	for range 2 * runtime.NumCPU() {
		others.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	port := fmt.Append(nil, listener.Addr().(*net.TCPAddr).Port)
	var calls sync.WaitGroup
	for name, times := range map[string]int{"fetch": 100, "digest": 8, "thread": 8} {
		for range 8 {
			calls.Go(func() {
				for range times / 8 {
					if _, err := call(t, p, name, &triggers.Message{Body: port}); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	calls.Wait()
	close(stop)
	others.Wait()
	if got := p.BlockStats(); len(got) > 0 {
		t.Errorf("%+v", got)
	}
}

// Without the capability, there is no watchdog.
func TestBlocksAreNotLookedFor(t *testing.T) {
	t.Parallel()
	p := startApp(t, blocks+`
async def names(body): return [t.name for t in threading.enumerate()]
`, func(c *workers.Config) { c.OnBlocked = workers.BlockedOff }, "sleeps", "names")
	if _, err := call(t, p, "sleeps", &triggers.Message{}); err != nil {
		t.Error(err)
	}
	if output, err := call(t, p, "names", &triggers.Message{}); err != nil || strings.Contains(string(output), "drover-blocked") {
		t.Errorf("%s, %v", output, err)
	}
	if got := p.BlockStats(); len(got) > 0 {
		t.Errorf("%+v", got)
	}
}

// The error of a call whose worker is killed shows where the call hung.
func TestWhereAKilledCallHung(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]string{
		"sleeps":         "while True:\n        try: time.sleep(60)  # here\n        except BaseException: pass",
		"waits for ever": "lock = threading.Lock()\n    lock.acquire()\n    while True:\n        try: lock.acquire()  # here\n        except BaseException: pass",
		"keeps the GIL":  "re.match('(a+)+$', 'a' * 60 + 'b')  # here",
	} {
		for _, way := range everyWay {
			t.Run(name+"/"+way.name, func(t *testing.T) {
				t.Parallel()
				source := mark + "import re, threading\n" + way.prefix + "def f(body):\n    mark(body)\n    " + code + "\n"
				p := startApp(t, source, func(c *workers.Config) {
					c.Settings.Threads = way.threads
					c.KillGrace = 6 * time.Second // half of it is for the stacks, also on a busy machine
				}, "f")
				path := filepath.Join(t.TempDir(), "mark")
				ctx, cancel := context.WithCancel(soon(t))
				ended := make(chan error, 1)
				go func() {
					_, err := handle(ctx, handler(t, p, "f"), &triggers.Message{Body: []byte(path)})
					ended <- err
				}()
				begun(t, path)
				cancel()
				err := <-ended
				var failure *handlers.Failure
				want := strings.Replace(placeIn(t, source, "f"), "function_app.py:", `function_app.py", line `, 1)
				if !errors.Is(err, context.Canceled) || !errors.As(err, &failure) || !strings.Contains(failure.Detail, want) {
					t.Errorf("%v, %+v; want %s", err, failure, want)
				}
			})
		}
	}
}

// A function that repeatedly computes on the event loop moves to its own process, with its calls
// that waited in the shared process. None of them fails.
func TestAFunctionThatBlocksIsKeptApart(t *testing.T) {
	// It does not run in parallel, because it measures times.
	log := newLines()
	moved := make(chan *handlers.Slots, 1)
	p := startApp(t, `
import asyncio, os, time
async def blocks(body):
    until, n = time.monotonic() + 0.15, 0
    while time.monotonic() < until: n += 1
    return str(os.getpid())
async def fine(body):
    return str(os.getpid())
`, func(c *workers.Config) {
		c.OnBlocked = workers.BlockedIsolate
		c.Moved = func(function string, to *handlers.Slots) {
			if function == "blocks" {
				moved <- to
			}
		}
		c.Log = slog.New(slog.NewTextHandler(log, nil))
	}, "blocks", "fine")
	before := p.Stats().PIDs
	h := handler(t, p, "blocks")
	share := h.Slots().Share(0)
	pids := make(map[string]int)
	var mu sync.Mutex
	var all sync.WaitGroup
	for range 60 { // at once: some have not begun when the function is moved
		all.Go(func() {
			if err := share.Claim(t.Context()); err != nil {
				t.Error(err)
				return
			}
			defer share.Free(1)
			output, err := handle(soon(t), h, &triggers.Message{ID: "b"})
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			pids[string(output)]++
		})
	}
	select {
	case to := <-moved:
		share.Move(to)
		if h.Slots() != to {
			t.Error("its handler has other slots")
		}
	case <-time.After(patience):
		t.Fatal("it was not moved")
	}
	all.Wait()
	if len(pids) != 2 || pids[fmt.Sprint(before[0])] == 0 {
		t.Errorf("the calls ran in %v; the worker was %v", pids, before)
	}
	log.wait(t, "function quarantined", "function=blocks", "workers=1")
	output, err := call(t, p, "fine", &triggers.Message{})
	if err != nil || pids[string(output)] > 0 && string(output) != fmt.Sprint(before[0]) {
		t.Errorf("the other function ran in %s, %v", output, err)
	}
	if got := p.QuarantinedWorkers(); got["blocks"] != 1 || len(got) != 1 {
		t.Errorf("%v", got)
	}
	p.Scale(3)
	deadline := time.Now().Add(patience)
	for p.QuarantinedWorkers()["blocks"] != 2 && time.Now().Before(deadline) {
		if _, err := call(t, p, "fine", &triggers.Message{}); err != nil {
			t.Fatal(err)
		}
	}
	if got := p.QuarantinedWorkers()["blocks"]; got != 2 {
		t.Errorf("it has %d of three workers", got)
	}
}

// A function that repeatedly waits on the event loop runs in threads, where await and cancellation
// work as before.
func TestAFunctionThatBlocksRunsInThreads(t *testing.T) {
	// It does not run in parallel, because it measures times.
	log := newLines()
	p := startApp(t, mark+`
import threading
async def blocks(message, context):
    if message.text(): mark(message.body)
    await asyncio.sleep(0.01)
    print("it runs in", threading.current_thread().name)
    if message.text(): await asyncio.sleep(60)
    time.sleep(0.15)
    return threading.current_thread().name
async def fine(body):
    return threading.current_thread().name
`, func(c *workers.Config) {
		c.OnBlocked = workers.BlockedIsolate
		c.Settings.Threads = 2
		c.KillGrace = patience
		c.Log = slog.New(slog.NewTextHandler(log, nil))
	}, "blocks", "fine")
	h := handler(t, p, "blocks")
	main := "MainThread"
	for deadline := time.Now().Add(patience); main == "MainThread" && time.Now().Before(deadline); {
		output, err := handle(soon(t), h, &triggers.Message{ID: "b"})
		if err != nil {
			t.Fatal(err)
		}
		main = string(output)
	}
	if !strings.HasPrefix(main, "drover_") {
		t.Errorf("it runs in %s", main)
	}
	log.wait(t, "function moved to threads", "function=blocks", "threads=2")
	log.wait(t, "it runs in "+main, "function=blocks", "message=b")
	if got := p.ThreadedFunctions(); len(got) != 1 || got[0] != "blocks" || len(p.QuarantinedWorkers()) != 0 {
		t.Errorf("%v run in threads, %v are quarantined", got, p.QuarantinedWorkers())
	}
	if h.IsAsync() || h.Slots() != handler(t, p, "blocks").Slots() || h.Slots() == handler(t, p, "fine").Slots() {
		t.Error("its room is not that of functions that are not async")
	}
	if output, err := call(t, p, "fine", &triggers.Message{}); err != nil || string(output) != "MainThread" {
		t.Errorf("the other one runs in %s, %v", output, err)
	}

	path := filepath.Join(t.TempDir(), "mark")
	ctx, cancel := context.WithCancel(soon(t))
	ended := make(chan error, 1)
	go func() {
		_, err := handle(ctx, h, &triggers.Message{ID: "late", Body: []byte(path)})
		ended <- err
	}()
	begun(t, path)
	cancel()
	err := <-ended
	var failure *handlers.Failure
	if !errors.Is(err, context.Canceled) || !errors.As(err, &failure) || !strings.Contains(failure.Detail, "CancelledError") {
		t.Errorf("%v, %+v", err, failure)
	}
	p.Scale(2) // a worker that is new does the same
	for deadline := time.Now().Add(patience); p.Stats().Ready < 2 && time.Now().Before(deadline); {
		if _, err := handle(soon(t), h, &triggers.Message{ID: "b"}); err != nil {
			t.Fatal(err)
		}
	}
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			if output, err := handle(soon(t), h, &triggers.Message{}); err != nil || string(output) == "MainThread" {
				t.Errorf("%s, %v", output, err)
			}
		})
	}
	all.Wait()
	if n := p.Stats().Restarts[process.CauseTimeout]; n != 0 {
		t.Errorf("%d workers were killed", n)
	}
}

// TestTheGarbageCollectorIsNoFunction checks that a function is not blamed for the garbage
// collector, which can run at any time.
func TestTheGarbageCollectorIsNoFunction(t *testing.T) {
	// It does not run in parallel, because it measures times.
	p := startApp(t, `
import asyncio, gc

kept = []

async def fills(body):
    gc.disable()
    for _ in range(200):
        kept.extend([] for _ in range(20_000))
        await asyncio.sleep(0)

async def collects(body):
    gc.collect()
`, nil, "fills", "collects")
	if _, err := call(t, p, "fills", &triggers.Message{}); err != nil {
		t.Fatal(err)
	}
	// The watchdog may be without a processor during a collection, and so miss it.
	eventually(t, "the block", func() bool {
		if _, err := call(t, p, "collects", &triggers.Message{}); err != nil {
			t.Fatal(err)
		}
		return p.BlockStats()[""].Times > 0
	})
	if b := p.BlockStats()[""]; b.Place != "the garbage collector" || !strings.Contains(b.Advice(), "gc.freeze") {
		t.Errorf("%+v, %s", b, b.Advice())
	}
	if b, blamed := p.BlockStats()["collects"]; blamed {
		t.Errorf("the function is blamed: %+v", b)
	}
}
