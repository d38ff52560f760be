package childproc

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// living are the processes of a test, regardless of their parents: those with the test's name in
// their environment. (Zombies have none.)
func living(name string) (out []int) {
	for _, pid := range allPIDs() {
		for _, word := range bytes.Split(readProc(pid, "environ"), []byte{0}) {
			if string(word) == "DROVER_TEST_OF="+name {
				out = append(out, pid)
			}
		}
	}
	return out
}

// processGroups counts the process groups of the test's living processes.
func processGroups(name string) int {
	groups := map[int]bool{}
	for _, pid := range living(name) {
		if group, err := unix.Getpgid(pid); err == nil {
			groups[group] = true
		}
	}
	return len(groups)
}

func settled(t *testing.T, name string, n int) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			for _, pid := range living(name) {
				t.Logf("%d %s", pid, readProc(pid, "cmdline"))
			}
		}
	})
	eventually(t, fmt.Sprintf("%d processes of %s", n, name), func() bool { return len(living(name)) == n })
}

// Programs open files before any init function runs. The reaper tolerates that, although it closes
// its inherited files.
var early, _, _ = os.Pipe()

// A process has only the files that it was given, and none of the daemon or the reaper; nor does
// the reaper have any of the daemon's.
func TestFilesOfAProcess(t *testing.T) {
	defer runtime.KeepAlive(early)
	ours, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	defer theirs.Close()
	path := filepath.Join(t.TempDir(), "inherited")
	leak, err := syscall.Open(path, syscall.O_RDWR|syscall.O_CREAT, 0o600) // what starts a process does not look out for it
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Close(leak) }()
	r, _ := newReaper(t)
	for _, files := range [][]*os.File{nil, {theirs}, {theirs, theirs}} {
		c, out := script(t, "exec python3 -c 'import os; print(len(os.listdir(\"/proc/self/fd\")) - 1)'")
		c.Files = files
		waited(t, start(t, r, c))
		if want := fmt.Sprint(3+len(files)) + "\n"; out.String() != want {
			t.Errorf("it has %q files, want %s", out.String(), want)
		}
	}
	folder := fmt.Sprintf("/proc/%d/fd", r.PID())
	names, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if to, err := os.Readlink(filepath.Join(folder, name.Name())); err == nil && to == path {
			t.Errorf("the reaper has inherited %s as %s", to, name.Name())
		}
	}
	if len(names) < 4 {
		t.Errorf("%d files of the reaper were looked at", len(names))
	}
}

// leaves is a script that leaves 8 processes of different kinds behind, and the shell.
const leaves = `
sleep 1000 &
(sleep 1000 &)
setsid sleep 1000 &
(setsid sh -c 'sleep 1000 & setsid sleep 1000 & wait' &)
(setsid sh -c '(trap "" TERM HUP INT; sleep 1000) & exit' &)
(nohup setsid sleep 1000 &)
`

func TestWhatAProcessLeavesBehindGoesWithIt(t *testing.T) {
	for name, test := range map[string]struct {
		script string
		end    func(r *Reaper, p *Process)
	}{
		"it exits":     {"read x <&3; exit 3", func(*Reaper, *Process) {}},
		"it crashes":   {"read x <&3; kill -SEGV $$", func(*Reaper, *Process) {}},
		"it is killed": {"read x <&3; wait", func(_ *Reaper, p *Process) { p.Signal(syscall.SIGKILL) }},
		"a signal":     {"read x <&3; wait", func(_ *Reaper, p *Process) { p.Signal(syscall.SIGTERM) }},
		"by somebody":  {"read x <&3; wait", func(_ *Reaper, p *Process) { _ = syscall.Kill(p.PID, syscall.SIGKILL) }},
		"it stopped":   {"read x <&3; kill -STOP $$", func(_ *Reaper, p *Process) { p.Signal(syscall.SIGKILL) }},
		"close":        {"read x <&3; wait", func(r *Reaper, _ *Process) { r.Close() }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, _ := newReaper(t)
			c, _ := script(t, leaves+test.script)
			goOn, tell, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer goOn.Close()
			defer tell.Close()
			c.Files = []*os.File{goOn}
			p := start(t, r, c)
			settled(t, t.Name(), 9)
			if _, err := io.WriteString(tell, "go\n"); err != nil {
				t.Fatal(err)
			}
			test.end(r, p)
			waited(t, p)
			settled(t, t.Name(), 0)
		})
	}
}

