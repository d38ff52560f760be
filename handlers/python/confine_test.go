package python

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/sandbox"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/triggers"
)

// confined applies settings to an app's workers until the pool has ended.
func confined(t *testing.T, s sandbox.Settings) *sandbox.Confinement {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("this needs Linux")
	}
	if err := sandbox.Check(s); err != nil {
		t.Skipf("not possible here: %v", err)
	}
	s.Dir = t.TempDir()
	c, err := sandbox.New(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

const hungry = `
def f(body):
    if body: return str(len(bytearray(b"x") * (int(body) << 20)))
    return open("/proc/self/cgroup").read()
`

// Each worker has its own cgroup, also if it was forked. A worker that uses too much memory dies
// alone, with a known cause.
func TestWorkersAreLimitedOneByOne(t *testing.T) {
	for _, template := range []bool{false, true} {
		t.Run(fmt.Sprint("template ", template), func(t *testing.T) {
			c := confined(t, sandbox.Settings{Limits: sandbox.Limits{Memory: 192 << 20}})
			p := startApp(t, hungry, func(cfg *workers.Config) { cfg.Confine, cfg.Template, cfg.Settings.Processes = c, template, 2 }, "f")
			eventually(t, "two workers", func() bool { return p.Stats().Ready == 2 })
			groups := make(map[string]bool)
			for _, pid := range p.Stats().PIDs {
				text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
				if err != nil {
					t.Fatal(err)
				}
				for line := range strings.Lines(string(text)) {
					if strings.Contains(line, "/drover-") {
						groups[line] = true
					}
				}
			}
			if len(groups) != 2 {
				t.Errorf("two workers are in %v", groups)
			}
			f := handler(t, p, "f")
			_, err := handle(soon(t), f, &triggers.Message{Body: []byte("400")})
			var failure *handlers.Failure
			if !errors.As(err, &failure) || !strings.Contains(failure.Summary, "it exceeded limits.memory (") || !strings.Contains(failure.Summary, " MiB), and the kernel killed it; ") || !strings.Contains(failure.Summary, " MiB were resident at most") {
				t.Errorf("%v", err)
			}
			eventually(t, "another worker", func() bool { return p.Stats().Ready == 2 && p.Stats().Restarts[process.CauseOOM] == 1 })
			if out, err := handle(soon(t), f, &triggers.Message{Body: []byte("10")}); err != nil || string(out) != "10485760" {
				t.Errorf("%q, %v", out, err)
			}
		})
	}
}

// A worker whose limits can no longer be enforced does not start, and reports the reason.
func TestAWorkerThatCannotBeHeldDoesNotRun(t *testing.T) {
	c := confined(t, sandbox.Settings{Strict: true})
	gone := filepath.Join(t.TempDir(), "gone")
	c.AddNeeded(gone)
	ran := filepath.Join(t.TempDir(), "ran")
	p := newApp(t, fmt.Sprintf("open(%q, 'w')\ndef f(body): pass", ran), func(cfg *workers.Config) { cfg.Confine = c }, "f")
	var loadError *handlers.LoadError
	if err := p.WaitReady(soon(t)); !errors.As(err, &loadError) ||
		!strings.Contains(loadError.Summary, "it could not be held to what it should: reading as its user: "+gone+": no such file or directory") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(ran); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its code ran: %v", err)
	}
}

// strictly runs an app's workers in a strict sandbox.
func strictly(t *testing.T, s sandbox.Settings) func(*workers.Config) {
	t.Helper()
	s.Strict = true
	c := confined(t, s)
	return func(cfg *workers.Config) {
		interpreter, home := installation.find(t)
		layout, err := ReadLayout(t.Context(), interpreter)
		if err != nil {
			t.Fatal(err)
		}
		c.AddNeeded(append(layout.Homes, cfg.App, home)...)
		c.AddReadable(layout.Libraries...)
		cfg.Command.Path, cfg.Confine = layout.Executable, c
	}
}

