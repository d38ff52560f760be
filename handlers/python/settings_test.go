package python

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/triggers"
)

// TestWhatCallsUseIsMeasured checks that the measured usage of calls distinguishes the kinds of
// functions.
func TestWhatCallsUseIsMeasured(t *testing.T) {
	// It runs alone, since it judges times.
	const source = `
import asyncio, hashlib, time

def busy(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end: pass

def cpu(body): busy(0.05)
def waits(body): time.sleep(0.05)
def releases(body):
    end = time.thread_time() + 0.05
    while time.thread_time() < end: hashlib.sha256(bytes(1 << 20))
async def awaits(body): await asyncio.sleep(0.05)
async def blocks(body): time.sleep(0.05)
async def never(body): busy(0.05)
async def both(body):
    busy(0.02)
    await asyncio.sleep(0.05)
    busy(0.02)
    return b"both"
async def fails(body):
    try:
        await asyncio.sleep(3600)
    finally:
        busy(0.02)
`
	for _, test := range []struct {
		function  string
		threads   int
		cpu, held time.Duration // at least, of each call; time that is not held is at most a third of a call
		async     bool
		looks     bool // the lock is held while it runs
	}{
		{"cpu", 1, 45 * time.Millisecond, 45 * time.Millisecond, false, true},
		{"cpu", 2, 45 * time.Millisecond, 45 * time.Millisecond, false, true},
		{"waits", 1, 0, 45 * time.Millisecond, false, false},
		{"waits", 2, 0, 45 * time.Millisecond, false, false},
		{"releases", 1, 45 * time.Millisecond, 45 * time.Millisecond, false, false},
		{"awaits", 1, 0, 0, true, false},
		{"blocks", 1, 0, 45 * time.Millisecond, true, false},
		{"never", 1, 45 * time.Millisecond, 45 * time.Millisecond, true, false},
		{"both", 1, 36 * time.Millisecond, 36 * time.Millisecond, true, false},
	} {
		t.Run(test.function, func(t *testing.T) {
			p := startApp(t, source, func(c *workers.Config) { c.Settings.Threads = test.threads }, test.function)
			const calls = 10
			for range calls {
				if _, err := call(t, p, test.function, &triggers.Message{}); err != nil {
					t.Fatal(err)
				}
			}
			m := p.Measures()[0]
			if m.Function != test.function || m.Async != test.async || m.Calls != calls || m.Failed != 0 || m.Measured != calls || m.Wall < calls*36*time.Millisecond || m.MeasuredWall != m.Wall {
				t.Fatalf("%+v", m)
			}
			if m.CPU < calls*test.cpu || m.Held < calls*test.held || m.Held < m.CPU-calls*time.Millisecond {
				t.Errorf("it used %v and held its thread for %v in %d calls; want %v and %v at least in each", m.CPU, m.Held, calls, test.cpu, test.held)
			}
			if test.cpu == 0 && m.CPU > m.Wall/3 || test.held == 0 && m.Held > m.Wall/3 {
				t.Errorf("it used %v and held its thread for %v of %v", m.CPU, m.Held, m.Wall)
			}
			if !test.async && test.threads > 1 || test.function == "releases" {
				// How often the lock is held depends on who else uses the machine.
				eventually(t, "looks", func() bool {
					_, err := call(t, p, test.function, &triggers.Message{})
					return err != nil || p.Measures()[0].Looks > 50
				})
				m = p.Measures()[0]
				// A thread that has no processor holds no lock.
				starved := test.looks && m.Wall > m.CPU*5/4
				if held := float64(m.HeldGIL) / float64(m.Looks); test.looks && held < 0.4 && !starved || !test.looks && held > 0.4 {
					t.Errorf("the lock was held in %d of %d looks", m.HeldGIL, m.Looks)
				}
			}
		})
	}
	t.Run("fails", func(t *testing.T) {
		p := startApp(t, source, nil, "fails")
		h, err := p.HandlerOf("fails")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := h.Handle(ctx, &triggers.Message{}); err == nil {
			t.Fatal("it has not failed")
		}
		if m := p.Measures()[0]; m.Calls != 1 || m.Failed != 1 || m.CPU < 15*time.Millisecond || m.Held < 15*time.Millisecond {
			t.Errorf("a call that was cancelled: %+v", m)
		}
	})
}

