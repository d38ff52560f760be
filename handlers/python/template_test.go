package python

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/prometheus/procfs"

	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/triggers"
)

// imports is Python code that records each import of the app in a file of its directory.
const imports = `
import os, sys, time
with open(os.path.join(os.path.dirname(__file__), "imports"), "a") as file: file.write(f"{os.getpid()}\n")
`

// imported returns the processes that imported the app of a pool.
func imported(t *testing.T, dir string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "imports"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(text))
}

// answers calls a function until each worker has answered, and returns the answers by worker. The
// function's answer begins with its process number.
func answers(t *testing.T, p *workers.Pool, function string) map[string]string {
	t.Helper()
	said := make(map[string]string)
	var mu sync.Mutex
	eventually(t, "an answer of each worker", func() bool {
		var calls sync.WaitGroup
		for range 8 {
			calls.Go(func() {
				got, err := call(t, p, function, &triggers.Message{})
				if err != nil {
					t.Error(err)
				}
				pid, rest, _ := strings.Cut(string(got), " ")
				mu.Lock()
				defer mu.Unlock()
				said[pid] = rest
			})
		}
		calls.Wait()
		s := p.Stats()
		return s.Ready == s.Wanted && !slices.ContainsFunc(s.PIDs, func(pid int) bool { return said[strconv.Itoa(pid)] == "" })
	})
	return said
}

// Workers of a template are forked: the app is imported once, and they behave like others.
func TestTemplate(t *testing.T) {
	t.Parallel()
	for _, mode := range []struct {
		name, prefix string
		threads      int
	}{{"inline", "", 1}, {"threads", "", 4}, {"async", "async ", 1}} {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			dir := ""
			p := startApp(t, imports+`
import random, signal, subprocess
`+mode.prefix+`def f(body):
    time.sleep(0.002)
    child = subprocess.run(["echo", "hello"], capture_output=True, check=True).stdout.decode().strip()
    own = os.getpgid(0) == os.getpid()
    return f"{os.getpid()} {os.getppid()} {own} {child} {random.random()} {signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL}"
`, func(cfg *workers.Config) {
				cfg.Template, cfg.Settings.Threads, cfg.Settings.Processes, dir = true, mode.threads, 3, cfg.App
			}, "f")
			eventually(t, "three workers", func() bool { return p.Stats().Ready == 3 })
			if !p.Stats().Template {
				t.Errorf("%+v; want a template", p.Stats())
			}
			var parents, numbers []string
			for pid, said := range answers(t, p, "f") {
				parts := strings.Fields(said)
				if len(parts) != 5 || parts[1] != "True" || parts[2] != "hello" || parts[4] != "True" {
					t.Errorf("worker %s says %q", pid, said)
					continue
				}
				parents, numbers = append(parents, parts[0]), append(numbers, parts[3])
			}
			slices.Sort(parents)
			slices.Sort(numbers)
			if n := len(slices.Compact(parents)); n != 1 {
				t.Errorf("the workers have %d parents, want 1: the reaper", n)
			}
			if n := len(slices.Compact(numbers)); n != 3 {
				t.Errorf("three workers have %d first random numbers", n)
			}
			by := imported(t, dir)
			if len(by) != 1 {
				t.Fatalf("the app was imported by %q, want one", by)
			}
			if by[0] == parents[0] || slices.Contains(p.Stats().PIDs, atoi(t, by[0])) {
				t.Errorf("the template %s is a worker, or their parent", by[0])
			}
			if runtime.GOOS == "linux" {
				// The one between it and the process that is forked ahead.
				eventually(t, "the template has one child left", func() bool { return len(children(t, atoi(t, by[0]))) == 1 })
			}
		})
	}
}

