package python

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/sandbox"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/triggers"
)

// startSpared runs a pool with a spare worker, whose app records its imports in dir. It returns when
// both workers have loaded the code.
func startSpared(t *testing.T, source string, change func(*workers.Config)) (p *workers.Pool, dir string) {
	t.Helper()
	p = startApp(t, imports+mark+source, func(c *workers.Config) {
		c.Spare, dir = workers.Spare{Keep: true, After: time.Millisecond}, c.App
		if change != nil {
			change(c)
		}
	}, "f")
	awaitSpare(t, p)
	return p, dir
}

func awaitSpare(t *testing.T, p *workers.Pool) {
	t.Helper()
	eventually(t, "a worker and a spare one", func() bool {
		s := p.Stats()
		return s.Ready == s.Wanted && s.Spare == 1
	})
}

// sparePID is the process of the spare worker: of those that have loaded the code, the one that lives
// and is no worker of the pool.
func sparePID(t *testing.T, p *workers.Pool, dir string) int {
	t.Helper()
	var found []int
	eventually(t, "one spare worker", func() bool {
		awaitSpare(t, p)
		found = nil
		for _, text := range imported(t, dir) {
			pid := atoi(t, text)
			if !slices.Contains(p.Stats().PIDs, pid) && syscall.Kill(pid, 0) == nil {
				found = append(found, pid)
			}
		}
		return len(found) == 1
	})
	return found[0]
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// The messages of a worker that is killed run again in the spare worker, all at once, and no
// message fails. Then there is a spare worker again.
func TestTheSpareWorkerTakesOver(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, prefix, wait string
		threads, inFlight  int
	}{
		{"inline", "", "time.sleep(60)", 1, 1},
		{"threads", "", "time.sleep(60)", 16, 16},
		{"async", "async ", "await asyncio.sleep(60)", 1, 16},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			// The second runs wait for each other: they are together in one worker.
			p, dir := startSpared(t, test.prefix+`def f(body):
    path = body.decode()
    if not os.path.exists(path):
        mark(body)
        `+test.wait+`
    mark(body + b".again")
    while len([name for name in os.listdir(os.path.dirname(path)) if name.endswith(".again")]) < `+fmt.Sprint(test.inFlight)+`:
        `+strings.ReplaceAll(test.wait, "60", "0.005")+`
    return str(os.getpid())
`, func(c *workers.Config) { c.Settings.Threads = test.threads })
			spare, marks := sparePID(t, p, dir), t.TempDir()
			var calls sync.WaitGroup
			killed := 0
			for i := range test.inFlight {
				path := filepath.Join(marks, fmt.Sprint(i))
				calls.Go(func() {
					out, err := call(t, p, "f", &triggers.Message{ID: path, Body: []byte(path)})
					if err != nil || string(out) != fmt.Sprint(spare) {
						t.Errorf("message %d ended with %q, %v; want that it runs again in %d", i, out, err, spare)
					}
				})
				killed = begun(t, path)
			}
			kill(t, killed)
			calls.Wait()
			awaitSpare(t, p)
			if s := p.Stats(); len(s.Restarts) != 1 || s.Restarts[process.CauseMemory] != 1 {
				t.Errorf("%+v; want one restart", s)
			}
		})
	}
}