// Two processes daemonise: the descendants of each live as long as that process.
func TestADaemonBelongsToItsProcess(t *testing.T) {
	r, _ := newReaper(t)
	var names []string
	var all []*Process
	for _, word := range []string{"one", "two", "three"} {
		c, _ := script(t, `(setsid sh -c '(setsid sleep 1000 &)' &); sleep 1000 & wait`)
		names = append(names, t.Name()+word)
		c.Env[1] = "DROVER_TEST_OF=" + names[len(names)-1]
		all = append(all, start(t, r, c))
	}
	for _, name := range names {
		settled(t, name, 3)
	}
	for i, p := range all {
		p.Signal(syscall.SIGKILL)
		waited(t, p)
		settled(t, names[i], 0)
		for _, other := range names[i+1:] {
			settled(t, other, 3)
		}
		waited(t, start(t, r, Command{Path: "/bin/true"})) // an end, after which the orphans are checked
	}
}

// Processes in their own sessions that are restarted by others when they die.
func TestAForkBomb(t *testing.T) {
	r, _ := newReaper(t)
	c, _ := script(t, `
bomb='while :; do setsid -w sleep 1000; setsid sh -c "$0" "$0" & done'
for i in $(seq 50); do setsid sh -c "$bomb" "$bomb" & done
wait`)
	p := start(t, r, c)
	eventually(t, "the bomb", func() bool { return len(living(t.Name())) > 100 })
	p.Signal(syscall.SIGKILL)
	waited(t, p)
	settled(t, t.Name(), 0)
}

func init() {
	daemons = map[string]func(){
		// It starts a process, reports to its parent, and waits to be killed.
		"killed": func() {
			r := New(nil)
			for range 2 {
				_, err := r.Start(Command{
					Path: "/bin/sh", Args: []string{"-c", leaves + "wait"},
					Env: []string{"PATH=" + os.Getenv("PATH"), "DROVER_TEST_OF=" + os.Getenv("OF")},
				})
				if err != nil {
					fmt.Println(err)
				}
			}
			fmt.Println("started by", r.PID())
			select {}
		},
		// One whose processes cannot be marked.
		"unmarked": func() {
			if err := unix.Setrlimit(unix.RLIMIT_LOCKS, &unix.Rlimit{Cur: 100, Max: 100}); err != nil {
				fmt.Println(err)
			}
			r := New(slog.New(slog.NewTextHandler(os.Stdout, nil)))
			var both []*Process
			for _, text := range []string{leaves + "wait", "sleep 1000; true"} {
				p, err := r.Start(Command{
					Path: "/bin/sh", Args: []string{"-c", text},
					Env: []string{"PATH=" + os.Getenv("PATH"), "DROVER_TEST_OF=" + os.Getenv("OF")},
				})
				if err != nil {
					fmt.Println(err)
					return
				}
				both = append(both, p)
			}
			for _, p := range both {
				if _, err := fmt.Scanln(); err != nil {
					fmt.Println(err)
				}
				p.Signal(syscall.SIGKILL)
				<-p.Done()
			}
			_, _ = fmt.Scanln()
			r.Close()
		},
		// One that may make no more processes, and then some.
		"limited": func() {
			r := New(slog.New(slog.NewTextHandler(os.Stdout, nil)))
			if _, err := r.ensureSession(); err != nil {
				fmt.Println(err)
				return
			}
			var was unix.Rlimit
			for _, soft := range []uint64{1, 0} {
				limit := &unix.Rlimit{Cur: soft, Max: was.Max}
				if soft == 0 {
					*limit = was
				} else if err := unix.Prlimit(r.PID(), unix.RLIMIT_NPROC, nil, &was); err == nil {
					limit.Max = was.Max
				}
				if err := unix.Prlimit(r.PID(), unix.RLIMIT_NPROC, limit, nil); err != nil {
					fmt.Println(err)
				}
				p, err := r.Start(Command{Path: "/bin/true"})
				if err == nil {
					<-p.Done()
				}
				fmt.Println(err)
			}
			r.Close()
		},
	}
}