func atoi(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func children(t *testing.T, pid int) (found []int) {
	t.Helper()
	all, err := procfs.AllProcs()
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range all {
		if stat, err := one.Stat(); err == nil && stat.PPID == pid {
			found = append(found, one.PID)
		}
	}
	return found
}

// The end of the template affects no worker, and another template is started.
func TestATemplateThatIsKilled(t *testing.T) {
	t.Parallel()
	dir := ""
	p := startApp(t, imports+`
def f(body): return f"{os.getpid()} x"
`, func(cfg *workers.Config) { cfg.Template, cfg.Settings.Processes, dir = true, 2, cfg.App }, "f")
	eventually(t, "two workers", func() bool { return p.Stats().Ready == 2 })
	before := p.Stats().PIDs
	if err := syscall.Kill(atoi(t, imported(t, dir)[0]), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another template", func() bool { return len(imported(t, dir)) == 2 && p.Stats().Template })
	if after := p.Stats().PIDs; !slices.Equal(before, after) {
		t.Errorf("the workers were %v and are %v", before, after)
	}
	p.Scale(3)
	if said := answers(t, p, "f"); len(said) != 3 {
		t.Errorf("%d workers answer", len(said))
	}
	if n := len(imported(t, dir)); n != 2 {
		t.Errorf("the app was imported %d times, want twice: the third worker was to be forked", n)
	}
}

// A worker that dies is replaced by a new fork, and its leftovers are removed.
func TestAForkedWorkerThatIsKilled(t *testing.T) {
	t.Parallel()
	dir := ""
	p := startApp(t, imports+`
import subprocess
def f(body): return f"{os.getpid()} " + str(subprocess.Popen(["sleep", "1000"], start_new_session=True).pid)
`, func(cfg *workers.Config) { cfg.Template, dir = true, cfg.App }, "f")
	for range 2 {
		said := answers(t, p, "f")
		pid := p.Stats().PIDs[0]
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		gone(t, pid)
		gone(t, atoi(t, said[strconv.Itoa(pid)]))
		eventually(t, "another", func() bool { s := p.Stats(); return s.Ready == 1 && s.PIDs[0] != pid })
	}
	if by := imported(t, dir); len(by) != 1 {
		t.Errorf("the app was imported by %q, want one", by)
	}
	if s := p.Stats(); s.Restarts[process.CauseMemory] != 2 {
		t.Errorf("%+v; want two restarts for a SIGKILL", s)
	}
}

func TestForkedWorkersAreRecycled(t *testing.T) {
	t.Parallel()
	dir := ""
	p := startApp(t, imports+`
def f(body): return f"{os.getpid()} x"
`, func(cfg *workers.Config) { cfg.Template, cfg.Recycle.MaxInvocations, dir = true, 20, cfg.App }, "f")
	eventually(t, "ten were replaced", func() bool {
		if _, err := call(t, p, "f", &triggers.Message{}); err != nil {
			t.Fatal(err)
		}
		return p.Stats().Restarts[process.CauseInvocations] >= 10
	})
	if by := imported(t, dir); len(by) != 1 || len(p.Stats().Restarts) != 1 {
		t.Errorf("the app was imported by %q, want one; %+v", by, p.Stats())
	}
}

// If the code cannot be forked, each worker is started instead, and the log has the reason.
func TestCodeThatCannotBeForked(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, code, want string }{
		{"a thread", "import threading\nthreading.Thread(target=time.sleep, args=(1000,), name='telemetry', daemon=True).start()\n", "telemetry"},
		{"a connection", "import socket\nlistener = socket.create_server(('127.0.0.1', 0))\nclient = socket.create_connection(listener.getsockname())\n", "connections while it loads (127.0.0.1:"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			log, dir := newLines(), ""
			p := startApp(t, imports+test.code+"def f(body): return f'{os.getpid()} x'\n", func(cfg *workers.Config) {
				cfg.Template, cfg.Settings.Processes, dir = true, 2, cfg.App
				cfg.Log = slog.New(slog.NewTextHandler(log, nil))
			}, "f")
			log.wait(t, "start: template is not possible", test.want)
			eventually(t, "two workers", func() bool { return p.Stats().Ready == 2 })
			said := answers(t, p, "f")
			by := imported(t, dir)
			for _, pid := range by {
				if said[pid] == "" {
					t.Errorf("process %s has imported the app, and is not a worker", pid)
				}
			}
			if s := p.Stats(); len(by) != 2 || s.Template || !strings.Contains(s.Unforked, test.want) {
				t.Errorf("the app was imported by %q, want two; %+v", by, s)
			}
		})
	}
}