// A batch, too, runs again in the spare worker.
func TestTheSpareWorkerTakesOverABatch(t *testing.T) {
	t.Parallel()
	p, dir := startSpared(t, `
def f(messages):
    path = messages[0].body
    if not os.path.exists(path):
        mark(path)
        time.sleep(60)
    return str(os.getpid())
`, takesBatches)
	spare, path := sparePID(t, p, dir), filepath.Join(t.TempDir(), "mark")
	ended := make(chan error, 1)
	go func() {
		got, err := handler(t, p, "f").HandleBatch(soon(t), batchOf(path, "second"))
		if err == nil && string(got.Whole.Output) != fmt.Sprint(spare) {
			err = fmt.Errorf("it ended with %+v; want that it runs again in %d", got, spare)
		}
		ended <- err
	}()
	kill(t, begun(t, path))
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A message that kills its worker kills one spare worker at most. Its first death uses no attempt, the
// second one does, and from then on it runs in workers of its own.
func TestAKillerAndTheSpareWorker(t *testing.T) {
	t.Parallel()
	log := newLines()
	p, dir := startSpared(t, `
import signal
def f(body):
    if body == b"kills": os.kill(os.getpid(), signal.SIGKILL)
`, func(c *workers.Config) { c.Log = slog.New(slog.NewTextHandler(log, nil)) })
	first := sparePID(t, p, dir)
	kills := func() {
		t.Helper()
		_, err := call(t, p, "f", &triggers.Message{ID: "1", Body: []byte("kills")})
		var failure *handlers.Failure
		if !errors.As(err, &failure) || !strings.Contains(err.Error(), "killed by SIGKILL") {
			t.Fatalf("it ended with %v", err)
		}
	}
	kills()
	gone(t, first)
	log.wait(t, "this message kills its worker", "message=1")
	second := sparePID(t, p, dir)
	pids := p.Stats().PIDs
	for range 3 {
		kills()
	}
	if s := p.Stats(); sparePID(t, p, dir) != second || !slices.Equal(s.PIDs, pids) || s.Restarts[process.CauseMemory] != 1 {
		t.Errorf("the next attempts of a killer cost the spare worker %d or the workers %v: %+v", second, pids, s)
	}
	if n := log.count("a worker died"); n != 1 || log.count("in=0s") != 1 {
		t.Errorf("%d deaths, of which %d without delay; want one", n, log.count("in=0s"))
	}
}

// A call that ends its own worker, with nothing else in flight, has failed at once: that is proof. It
// does not get the spare worker.
func TestACrashIsNoMatterForTheSpareWorker(t *testing.T) {
	t.Parallel()
	p, dir := startSpared(t, "def f(body): os._exit(9)\n", nil)
	spare := sparePID(t, p, dir)
	if _, err := call(t, p, "f", &triggers.Message{ID: "1"}); err == nil || !strings.Contains(err.Error(), "exit status 9") {
		t.Errorf("it ended with %v", err)
	}
	eventually(t, "the replacement", func() bool { return p.Stats().Restarts[process.CauseExit] == 1 })
	if now := sparePID(t, p, dir); now != spare {
		t.Errorf("the spare worker was %d, and is %d", spare, now)
	}
}

// A worker that dies idle is replaced by the spare worker.
func TestTheSpareWorkerReplacesAnIdleOne(t *testing.T) {
	t.Parallel()
	p, dir := startSpared(t, "def f(body): return str(os.getpid())\n", nil)
	spare := sparePID(t, p, dir)
	kill(t, p.Stats().PIDs[0])
	eventually(t, "the replacement", func() bool { return slices.Equal(p.Stats().PIDs, []int{spare}) })
	if out, err := call(t, p, "f", &triggers.Message{ID: "1"}); err != nil || string(out) != fmt.Sprint(spare) {
		t.Errorf("%q, %v", out, err)
	}
	if next := sparePID(t, p, dir); next == spare {
		t.Errorf("the spare worker is still %d", next)
	}
}

// A spare worker that does not load the code, or dies, is replaced. The pool's worker continues.
func TestASpareWorkerThatFails(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		second string // what the second process to import the app does
		logged string
	}{
		"does not load": {"raise RuntimeError('the second one')", "the spare worker did not load the code"},
		"dies loading":  {"os._exit(3)", "the spare worker died"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := newLines()
			p, _ := startSpared(t, `
if len(open(os.path.join(os.path.dirname(__file__), "imports")).readlines()) == 2: `+test.second+`
def f(body): return str(os.getpid())
`, func(c *workers.Config) { c.Log = slog.New(slog.NewTextHandler(log, nil)) })
			log.wait(t, test.logged, "in=")
			pids := p.Stats().PIDs
			if out, err := call(t, p, "f", &triggers.Message{ID: "1"}); err != nil || string(out) != fmt.Sprint(pids[0]) {
				t.Errorf("%q, %v; want %v", out, err, pids)
			}
			if s := p.Stats(); len(s.Restarts) != 0 {
				t.Errorf("%+v; want no restart", s)
			}
		})
	}
	t.Run("dies idle", func(t *testing.T) {
		t.Parallel()
		log := newLines()
		p, dir := startSpared(t, "def f(body): pass\n", func(c *workers.Config) { c.Log = slog.New(slog.NewTextHandler(log, nil)) })
		pids, spare := p.Stats().PIDs, sparePID(t, p, dir)
		kill(t, spare)
		log.wait(t, "the spare worker died", "killed by SIGKILL")
		if now := sparePID(t, p, dir); now == spare || !slices.Equal(p.Stats().PIDs, pids) || len(p.Stats().Restarts) != 0 {
			t.Errorf("the spare worker is %d, was %d: %+v", now, spare, p.Stats())
		}
	})
}