// Forked workers inherit the sandbox, including the part that the daemon enforces, also after their
// template has ended.
func TestForkedWorkersReachNoLinkLocalAddress(t *testing.T) {
	strict := strictly(t, sandbox.Settings{})
	p := startApp(t, `
import os, socket
template = os.getpid()
server = socket.create_server(("127.0.0.1", 0))
def f(body):
    def reaches(*to):
        try: socket.create_connection(to, 5).close(); return "done"
        except OSError as e: return e.strerror
    open(os.environ["TMPDIR"] + "/x", "w").close()
    near = reaches(*server.getsockname())
    if near == "done": server.accept()[0].close() # no connection waits: many would fill the queue
    return f"{os.getpid()} {near}, {reaches('169.254.169.254', 80)}, {template}"
`, func(cfg *workers.Config) { strict(cfg); cfg.Template, cfg.Settings.Processes = true, 2 }, "f")
	for range 2 {
		template := 0
		for pid, got := range answers(t, p, "f") {
			of, found := strings.CutPrefix(got, "done, Permission denied, ")
			if !found {
				t.Fatalf("%s: %s", pid, got)
			}
			template = atoi(t, of)
		}
		_ = syscall.Kill(template, syscall.SIGKILL)
	}
}

const filling = `
import os, tempfile, threading
def write(name, size=3 << 20):
    with open(os.path.join(tempfile.gettempdir(), name), "wb") as file: file.write(bytes(size))
def fill(message, context):
    how = message.text()
    if how == "one file": return write("one", 5 << 20)
    if how == "files":
        for n in range(3): write(str(n))
    if how == "empty files":
        for n in range(2000): write(str(n), 0)
    if how == "deleted files":
        global files
        files = [tempfile.TemporaryFile() for _ in range(3)]
        for file in files: file.write(bytes(3 << 20)); file.flush()
    if how == "deep":
        os.chdir(tempfile.gettempdir())
        for n in range(30): os.mkdir("d" * 200); os.chdir("d" * 200)
    threading.Event().wait()
def keep(message, context):
    write("kept", 512 << 10)  # with the largest of fill that is allowed, and the directory, less than the limit
    return f"{os.getpid()} {os.environ['TMPDIR']} {tempfile.gettempdir()}"
`

// A worker that uses too much of its temporary directory is killed. Its message has failed, and
// other workers continue.
func TestTemporaryDirectoriesAreBounded(t *testing.T) {
	for _, template := range []bool{false, true} {
		t.Run(fmt.Sprint("template ", template), func(t *testing.T) {
			strict := strictly(t, sandbox.Settings{Temporary: 6 << 20})
			p := startApp(t, filling, func(cfg *workers.Config) { strict(cfg); cfg.Template, cfg.Settings.Processes = template, 2 }, "fill", "keep")
			eventually(t, "two workers", func() bool { return p.Stats().Ready == 2 })
			if s := p.Stats(); s.Template != template {
				t.Errorf("a template: %v", s.Template)
			}
			for i, c := range []struct{ how, want string }{
				{"files", `holds \d+ MiB; sandbox.temporary allows 6 MiB`},
				{"empty files", `holds \d+ MiB; sandbox.temporary allows 6 MiB`},
				{"deleted files", `holds \d+ MiB; sandbox.temporary allows 6 MiB`},
				{"deep", `cannot be measured: file name too long`},
			} {
				_, err := call(t, p, "fill", &triggers.Message{ID: c.how, Body: []byte(c.how)})
				var failure *handlers.Failure
				if want := regexp.MustCompile(`^the worker process died: its temporary directory ` + c.want + `$`); !errors.As(err, &failure) || !want.MatchString(failure.Summary) {
					t.Errorf("%s: %v", c.how, err)
				}
				eventually(t, "another worker", func() bool { return p.Stats().Ready == 2 && p.Stats().Restarts[process.CauseFiles] == i+1 })
			}
			if _, err := call(t, p, "fill", &triggers.Message{Body: []byte("one file")}); err != nil {
				t.Errorf("a file below the limit: %v", err)
			}
			dirs := make(map[string]bool)
			for pid, got := range answers(t, p, "keep") {
				dir, rest, _ := strings.Cut(got, " ")
				if info, err := os.Stat(filepath.Join(dir, "kept")); err != nil || info.Size() != 512<<10 || rest != dir {
					t.Errorf("%s: %s, %v", pid, got, err)
				}
				dirs[dir] = true
			}
			if len(dirs) != 2 {
				t.Errorf("two workers have %v", dirs)
			}
		})
	}
}

// A single file is limited like its directory.
func TestFilesAreBoundedAsTheirDirectory(t *testing.T) {
	p := startApp(t, filling, strictly(t, sandbox.Settings{Temporary: 4 << 20}), "fill")
	if _, err := call(t, p, "fill", &triggers.Message{Body: []byte("one file")}); err == nil || !strings.Contains(err.Error(), "File too large") {
		t.Errorf("%v", err)
	}
}
