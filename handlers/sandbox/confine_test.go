package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/drover-run/drover/handlers/sandbox/launch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The tests run real processes: python3, like most workers.

func needsLinux(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("this needs Linux")
	}
}

func needsRoot(t *testing.T) {
	t.Helper()
	needsLinux(t)
	if os.Geteuid() != 0 {
		t.Skip("this needs root")
	}
}

func needsCgroup(t *testing.T, controller string) {
	t.Helper()
	needsLinux(t)
	if _, err := ownCgroups().findController(controller); err != nil {
		t.Skipf("this needs a cgroup: %v", err)
	}
}

func needsLandlock(t *testing.T, abi int) {
	t.Helper()
	needsLinux(t)
	if have := launch.LandlockABI(); have < abi || !launch.CallsKnown() {
		t.Skipf("this needs seccomp and version %d of landlock; there is %d", abi, have)
	}
}

// openDir is a directory that all users can read.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "confine-test-") //nolint:usetesting // the directory above t.TempDir is closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func confinement(t *testing.T, s Settings) *Confinement {
	t.Helper()
	if s.Dir == "" {
		s.Dir = openDir(t)
	}
	c, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	c.AddNeeded(pythonPaths(t)...)
	return c
}

// systemPython is an interpreter that other users can read, if there is one.
const systemPython = "/usr/bin/python3"

