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

// dispatch runs a message as the dispatcher does: a call that must run again does so with a new
// timeout. It returns the number of repetitions.
func dispatch(t *testing.T, h *workers.Handler, m *triggers.Message, timeout time.Duration) (again int, err error) {
	t.Helper()
	ctx := &attempt{life: t.Context(), timeout: timeout}
	ctx.Renew()
	defer ctx.end()
	for ; ; again++ {
		_, err = handle(ctx, h, m)
		if !errors.Is(err, handlers.ErrNotTried) || t.Context().Err() != nil {
			return again, err
		}
		ctx.Renew()
	}
}

// attempt is a context like the dispatcher's.
type attempt struct {
	life    context.Context
	timeout time.Duration
	mu      sync.Mutex
	now     context.Context
	end     context.CancelFunc
}

var _ handlers.Renewable = (*attempt)(nil)

func (a *attempt) Renew() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.end != nil {
		a.end()
	}
	a.now, a.end = context.WithTimeout(a.life, a.timeout)
}

func (a *attempt) current() context.Context {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.now
}

func (a *attempt) Deadline() (time.Time, bool) { return a.current().Deadline() }
func (a *attempt) Done() <-chan struct{}       { return a.current().Done() }
func (a *attempt) Err() error                  { return a.current().Err() }
func (a *attempt) Value(key any) any           { return a.current().Value(key) }

// Only the call that blocks the event loop, or holds the GIL, uses an attempt.
func TestWhoBlocksIsChargedAlone(t *testing.T) {
	// It runs alone, since it judges times.
	for _, test := range []struct {
		name, code string
		threads    int
	}{
		{"the event loop, asleep", "async def f(message):\n    if message.body == b'poison': time.sleep(60)\n    await asyncio.sleep(0.02)\n", 1},
		{"the event loop, computing", "async def f(message):\n    if message.body == b'poison':\n        while True: pass\n    await asyncio.sleep(0.02)\n", 1},
		{"the GIL, and the event loop", "async def f(message):\n    if message.body == b'poison': re.match('(a|aa)+$', 'a' * 99 + 'b')\n    await asyncio.sleep(0.02)\n", 1},
		{"the GIL, in threads", "def f(message):\n    if message.body == b'poison': re.match('(a|aa)+$', 'a' * 99 + 'b')\n    time.sleep(0.02)\n", 16},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := startApp(t, "import asyncio, re, time\n"+test.code, func(c *workers.Config) {
				c.Settings.Threads, c.Settings.Coroutines = test.threads, 16
			}, "f")
			h := handler(t, p, "f")
			room := make(chan struct{}, 16) // as many in flight
			var all sync.WaitGroup
			var charged atomic.Int64
			for i := range 100 {
				body := fmt.Sprint(i)
				if i == 41 {
					body = "poison"
				}
				room <- struct{}{}
				all.Go(func() {
					defer func() { <-room }()
					again, err := dispatch(t, h, &triggers.Message{ID: fmt.Sprint(i), Body: []byte(body)}, 2*time.Second)
					switch {
					case body == "poison" && !errors.Is(err, context.DeadlineExceeded):
						t.Errorf("the culprit ended with %v", err)
					case body == "poison":
						charged.Add(1)
					case err != nil:
						t.Errorf("innocent %d was charged after %d times: %v", i, again, err)
					}
				})
			}
			all.Wait()
			if charged.Load() != 1 {
				t.Errorf("%d culprits", charged.Load())
			}
		})
	}
}

// A stopped worker is reported, and its calls run elsewhere long before their timeout, without
// using an attempt.
func TestAStoppedWorkersCallsRunElsewhere(t *testing.T) {
	t.Parallel()
	log := newLines()
	p := startApp(t, mark+`
def f(body):
    if os.path.exists(body): return "elsewhere"
    mark(body); time.sleep(1000)
`, func(c *workers.Config) { c.Log = slog.New(slog.NewTextHandler(log, nil)) }, "f")
	path := filepath.Join(t.TempDir(), "mark")
	ended := make(chan error, 1)
	go func() {
		out, err := call(t, p, "f", &triggers.Message{ID: "1", Body: []byte(path)})
		if err == nil && string(out) != "elsewhere" {
			err = fmt.Errorf("it returned %q", out)
		}
		ended <- err
	}()
	pid := begun(t, path)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	log.wait(t, "a worker does not answer", "state=stopped")
	if err := <-ended; err != nil {
		t.Error(err)
	}
	gone(t, pid)
	eventually(t, "the restart is counted", func() bool { return p.Stats().Restarts[process.CauseHung] == 1 })
}