// The end of the pool ends its spare worker, and so does a target of 0 workers.
func TestTheSpareWorkerEndsWithThePool(t *testing.T) {
	t.Parallel()
	spare := 0
	t.Run("pool", func(t *testing.T) {
		p, dir := startSpared(t, "def f(body): pass\n", nil)
		spare = sparePID(t, p, dir)
		p.Scale(0)
		gone(t, spare)
		p.Scale(1)
		spare = sparePID(t, p, dir)
	})
	if err := syscall.Kill(spare, 0); err == nil {
		t.Errorf("process %d outlived its pool", spare)
	}
}

// With a template there is no spare worker. Memory can forbid one, too.
func TestPoolsWithoutASpareWorker(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*workers.Config){
		"template": func(c *workers.Config) { c.Template = true },
		"memory":   func(c *workers.Config) { c.Spare.Fits = func(memory uint64) bool { return memory < 1<<20 } },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log, dir := newLines(), ""
			p := startApp(t, imports+"def f(body): return str(os.getpid())\n", func(c *workers.Config) {
				c.Spare, c.Log, dir = workers.Spare{Keep: true, After: time.Millisecond}, slog.New(slog.NewTextHandler(log, nil)), c.App
				change(c)
			}, "f")
			eventually(t, "a worker", func() bool { return p.Stats().Ready == 1 })
			if name == "memory" {
				log.wait(t, "no spare worker: memory is short", "worker_bytes=")
			}
			kill(t, p.Stats().PIDs[0])
			eventually(t, "the replacement", func() bool { s := p.Stats(); return s.Ready == 1 && s.Restarts[process.CauseMemory] == 1 })
			want := 2
			if name == "template" {
				want = 1
			}
			if n := len(imported(t, dir)); n != want || p.Stats().Spare != 0 {
				t.Errorf("%d processes have loaded the code, want %d: %+v", n, want, p.Stats())
			}
		})
	}
}

// A worker that reaches limits.memory has not proved anything about the message in flight: earlier
// ones may have left the memory behind. The message runs again in the spare worker, which has its own limit.
func TestTheSpareWorkerAndALimitOfMemory(t *testing.T) {
	c := confined(t, sandbox.Settings{Limits: sandbox.Limits{Memory: 144 << 20}})
	p, dir := startSpared(t, `
kept = []
def f(body):
    if body == b"leak": kept.append(b"x" * (100 << 20))
    if body == b"innocent": bytearray(b"x") * (60 << 20)
    return str(os.getpid())
`, func(cfg *workers.Config) { cfg.Confine = c })
	spare := sparePID(t, p, dir)
	if _, err := call(t, p, "f", &triggers.Message{ID: "1", Body: []byte("leak")}); err != nil {
		t.Fatal(err)
	}
	if out, err := call(t, p, "f", &triggers.Message{ID: "2", Body: []byte("innocent")}); err != nil || string(out) != fmt.Sprint(spare) {
		t.Errorf("%q, %v; want that it runs again in %d", out, err, spare)
	}
	eventually(t, "the replacement", func() bool { return p.Stats().Restarts[process.CauseOOM] == 1 })
}
