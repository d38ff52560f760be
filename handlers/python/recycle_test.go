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
	"syscall"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/triggers"
)

// Workers are replaced after a number of invocations, and no call fails because of it.
func TestMaxInvocations(t *testing.T) {
	t.Parallel()
	for _, mode := range []struct {
		name, prefix string
		threads      int
	}{{"inline", "", 1}, {"threads", "", 4}, {"async", "async ", 1}} {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			p := startApp(t, "import os\n"+mode.prefix+"def f(body): return str(os.getpid())\n", func(cfg *workers.Config) {
				cfg.Settings.Threads, cfg.Settings.Processes, cfg.Template = mode.threads, 2, true
				cfg.Recycle.MaxInvocations = 50
			}, "f")
			var seen sync.Map
			var calls sync.WaitGroup
			until := soon(t)
			enough := func() bool { return p.Stats().Restarts[process.CauseInvocations] >= 4 }
			for range 4 {
				calls.Go(func() {
					for !enough() && until.Err() == nil {
						got, err := call(t, p, "f", &triggers.Message{})
						if err != nil {
							t.Errorf("a call: %v", err)
							return
						}
						seen.Store(string(got), true)
					}
				})
			}
			calls.Wait()
			eventually(t, "four replaced workers", enough)
			n := 0
			seen.Range(func(any, any) bool { n++; return true })
			if n < 3 {
				t.Errorf("%d workers took messages", n)
			}
			for cause, n := range p.Stats().Restarts {
				if cause != process.CauseInvocations {
					t.Errorf("%d restarts by %s", n, cause)
				}
			}
		})
	}
}

// The old worker takes messages until its replacement has loaded the code.
func TestTheReplacementIsReadyFirst(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	t.Cleanup(func() { _ = os.WriteFile(filepath.Join(dir, "go"), nil, 0o600) })
	p := startApp(t, fmt.Sprintf(`
import os, time
place = %q
if os.path.exists(place + "/first"):
    while not os.path.exists(place + "/go"): time.sleep(0.005)
open(place + "/first", "w").close()
def f(body): return str(os.getpid())
`, dir), func(cfg *workers.Config) { cfg.Recycle.MaxAge = 50 * time.Millisecond }, "f")
	pid := func() string {
		got, err := call(t, p, "f", &triggers.Message{})
		if err != nil {
			t.Fatal(err)
		}
		return string(got)
	}
	first := pid()
	eventually(t, "a replacement", func() bool { return p.Stats().Starting == 1 })
	for range 20 {
		if got := pid(); got != first {
			t.Fatalf("worker %s answers, before it can have loaded the code; want %s", got, first)
		}
	}
	if s := p.Stats(); s.Ready != 1 || s.Starting != 1 || s.Restarts[process.CauseAge] != 0 {
		t.Errorf("%+v; want the old one ready and the new one starting", s)
	}
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new one answers", func() bool { return pid() != first })
	eventually(t, "the old one is gone", func() bool {
		s := p.Stats()
		return s.Restarts[process.CauseAge] >= 1 && s.Retiring == 0
	})
}

// Workers that have reached max_age are replaced one at a time, and the others stay.
func TestOneIsRecycledAtATime(t *testing.T) {
	t.Parallel()
	p := startApp(t, "def f(body): return body", func(cfg *workers.Config) {
		cfg.Settings.Processes, cfg.Recycle.MaxAge = 3, 50*time.Millisecond
	}, "f")
	eventually(t, "three workers", func() bool { return p.Stats().Ready >= 3 })
	eventually(t, "three have been replaced", func() bool {
		s := p.Stats()
		if s.Ready < 3 || s.Ready+s.Starting > 4 {
			t.Errorf("%+v; want three ready at all times, and one more at most", s)
		}
		return s.Restarts[process.CauseAge] >= 3
	})
}