func TestShortCallsAreMeasuredNowAndThen(t *testing.T) {
	t.Parallel()
	for _, function := range []string{"f", "g"} {
		p := startApp(t, "def f(body): pass\nasync def g(body): pass\n", nil, function)
		eventually(t, "one that is measured", func() bool {
			for range 100 {
				if _, err := call(t, p, function, &triggers.Message{}); err != nil {
					t.Error(err)
					return true
				}
			}
			return p.Measures()[0].Measured > 0
		})
	}
}

func TestUnmeasured(t *testing.T) {
	t.Parallel()
	p := startApp(t, "import time\ndef f(body): time.sleep(0.01)\n", func(c *workers.Config) { c.Unmeasured = true }, "f")
	for range 5 {
		if _, err := call(t, p, "f", &triggers.Message{}); err != nil {
			t.Fatal(err)
		}
	}
	if m := p.Measures()[0]; m.Calls != 5 || m.Measured != 0 || m.CPU != 0 || m.Wall < 50*time.Millisecond {
		t.Errorf("%+v", m)
	}
}

// TestSettingsChangeWhileWorkersRun checks that the configured number of calls runs at once, in existing
// workers and in later ones.
func TestSettingsChangeWhileWorkersRun(t *testing.T) {
	t.Parallel()
	const source = `
import os, threading

lock, inside, most = threading.Lock(), 0, 0

def f(body):
    global inside, most
    with lock:
        inside += 1
        most = max(most, inside)
    threading.Event().wait(0.02)
    with lock:
        inside -= 1
        return str(most).encode()

def reset(body):
    global most
    most = 0

def die(body): os._exit(0)

async def beside(body): pass
`
	for name, functions := range map[string][]string{"alone": {"f", "reset", "die"}, "beside": {"f", "reset", "die", "beside"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startApp(t, source, nil, functions...)
			h, err := p.HandlerOf("f")
			if err != nil {
				t.Fatal(err)
			}
			// most is how many calls the worker saw at once.
			most := func() string {
				if _, err := call(t, p, "reset", &triggers.Message{}); err != nil {
					t.Fatal(err)
				}
				ended := make(chan string)
				for range 20 {
					go func() {
						got, err := h.Handle(t.Context(), &triggers.Message{})
						if err != nil {
							t.Error(err)
						}
						ended <- string(got)
					}()
				}
				last := ""
				for range 20 {
					last = max(last, <-ended) // of one digit
				}
				return last
			}
			if !p.IsTunable() {
				t.Fatal("a Python worker does not accept other settings")
			}
			// runs holds that so many run at once, and never more; a busy machine may take
			// several rounds to have them all run.
			runs := func(n int) {
				eventually(t, fmt.Sprintf("%d calls at once", n), func() bool {
					got, want := most(), string(rune('0'+n))
					if got > want {
						t.Fatalf("with %d threads %s calls ran at once", n, got)
					}
					return got == want
				})
			}
			for _, n := range []int{1, 4, 2, 6, 1, 3} {
				p.ApplySettings(workers.Settings{Threads: n})
				runs(n)
				if s := p.Settings(); s != (workers.Settings{Processes: 1, Threads: n, Coroutines: 512}) {
					t.Errorf("%+v", s)
				}
			}
			_, _ = call(t, p, "die", &triggers.Message{})
			runs(3) // of a new worker
			p.ApplySettings(workers.Settings{Processes: 2, Coroutines: 7})
			eventually(t, "two workers", func() bool { return p.Stats().Ready == 2 })
			eventually(t, "their room", func() bool { return h.Slots().Capacity() >= 6 })
			if name != "beside" {
				return
			}
			async, err := p.HandlerOf("beside")
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "the room of async functions", func() bool { return async.Slots().Capacity() >= 14 })
		})
	}
}