// python is the interpreter itself, not a script that starts one.
func python(t *testing.T) string {
	t.Helper()
	name := systemPython
	if _, err := os.Stat(name); err != nil {
		name = "python3"
	}
	out, err := exec.Command(name, "-c", "import sys; print(sys.executable)").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// pythonPaths are the paths of its own files.
func pythonPaths(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command(python(t), "-c", "import sys; print(sys.prefix, sys.base_prefix)").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

// ended is how a worker ended.
type ended struct {
	out     string // its output, of both streams
	err     error  // how it ended
	verdict error
	oom     bool
}

func start(t *testing.T, c *Confinement, box *Box, out *bytes.Buffer, command ...string) *exec.Cmd {
	t.Helper()
	program, name, args := box.WrapCommand(3, command[0], command[1:])
	cmd := exec.Command(program, args...)
	cmd.Args[0], cmd.Dir = name, c.settings.Dir
	cmd.Env = box.AddTemporary(c.FilterEnviron(os.Environ()))
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = 10 * time.Second
	if socket := box.ChildSocket(); socket != nil {
		cmd.ExtraFiles = []*os.File{socket}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// run runs a command like a worker.
func run(t *testing.T, c *Confinement, command ...string) (e ended) {
	t.Helper()
	box, err := c.NewBox()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := start(t, c, box, &out, command...)
	e.err = cmd.Wait()
	e.verdict, e.oom, e.out = box.LaunchError(), box.OutOfMemory(), strings.TrimSpace(out.String())
	if err := box.Close(); err != nil {
		t.Error(err)
	}
	for _, dir := range append(slices.Clone(box.groups), box.tmp) {
		if _, err := os.Stat(dir); dir != "" && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", dir, err)
		}
	}
	return e
}

func runPython(t *testing.T, c *Confinement, code string) ended {
	t.Helper()
	return run(t, c, python(t), "-c", code)
}

// wants compares a worker's output with the expected one.
func (e ended) wants(t *testing.T, out string) {
	t.Helper()
	if e.out != out || e.err != nil || e.verdict != nil {
		t.Errorf("it printed %q, wanted %q; it ended with %v; verdict %v", e.out, out, e.err, e.verdict)
	}
}

func TestWhatAllWorkersAreHeldTo(t *testing.T) {
	needsLinux(t)
	c := confinement(t, Settings{})
	// What the shell gave us, which Go raised for itself alone.
	out, err := exec.Command("sh", "-c", "ulimit -Sn").Output()
	if err != nil {
		t.Fatal(err)
	}
	soft, err := strconv.ParseUint(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	e := runPython(t, c, `
import resource
status = open('/proc/self/status').read()
print('NoNewPrivs:\t1' in status, resource.getrlimit(resource.RLIMIT_CORE), resource.getrlimit(resource.RLIMIT_NOFILE)[0])`)
	e.wants(t, fmt.Sprintf("True (0, 0) %d", soft))

	c = confinement(t, Settings{NewPrivileges: true})
	runPython(t, c, `print('NoNewPrivs:\t0' in open('/proc/self/status').read())`).wants(t, "True")
}

func TestArgumentsAndEnvironmentArriveAsTheyAre(t *testing.T) {
	needsLinux(t)
	c := confinement(t, Settings{Environment: Environment{Pass: []string{}, Set: map[string]string{"A": "1 2\n3", "GODEBUG": "x=y"}}})
	e := run(t, c, python(t), "-c", "import os, sys; print(sys.argv[1:], sorted((k, v) for k, v in os.environ.items() if k != 'LC_CTYPE'))", "a b", "", "--", "ü")
	e.wants(t, `['a b', '', '--', 'ü'] [('A', '1 2\n3'), ('GODEBUG', 'x=y')]`)
}

func TestOpenFiles(t *testing.T) {
	needsLinux(t)
	c := confinement(t, Settings{Limits: Limits{OpenFiles: 40}})
	runPython(t, c, `
import errno, os
held = []
try:
    while True: held.append(open(os.devnull))
except OSError as e:
    print(errno.errorcode[e.errno], 30 <= len(held) <= 40)`).wants(t, "EMFILE True")
}

func TestFileSize(t *testing.T) {
	needsLinux(t)
	c := confinement(t, Settings{Limits: Limits{FileSize: 4096}})
	runPython(t, c, `
import errno, os, tempfile
with tempfile.TemporaryFile(buffering=0) as f:
    f.write(b'x' * 4096)
    try:
        f.write(b'x')
    except OSError as e:
        print(errno.errorcode[e.errno])`).wants(t, "EFBIG")
}

func TestAddressSpace(t *testing.T) {
	needsLinux(t)
	c := confinement(t, Settings{Limits: Limits{AddressSpace: 512 << 20}})
	runPython(t, c, `
try:
    x = bytearray(1 << 30)
except MemoryError:
    print('MemoryError')`).wants(t, "MemoryError")
}

func TestCPUTime(t *testing.T) {
	needsLinux(t)
	c := confinement(t, Settings{Limits: Limits{CPUTime: time.Second}})
	e := runPython(t, c, "while True: pass")
	var exit *exec.ExitError
	if !errors.As(e.err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGXCPU || e.verdict != nil {
		t.Errorf("it ended with %v, verdict %v", e.err, e.verdict)
	}
}

func TestProcesses(t *testing.T) {
	needsCgroup(t, "pids")
	c := confinement(t, Settings{Limits: Limits{Processes: 12}})
	runPython(t, c, `
import threading
stop = threading.Event()
n = 0
try:
    while n < 100:
        threading.Thread(target=stop.wait).start()
        n += 1
except RuntimeError as e:
    print(n, e)
stop.set()`).wants(t, "11 can't start new thread")
}

func TestMemory(t *testing.T) {
	needsCgroup(t, "memory")
	c := confinement(t, Settings{Limits: Limits{Memory: 64 << 20}})
	e := runPython(t, c, "x = bytearray(16 << 20); print('well')")
	e.wants(t, "well")
	if e.oom {
		t.Error("it is reported as killed")
	}
	e = runPython(t, c, "x = bytearray(b'x') * (256 << 20); print('alive')")
	var exit *exec.ExitError
	if !errors.As(e.err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL || !e.oom || e.out != "" {
		t.Errorf("it ended with %v, printed %q, out of memory: %v", e.err, e.out, e.oom)
	}
}

// TestCPU makes a worker spin, and reads how often the kernel throttled it.
func TestCPU(t *testing.T) {
	needsCgroup(t, "cpu")
	c := confinement(t, Settings{Limits: Limits{CPU: 0.1}})
	box, err := c.NewBox()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := start(t, c, box, &out, python(t), "-c", "while True: pass")
	eventually(t, func() bool {
		text, err := os.ReadFile(filepath.Join(box.groups[0], "cpu.stat"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if name, n, _ := strings.Cut(strings.TrimSpace(line), " "); name == "nr_throttled" {
				times, _ := strconv.Atoi(n)
				return times >= 3
			}
		}
		return false
	})
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if err := errors.Join(box.LaunchError(), box.Close()); err != nil {
		t.Error(err)
	}
}

func eventually(t *testing.T, what func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(3 * time.Minute); !what(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to that")
		}
	}
}

// TestJoin puts a process that another forked into its own cgroup, like the workers of a template.
func TestJoin(t *testing.T) {
	needsCgroup(t, "pids")
	c := confinement(t, Settings{Limits: Limits{Processes: 5}})
	sleeper := exec.Command("sleep", "1000")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	box := c.ForkBox(&Box{})
	if err := box.JoinCgroup(sleeper.Process.Pid); err != nil {
		t.Fatal(err)
	}
	pids, err := pidsOf(box.groups[0])
	if err != nil || !slices.Equal(pids, []int{sleeper.Process.Pid}) {
		t.Errorf("in it are %v, %v", pids, err)
	}
	closed := make(chan error)
	go func() { closed <- box.Close() }() // which kills the processes in it
	if err := sleeper.Wait(); err == nil {
		t.Error("it lived")
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	box = c.ForkBox(&Box{})
	if err := box.JoinCgroup(sleeper.Process.Pid); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("a process that is gone: %v", err)
	}
	if err := box.Close(); err != nil {
		t.Error(err)
	}
}

// someUser is a user without rights.
func someUser(t *testing.T) *user.User {
	t.Helper()
	needsRoot(t)
	if _, err := os.Stat(systemPython); err != nil {
		t.Skipf("this needs a Python that others can read: %v", err)
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Skip("this needs the user nobody")
	}
	return u
}

func TestUser(t *testing.T) {
	nobody := someUser(t)
	dir := openDir(t)
	write(t, filepath.Join(dir, "app.py"), "value = 'read'\n")
	c := confinement(t, Settings{Dir: dir, DataDir: t.TempDir(), User: "nobody"})
	code := `
import os, app
def writes(path):
    try:
        open(path, 'w'); return True
    except OSError: return False
print(os.getresuid() + os.getresgid(), os.getgroups(), os.environ['USER'], os.environ['HOME'], app.value, writes('/etc/x'), writes('x'))
print([l.split()[1] for l in open('/proc/self/status') if l.startswith(('CapPrm', 'CapEff', 'CapAmb'))])`
	uid, gid := nobody.Uid, nobody.Gid
	groups, err := nobody.GroupIds()
	if err != nil {
		t.Fatal(err)
	}
	none := "0000000000000000"
	runPython(t, c, code).wants(t, fmt.Sprintf("(%[1]s, %[1]s, %[1]s, %[2]s, %[2]s, %[2]s) [%[3]s] nobody %[4]s read False False\n['%[5]s', '%[5]s', '%[5]s']",
		uid, gid, strings.Join(groups, ", "), nobody.HomeDir, none))

	// By numbers, and with its own group.
	c = confinement(t, Settings{Dir: dir, User: "54321", Group: "54322"})
	runPython(t, c, "import os; print(os.getresuid() + os.getresgid(), os.getgroups())").wants(t, "(54321, 54321, 54321, 54322, 54322, 54322) []")
	c = confinement(t, Settings{Dir: dir, Group: "54322"})
	runPython(t, c, "import os; print(os.getuid(), os.getgid(), os.getgroups())").wants(t, "0 54322 [54322]")
}

func TestTheFilesOfWorkersAreWhereTheirUserCanReadThem(t *testing.T) {
	someUser(t)
	data := t.TempDir()
	c, err := New(Settings{Dir: openDir(t), DataDir: data, User: "nobody"})
	if err != nil {
		t.Fatal(err)
	}
	files := c.FilesDir()
	write(t, filepath.Join(files, "worker.py"), "print('here')")
	c.AddNeeded(files)
	if err := c.TryLaunch(t.Context()); err != nil {
		t.Fatal(err)
	}
	run(t, c, python(t), filepath.Join(files, "worker.py")).wants(t, "here")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(files); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its files are left: %v", err)
	}
	if c := confinement(t, Settings{DataDir: data}); c.FilesDir() != data {
		t.Errorf("the daemon's own user has them in %s", c.FilesDir())
	}
}

func TestAnAppThatTheUserCannotReadIsRefused(t *testing.T) {
	someUser(t)
	dir := t.TempDir()
	c := confinement(t, Settings{Dir: dir, User: "nobody"})
	want := "reading as its user: " + dir + ": permission denied"
	if err := c.TryLaunch(t.Context()); err == nil || err.Error() != "its workers cannot be held to what they should: "+want {
		t.Errorf("%v", err)
	}
	e := runPython(t, c, "print('it runs')")
	if e.out != "" || e.err == nil || e.verdict == nil || e.verdict.Error() != want {
		t.Errorf("it printed %q, ended with %v, verdict %v", e.out, e.err, e.verdict)
	}
}

// An interrupted check reports the interruption, not a fault of the machine.
func TestACheckThatIsCutShort(t *testing.T) {
	t.Parallel()
	c := confinement(t, Settings{Limits: Limits{OpenFiles: 100}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	if err := c.TryLaunch(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// TestTheDeathOfTheParentIsStillFeltByAnotherUser: the kernel drops the parent death signal when
// the user changes.
func TestTheDeathOfTheParentIsStillFeltByAnotherUser(t *testing.T) {
	someUser(t)
	c := confinement(t, Settings{User: "nobody"})
	box, err := c.NewBox()
	if err != nil {
		t.Fatal(err)
	}
	program, name, args := box.WrapCommand(3, "/bin/sh", []string{"-c", "exec " + systemPython + " -c 'import ctypes; s = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(s)); print(s.value)'"})
	cmd := exec.Command(program, args...)
	cmd.Args[0], cmd.ExtraFiles, cmd.Dir = name, []*os.File{box.ChildSocket()}, "/"
	setParentDeath(cmd)
	runtime.LockOSThread() // the signal comes at the thread's end
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	if strings.TrimSpace(string(out)) != "9" || err != nil || box.LaunchError() != nil {
		t.Errorf("%q, %v", out, err)
	}
	if err := box.Close(); err != nil {
		t.Error(err)
	}
}

// The error names the step that failed, and the command does not run.
func TestAStepThatFails(t *testing.T) {
	needsLinux(t)
	dir := openDir(t)
	for _, c := range []struct {
		spec launch.Spec
		path string
		want string
	}{
		{launch.Spec{Cgroups: []string{filepath.Join(dir, "none", "cgroup.procs")}}, "/bin/true", "joining its cgroup: open "},
		{launch.Spec{Rlimits: []launch.Rlimit{{Name: "open_files", Resource: unix.RLIMIT_NOFILE, Value: 1 << 62}}}, "/bin/true", "setting its limits: open_files 4611686018427387904: operation not permitted"},
		{launch.Spec{Reachable: []string{filepath.Join(dir, "none")}}, "/bin/true", "reading as its user: "},
		{launch.Spec{}, filepath.Join(dir, "none"), "running " + filepath.Join(dir, "none") + ": no such file or directory"},
	} {
		box := &Box{confinement: new(Confinement)}
		var err error
		if box.ours, box.theirs, err = socketpair(); err != nil {
			t.Fatal(err)
		}
		if err := launch.SendSpec(box.ours, c.spec); err != nil {
			t.Fatal(err)
		}
		program, name, args := box.WrapCommand(3, c.path, nil)
		cmd := exec.Command(program, args...)
		cmd.Args[0], cmd.ExtraFiles = name, []*os.File{box.ChildSocket()}
		if err := cmd.Run(); err == nil {
			t.Errorf("%s: it ended well", c.want)
		}
		if err := box.LaunchError(); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%v; wanted %s", err, c.want)
		}
		if err := box.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A stage that is killed reports nothing, which does not count as success.
func TestAStageThatSaysNothing(t *testing.T) {
	needsLinux(t)
	c := confinement(t, Settings{})
	box, err := c.NewBox()
	if err != nil {
		t.Fatal(err)
	}
	if err := box.LaunchError(); !errors.Is(err, launch.ErrNoReport) {
		t.Errorf("%v", err)
	}
	if err := box.Close(); err != nil {
		t.Error(err)
	}
	var s launch.Spec
	s.Reachable = []string{strings.Repeat("x", 70_000)}
	if err := launch.SendSpec(new(bytes.Buffer), s); err == nil || !strings.Contains(err.Error(), "list fewer paths") {
		t.Errorf("a spec that is too large: %v", err)
	}
}

func TestTry(t *testing.T) {
	needsLinux(t)
	c := confinement(t, Settings{})
	if err := c.TryLaunch(t.Context()); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.TryLaunch(ctx); err == nil {
		t.Error("it continued")
	}
}