const hooked = imports + `
import drover, socket
calls = []
@drover.after_fork
def connect(): calls.append(os.getpid())
def f(body): return f"{os.getpid()} {calls == [os.getpid()]}"
`

// Each worker calls the app's hooks, forked or not. With hooks, the app itself is responsible for
// connections of the template.
func TestAfterFork(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, code string
		template   bool
	}{
		{"spawned", "", false},
		{"forked", "", true},
		{"forked, with a connection", "listener = socket.create_server(('127.0.0.1', 0))\nclient = socket.create_connection(listener.getsockname())\n", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := startApp(t, hooked+test.code, func(cfg *workers.Config) { cfg.Template, cfg.Settings.Processes = test.template, 2 }, "f")
			eventually(t, "two workers", func() bool { return p.Stats().Ready == 2 })
			for pid, said := range answers(t, p, "f") {
				if said != "True" {
					t.Errorf("in worker %s the hook was not called once", pid)
				}
			}
			if s := p.Stats(); s.Template != test.template || !s.Forkable {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestAHookThatRaises(t *testing.T) {
	t.Parallel()
	for _, forked := range []bool{false, true} {
		p := newApp(t, "import drover\n@drover.after_fork\ndef connect(): raise OSError('no database')\ndef f(body): pass\n", func(cfg *workers.Config) { cfg.Template = forked }, "f")
		_, err := call(t, p, "f", &triggers.Message{})
		if err == nil || !strings.Contains(err.Error(), "connect") || !strings.Contains(err.Error(), "no database") {
			t.Errorf("forked %t: %v; want what the hook raised", forked, err)
		}
	}
}

// The output of a forked worker, including that of C code, is attributed to it.
func TestWhatForkedWorkersSay(t *testing.T) {
	t.Parallel()
	log := newLines()
	p := startApp(t, "import os\ndef f(body):\n    print('printed')\n    os.write(1, b'written to one\\n')\n    os.write(2, b'written to two\\n')\n    return f'{os.getpid()} x'\n", func(cfg *workers.Config) {
		cfg.Template = true
		cfg.Log = slog.New(slog.NewTextHandler(log, nil))
	}, "f")
	for pid := range answers(t, p, "f") {
		for _, want := range []string{"printed", "written to one", "written to two"} {
			log.wait(t, want, fmt.Sprintf("worker=%s", pid))
		}
	}
}

// If templates end repeatedly, workers load the code themselves from then on.
func TestTemplatesThatEnd(t *testing.T) {
	t.Parallel()
	dir := ""
	p := startApp(t, imports+`
import signal
with open(os.path.join(os.path.dirname(__file__), "imports")) as file: count = len(file.readlines())
if count <= 3:
    signal.signal(signal.SIGALRM, lambda *_: os._exit(3))
    signal.setitimer(signal.ITIMER_REAL, 0.2)
def f(body): return str(os.getpid())
`, func(cfg *workers.Config) { cfg.Template, dir = true, cfg.App }, "f")
	n := 0
	eventually(t, "templates are given up", func() bool {
		n++
		p.Scale(1 + n%2) // a template is replaced when another worker is wanted
		return strings.HasPrefix(p.Stats().Unforked, "3 templates in a row ended")
	})
	p.Scale(2)
	eventually(t, "two workers, and no other process that has loaded the code", func() bool {
		s := p.Stats()
		return s.Ready == 2 && !slices.ContainsFunc(imported(t, dir), func(pid string) bool {
			number, err := strconv.Atoi(pid)
			return err == nil && !slices.Contains(s.PIDs, number) && syscall.Kill(number, 0) == nil
		})
	})
	if s := p.Stats(); s.Template {
		t.Errorf("%+v", s)
	}
}