// TestNoCallWaitsForSettings checks that a worker whose main thread runs a call gets no more calls
// for threads that it cannot start before that call ends.
func TestNoCallWaitsForSettings(t *testing.T) {
	t.Parallel()
	p := startApp(t, mark+`
def f(body):
    mark(body)
    while not os.path.exists(body.decode() + ".go"): time.sleep(0.005)
`, nil, "f")
	h, err := p.HandlerOf("f")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "a")
	var calls sync.WaitGroup
	calls.Go(func() {
		if _, err := call(t, p, "f", &triggers.Message{Body: []byte(path)}); err != nil {
			t.Error(err)
		}
	})
	begun(t, path)
	p.ApplySettings(workers.Settings{Threads: 4})
	if n := h.Slots().Capacity(); n != 1 {
		t.Errorf("%d slots while a call runs in the only thread", n)
	}
	if err := os.WriteFile(path+".go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	calls.Wait()
	eventually(t, "the slots of four threads", func() bool { return h.Slots().Capacity() >= 4 })
}

// TestCallsAfterSettingsRunUnderThem checks that calls sent after SETTINGS run under those
// settings, also if both arrive together: with one thread, in the main thread.
func TestCallsAfterSettingsRunUnderThem(t *testing.T) {
	t.Parallel()
	p := startApp(t, `
import threading
def f(body): return str(threading.current_thread() is threading.main_thread())
`, func(c *workers.Config) { c.Settings.Threads = 4 }, "f")
	for range 50 {
		p.ApplySettings(workers.Settings{Threads: 4})
		var calls sync.WaitGroup
		for range 20 {
			calls.Go(func() {
				if got, err := call(t, p, "f", &triggers.Message{}); err != nil || string(got) != "False" {
					t.Errorf("%s, %v", got, err)
				}
			})
		}
		calls.Wait()
		p.ApplySettings(workers.Settings{Threads: 1})
		for range 20 {
			calls.Go(func() {
				if got, err := call(t, p, "f", &triggers.Message{}); err != nil || string(got) != "True" {
					t.Errorf("%s, %v", got, err)
				}
			})
		}
		calls.Wait()
	}
}

// TestWorkersAreRenewed checks that workers started under other settings take no more calls, finish
// those in flight, and are replaced. Workers that loaded the code with the new number of threads
// are replaced only if all must be.
func TestWorkersAreRenewed(t *testing.T) {
	t.Parallel()
	p := startApp(t, mark+`
def f(body):
    if body == b"who": return str(os.getpid())
    path = body.decode()
    mark(body)
    while not os.path.exists(path + ".go"): time.sleep(0.005)
    return str(os.getpid())
`, nil, "f")
	path := filepath.Join(t.TempDir(), "a")
	var calls sync.WaitGroup
	calls.Go(func() {
		if got, err := call(t, p, "f", &triggers.Message{Body: []byte(path)}); err != nil || len(got) == 0 {
			t.Errorf("a call in a worker that is replaced: %s, %v", got, err)
		}
	})
	first := strconv.Itoa(begun(t, path))
	p.ApplySettings(workers.Settings{Threads: 4})
	p.ApplySettings(workers.Settings{Threads: 1})
	p.RenewWorkers(false)
	if s := p.Stats(); s.Ready != 1 || s.Retiring != 0 {
		t.Errorf("it loaded the code with one thread, and is replaced: %+v", s)
	}
	p.RenewWorkers(true)
	if got, err := call(t, p, "f", &triggers.Message{Body: []byte("who")}); err != nil || string(got) == first {
		t.Errorf("a call after the renewal ran in %s, and the old worker is %s: %v", got, first, err)
	}
	if err := os.WriteFile(path+".go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	calls.Wait()
	eventually(t, "the old one has gone", func() bool {
		s := p.Stats()
		return s.Ready == 1 && s.Retiring == 0 && s.Restarts[process.CauseUndone] == 1
	})
}