// run runs one of them, and returns its output.
func run(t *testing.T, as string, user uint32) (*exec.Cmd, io.Writer, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "DROVER_TEST_DAEMON=" + as, "OF=" + t.Name()}
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if user != 0 && os.Getuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: user, Gid: user}
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd, in, bufio.NewReader(out)
}

func TestTheDaemonIsKilled(t *testing.T) {
	cmd, _, out := run(t, "killed", 0)
	line, err := out.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "started by ") {
		t.Fatalf("%q, %v", line, err)
	}
	reaper, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, "started by ")))
	if err != nil {
		t.Fatal(err)
	}
	settled(t, t.Name(), 18)
	for _, deaf := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE, syscall.SIGUSR1} {
		if err := syscall.Kill(reaper, deaf); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	settled(t, t.Name(), 0)
	eventually(t, "the reaper ends", func() bool {
		return !bytes.HasPrefix(readProc(reaper, "cmdline"), []byte(reaperName))
	})
}

func TestNoMoreProcessesMayBeMade(t *testing.T) {
	_, _, out := run(t, "limited", 28123)
	text, err := io.ReadAll(out)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if err != nil || len(lines) != 2 || lines[1] != "<nil>" ||
		!strings.HasPrefix(lines[0], "starting /bin/true: resource temporarily unavailable: no more processes may be made here; see ulimit -u") {
		t.Errorf("%v, %q", err, lines)
	}
}

// Without marks, processes that left their group live until the last worker has ended.
func TestProcessesThatCannotBeMarked(t *testing.T) {
	_, tell, out := run(t, "unmarked", 0)
	if line, err := out.ReadString('\n'); err != nil || !strings.Contains(line, "processes cannot be marked here") {
		t.Fatalf("%q, %v", line, err)
	}
	// The first tree has nine processes; six of them move to five new groups. The second has two.
	eventually(t, "the processes have changed their groups", func() bool { return processGroups(t.Name()) == 7 })
	for _, n := range []int{11, 8, 0} {
		settled(t, t.Name(), n)
		if _, err := io.WriteString(tell, "\n"); err != nil {
			t.Fatal(err)
		}
	}
}

// A process that changes its mark has no owner after its parent has ended, so it is killed, too.
func TestAProcessThatShedsItsMark(t *testing.T) {
	r, _ := newReaper(t)
	c, out := script(t, `python3 -c '
import os, resource
locks = 10
if os.fork() == 0:
    os.setsid()
    resource.setrlimit(locks, (5, resource.getrlimit(locks)[1]))
    if os.fork() == 0: os.execvp("sleep", ["sleep", "1000"])
    os._exit(0)
os.wait()
'; echo shed; sleep 1000; true`)
	p := start(t, r, c)
	eventually(t, "it has shed it", func() bool { return strings.Contains(out.String(), "shed") })
	settled(t, t.Name(), 3) // the shell, its sleep, and the one
	p.Signal(syscall.SIGKILL)
	waited(t, p)
	settled(t, t.Name(), 0)
}