// A slow call in a live process does not count as a dead worker: neither one that computes, nor one
// that waits, nor one whose C code holds the GIL.
func TestASlowCallIsNoDeadWorker(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]string{
		"computes":                "end = time.monotonic() + 6\n    while time.monotonic() < end: pass",
		"waits":                   "time.sleep(6)",
		"holds the GIL and waits": "ctypes.PyDLL(None).sleep(6)",
		"holds the GIL, computes": "text = 'a' * 26 + 'b'\n    end = time.monotonic() + 6\n    while time.monotonic() < end: re.match(r'(a|aa)+$', text)",
	} {
		for _, kind := range []string{"", "async "} {
			t.Run(kind+name, func(t *testing.T) {
				t.Parallel()
				p := startApp(t, "import ctypes, os, re, time\n"+kind+"def f(body):\n    "+code+"\n    return str(os.getpid())\n", nil, "f")
				out, err := call(t, p, "f", &triggers.Message{ID: "1"})
				if s := p.Stats(); err != nil || len(s.PIDs) != 1 || fmt.Sprint(s.PIDs[0]) != string(out) || len(s.Restarts) != 0 {
					t.Errorf("%s, %v, %+v", out, err, s)
				}
			})
		}
	}
}

// A hung call's worker is killed, and the next attempt of its message hangs alone.
func TestAMessageThatHangsRunsAloneTheNextTime(t *testing.T) {
	t.Parallel()
	p := startApp(t, `
import os, time
def f(message):
    while message.body == b"poison":
        try: time.sleep(1000)
        except BaseException: pass
    return str(os.getpid())
`, func(c *workers.Config) { c.Settings.Threads = 2 }, "f")
	h := handler(t, p, "f")
	poison := &triggers.Message{ID: "poison", Body: []byte("poison")}
	if _, err := dispatch(t, h, poison, time.Second); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	before, err := call(t, p, "f", &triggers.Message{ID: "1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dispatch(t, h, poison, time.Second); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if after, err := call(t, p, "f", &triggers.Message{ID: "1"}); err != nil || strings.Compare(string(after), string(before)) != 0 {
		t.Errorf("the worker of the others was %s, and is %s: %v", before, after, err)
	}
}

// The error of a function that runs out of memory names the limit.
func TestAMemoryErrorNamesItsLimit(t *testing.T) {
	t.Parallel()
	p := startApp(t, `
import resource
def f(body):
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, resource.RLIM_INFINITY))
    return len(bytearray(1 << 40))
`, nil, "f")
	if _, err := call(t, p, "f", &triggers.Message{ID: "1"}); err == nil || !strings.Contains(err.Error(), "MemoryError: limits.address_space is 4096 MiB") {
		t.Error(err)
	}
}

// A call that waits in its worker behind a slow one, and so starts with little time left, uses no
// attempt when that time is up.
func TestWaitingBehindASlowCallIsNotCharged(t *testing.T) {
	t.Parallel()
	p := startApp(t, mark+`
def slow(body):
    mark(body)
    time.sleep(60)
def quick(body): time.sleep(0.6)
`, nil, "slow", "quick")
	var slow sync.WaitGroup
	defer slow.Wait()
	path := filepath.Join(t.TempDir(), "mark")
	slow.Go(func() {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if _, err := handle(ctx, handler(t, p, "slow"), &triggers.Message{ID: "slow", Body: []byte(path)}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("slow: %v", err)
		}
	})
	begun(t, path)
	if _, err := dispatch(t, handler(t, p, "quick"), &triggers.Message{ID: "quick", Body: []byte("x")}, 2300*time.Millisecond); err != nil {
		t.Errorf("quick: %v", err)
	}
}

// Calls that wait in a worker behind a slow one run in another worker that has become idle.
func TestCallsBehindASlowOneRunElsewhere(t *testing.T) {
	t.Parallel()
	for _, threads := range []int{1, 2} {
		t.Run(fmt.Sprint(threads, " threads"), func(t *testing.T) {
			t.Parallel()
			p := startApp(t, mark+`
def slow(body):
    mark(body)
    while not os.path.exists(body.decode() + ".end"): time.sleep(0.01)
def quick(body): time.sleep(0.001)
`, func(c *workers.Config) { c.Settings = workers.Settings{Processes: 2, Threads: threads} }, "slow", "quick")
			begin := func(function, body string) sink {
				to := make(sink, 1)
				handler(t, p, function).Start(soon(t), &triggers.Message{ID: body, Body: []byte(body)}, to)
				return to
			}
			eventually(t, "two workers", func() bool { return p.Stats().Ready == 2 })
			dir := t.TempDir()
			var slow, quick []sink
			for n := range 10 * threads {
				if n < 2*threads-1 { // all threads but one run these, so one worker has no other thread
					slow = append(slow, begin("slow", filepath.Join(dir, fmt.Sprint(n))))
				}
				quick = append(quick, begin("quick", fmt.Sprint(n)))
			}
			for _, to := range quick {
				if a := <-to; a.err != nil {
					t.Error(a.err)
				}
			}
			for n, to := range slow {
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(n, ".end")), nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if a := <-to; a.err != nil {
					t.Error(a.err)
				}
			}
		})
	}
}
