package python

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/triggers"
)

// leaving is an app that starts a daemon in the standard way, with a new session and two forks.
const leaving = mark + `
import signal, subprocess
def leave(body):
    up, down = os.pipe()
    between = os.fork()
    if between == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(down, b"%d" % os.getpid())
            for s in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT): signal.signal(s, signal.SIG_IGN)
            while True: time.sleep(1000)
        os._exit(0)
    os.waitpid(between, 0)
    return os.read(up, 20)
def end(body):
    if body == b"crash": os.kill(os.getpid(), signal.SIGSEGV)
    if body == b"exit": os._exit(0)
    while True:
        try: time.sleep(1000)
        except BaseException: pass  # a timeout, too
def slow(body):
    if os.path.exists(body): return "the second time"
    mark(body); time.sleep(1000)
def pid(body): return str(os.getpid())
`

// left makes a worker leave a daemon behind, and returns the number of that process.
func left(t *testing.T, p *workers.Pool) int {
	t.Helper()
	text, err := call(t, p, "leave", &triggers.Message{})
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func TestWhatAFunctionLeavesBehindEndsWithItsWorker(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"exit", "crash", "timeout", "kill", "scale"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			r := childproc.New(nil)
			t.Cleanup(r.Close)
			use := func(c *workers.Config) { c.Reaper = r }
			p, beside := startApp(t, leaving, use, "leave", "end", "pid"), startApp(t, leaving, use, "leave", "end", "pid")
			pids, neighbour := []int{left(t, p), left(t, p)}, left(t, beside)
			if _, err := call(t, p, "pid", &triggers.Message{}); err != nil {
				t.Fatal(err)
			}
			for _, pid := range pids {
				if err := syscall.Kill(pid, 0); err != nil {
					t.Errorf("it is gone, and its worker lives: %v", err)
				}
			}
			switch how {
			case "kill":
				if err := syscall.Kill(p.Stats().PIDs[0], syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			case "scale":
				p.Scale(0)
			default:
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if how != "timeout" {
					ctx = t.Context()
				}
				if _, err := handle(ctx, handler(t, p, "end"), &triggers.Message{Body: []byte(how)}); err == nil {
					t.Error("it did not fail")
				}
			}
			for _, pid := range pids {
				gone(t, pid)
			}
			if err := syscall.Kill(neighbour, 0); err != nil {
				t.Errorf("a neighbour's is gone, too: %v", err)
			}
		})
	}
}

func TestWhatAFunctionLeavesBehindEndsWithThePool(t *testing.T) {
	t.Parallel()
	pids := make(chan int, 1)
	t.Run("pool", func(t *testing.T) { pids <- left(t, startApp(t, leaving, nil, "leave", "end", "pid")) })
	gone(t, <-pids)
}

func TestTheReaperOfPoolsIsKilled(t *testing.T) {
	t.Parallel()
	r := childproc.New(nil)
	t.Cleanup(r.Close)
	use := func(c *workers.Config) { c.Reaper, c.Settings.Processes = r, 2 }
	one, two := startApp(t, leaving, use, "leave", "slow", "pid"), startApp(t, leaving, use, "leave", "end", "pid")
	pids := []int{left(t, one), left(t, two)}
	path := filepath.Join(t.TempDir(), "mark")
	ended := make(chan error, 1)
	go func() {
		out, err := call(t, one, "slow", &triggers.Message{Body: []byte(path)})
		if err == nil && string(out) != "the second time" {
			err = fmt.Errorf("it returned %q", out)
		}
		ended <- err
	}()
	begun(t, path)
	eventually(t, "all workers", func() bool { return one.Stats().Ready == 2 && two.Stats().Ready == 2 })
	if err := syscall.Kill(r.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the call in flight was charged: %v", err)
	}
	for _, pid := range pids {
		gone(t, pid)
	}
	for _, p := range []*workers.Pool{one, two} {
		if _, err := call(t, p, "pid", &triggers.Message{}); err != nil {
			t.Errorf("the next call: %v", err)
		}
		eventually(t, "new workers", func() bool { s := p.Stats(); return s.Ready == 2 && s.Restarts[process.CauseReaper] == 2 })
	}
}

func TestAPoolThatCannotStartAWorkerGoesOnTrying(t *testing.T) {
	t.Parallel()
	r := childproc.New(nil)
	t.Cleanup(r.Close)
	log := newLines()
	eventually(t, "the reaper", func() bool { return r.PID() != 0 })
	var was unix.Rlimit
	if err := unix.Prlimit(r.PID(), unix.RLIMIT_NOFILE, nil, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Prlimit(r.PID(), unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 5, Max: was.Max}, nil); err != nil {
		t.Fatal(err)
	}
	p := newApp(t, "def f(body): return 'fine'\n", func(c *workers.Config) {
		c.Reaper, c.Log = r, slog.New(slog.NewTextHandler(log, nil))
	}, "f")
	log.wait(t, "cannot start a worker; will try again", "handing over its files: too many open files; see ulimit -n")
	if err := unix.Prlimit(r.PID(), unix.RLIMIT_NOFILE, &was, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := call(t, p, "f", &triggers.Message{}); err != nil || string(got) != "fine" {
		t.Errorf("%s, %v", got, err)
	}
}