// Only the worker's own memory counts.
func TestMaxMemory(t *testing.T) {
	t.Parallel()
	large := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(large, make([]byte, 160<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startApp(t, fmt.Sprintf(`
import mmap, os
kept = []
def f(body):
    if body == b"leak": kept.append(b"x" * (160 << 20))
    if body == b"read":
        with open(%q, "rb") as file: kept.append(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
        sum(kept[-1][at] for at in range(0, len(kept[-1]), 4096))
    return str(os.getpid())
`, large), func(cfg *workers.Config) {
		cfg.Recycle = workers.Recycle{MaxMemory: 128 << 20, MaxAge: time.Hour}
	}, "f")
	do := func(what string) string {
		got, err := call(t, p, "f", &triggers.Message{Body: []byte(what)})
		if err != nil {
			t.Fatal(err)
		}
		return string(got)
	}
	first := do("read")
	if u := p.Usage(); u.Known && u.Largest < 160<<20 {
		t.Errorf("%+v; the file is to be in its memory", u)
	}
	if got := do("leak"); got != first {
		t.Errorf("worker %s answers, and not %s: it was replaced for what it read of a file", got, first)
	}
	eventually(t, "it is replaced for what it leaked", func() bool { return do("") != first })
	if n := p.Stats().Restarts[process.CauseAnonymous]; n != 1 {
		t.Errorf("%d restarts for memory, want 1", n)
	}
}

// A worker that had work and has been idle for long is replaced.
func TestMaxIdle(t *testing.T) {
	t.Parallel()
	p := startApp(t, "import os\ndef f(body): return str(os.getpid())", func(cfg *workers.Config) {
		cfg.Recycle.MaxIdle = 10 * time.Millisecond
	}, "f")
	first, err := call(t, p, "f", &triggers.Message{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is replaced", func() bool { return p.Stats().Restarts[process.CauseIdle] == 1 })
	if got, err := call(t, p, "f", &triggers.Message{}); err != nil || string(got) == string(first) {
		t.Errorf("%s, %v; want another worker than %s", got, err, first)
	}
}

// A worker that dies occasionally is replaced at once, and the next one only after a pause.
func TestTheFirstDeathCostsNoPause(t *testing.T) {
	t.Parallel()
	log := newLines()
	p := startApp(t, "import os\ndef f(body): return str(os.getpid())", func(cfg *workers.Config) { cfg.Log = slog.New(slog.NewTextHandler(log, nil)) }, "f")
	for range 2 {
		eventually(t, "a worker", func() bool { return p.Stats().Ready == 1 })
		pid := p.Stats().PIDs[0]
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		log.wait(t, "it will be replaced", fmt.Sprintf("worker=%d", pid))
	}
	if text := log.String(); strings.Count(text, "in=0s") != 1 {
		t.Errorf("want one replacement at once, and one after a pause:\n%s", text)
	}
}

// While a call ignores its cancellation, its worker takes no more, and the other calls in it end
// normally.
func TestTheNeighboursOfAStuckCallFinish(t *testing.T) {
	// It runs alone, since it judges times.
	p := startApp(t, mark+`
import signal, threading
def f(body):
    if body == b"ok": return str(os.getpid())
    mark(body)
    if body.endswith(b"stuck"):
        lock = threading.Lock()
        lock.acquire()
        lock.acquire() # nothing wakes it
    while not os.path.exists(body.decode() + ".go"): time.sleep(0.005)
    return str(os.getpid())
`, func(cfg *workers.Config) { cfg.Settings.Threads, cfg.KillGrace = 2, 4*time.Second }, "f")
	dir := t.TempDir()
	var calls sync.WaitGroup
	beside := filepath.Join(dir, "beside")
	calls.Go(func() {
		got, err := call(t, p, "f", &triggers.Message{Body: []byte(beside)})
		if err != nil {
			t.Errorf("the neighbour: %v", err)
		}
		if text, _ := os.ReadFile(beside); string(text) != string(got) {
			t.Errorf("the neighbour began in worker %s and ended in %s", text, got)
		}
	})
	old := begun(t, beside)
	calls.Go(func() {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := handle(ctx, handler(t, p, "f"), &triggers.Message{Body: []byte(filepath.Join(dir, "stuck"))})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the stuck call: %v; want it timed out", err)
		}
	})
	eventually(t, "it takes no more, and another is ready", func() bool { s := p.Stats(); return s.Retiring == 1 && s.Ready == 1 })
	if got, err := call(t, p, "f", &triggers.Message{Body: []byte("ok")}); err != nil || string(got) == fmt.Sprint(old) {
		t.Errorf("%s, %v; want another worker than %d", got, err, old)
	}
	if err := os.WriteFile(beside+".go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	calls.Wait()
	eventually(t, "the old one is gone", func() bool { return p.Stats().Retiring == 0 })
	gone(t, old)
	if s := p.Stats(); s.Restarts[process.CauseTimeout] != 1 || len(s.Restarts) != 1 {
		t.Errorf("%+v; want one restart, for a timeout", s)
	}
}