func TestNoMoreFilesMayBeOpened(t *testing.T) {
	r, _ := newReaper(t)
	if _, err := r.ensureSession(); err != nil {
		t.Fatal(err)
	}
	for pid, want := range map[int]string{
		r.PID(): "starting /bin/true: handing over its files: too many open files; see ulimit -n",
		0:       "starting /bin/true: making a pipe: pipe2: too many open files; see ulimit -n",
	} {
		var was unix.Rlimit
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &was); err != nil {
			t.Fatal(err)
		}
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 6, Max: was.Max}, nil); err != nil {
			t.Fatal(err)
		}
		_, err := r.Start(Command{Path: "/bin/true", Stdout: new(bytes.Buffer)})
		if again := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &was, nil); again != nil {
			t.Fatal(again)
		}
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v; want %s", err, want)
		}
		waited(t, start(t, r, Command{Path: "/bin/true"}))
	}
}

func TestTheReaperIsKilled(t *testing.T) {
	r, log := newReaper(t)
	c, _ := script(t, leaves+"wait")
	p := start(t, r, c)
	settled(t, t.Name(), 9)
	first := r.PID()
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if exit := waited(t, p); !errors.Is(exit.Err, ErrReaperDied) {
		t.Errorf("%+v", exit)
	}
	settled(t, t.Name(), 0)
	p.Signal(syscall.SIGKILL) // nobody's
	eventually(t, "that is logged", func() bool { return strings.Contains(log.String(), "the reaper died") })
	waited(t, start(t, r, Command{Path: "/bin/true"}))
	if r.PID() == first || r.PID() == 0 {
		t.Errorf("the second reaper is %d, the first was %d", r.PID(), first)
	}
}

// An invalid request is refused, or ends the reaper: a daemon never sends one.
func TestBadRequests(t *testing.T) {
	whole := func(m message) []byte {
		m, err := m.withLength()
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for name, test := range map[string]struct {
		bytes []byte
		ends  bool
	}{
		"an unknown kind":         {whole(newMessage(9, 0, 1<<40)), false},
		"a start without a word":  {whole(newMessage(kindStart, 0, 1<<40)), false},
		"a start with too much":   {whole(newMessage(kindStart, 0, 1<<40).addString("/bin/true").addString("").addString("").addStrings(nil).addStrings(nil).addUint32(1)), false},
		"files that did not come": {whole(newMessage(kindStart, 3, 1<<40).addString("/bin/true").addString("").addString("").addStrings(nil).addStrings(nil)), false},
		"a text without an end":   {whole(newMessage(kindStart, 0, 1<<40).addUint32(1 << 31)), false},
		"a list without an end":   {whole(newMessage(kindStart, 0, 1<<40).addString("").addString("").addString("").addUint32(1<<32 - 1)), false},
		"a signal for nobody":     {append(whole(newMessage(kindSignal, 0, 1<<40).addUint32(9)), whole(newMessage(9, 0, 1<<40))...), false},
		"nobody's child":          {whole(newMessage(kindAdopt, 0, 1<<40).addUint64(77).addUint32(1)), false},
		"an empty frame":          {make([]byte, headSize), true},
		"a frame without bounds":  {bytes.Repeat([]byte{0xff}, 64), true},
		"many files":              {[]byte{8, 0, 0, 0, kindStart, 255}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, _ := newReaper(t)
			s, err := r.ensureSession()
			if err != nil {
				t.Fatal(err)
			}
			c, _ := script(t, leaves+"wait")
			p := start(t, r, c)
			settled(t, t.Name(), 9)
			asked := newProcess(s)
			asked.id = 1 << 40
			s.mu.Lock()
			s.processes[asked.id] = asked
			s.mu.Unlock()
			s.writing.Lock()
			_, err = s.conn.Write(test.bytes)
			s.writing.Unlock()
			if err != nil {
				t.Fatal(err)
			}
			err = <-asked.answered
			if test.ends {
				waited(t, p)
				settled(t, t.Name(), 0)
				return
			}
			if err == nil || errors.Is(err, ErrReaperDied) {
				t.Errorf("the answer is %v", err)
			}
			waited(t, start(t, r, Command{Path: "/bin/true"}))
			settled(t, t.Name(), 9)
		})
	}
}
