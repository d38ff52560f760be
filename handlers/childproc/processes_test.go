package childproc

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience bounds operations that take milliseconds on an idle machine.
const patience = 3 * time.Minute

// daemons are the commands of this program in its own process; see reaper_linux_test.go.
var daemons map[string]func()

func TestMain(m *testing.M) {
	if as := os.Getenv("DROVER_TEST_DAEMON"); as != "" {
		daemons[as]()
		return
	}
	goleak.VerifyTestMain(m)
}

// record is a writer that keeps what it gets.
type record struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

func newReaper(t testing.TB) (*Reaper, *record) {
	t.Helper()
	log := new(record)
	r := New(slog.New(slog.NewTextHandler(log, nil)))
	t.Cleanup(r.Close)
	return r, log
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not in %v: %s", patience, what)
		}
		<-tick.C
	}
}

// script runs a script in a shell. Its processes are found by a word in their environment.
func script(t testing.TB, text string) (Command, *record) {
	t.Helper()
	out := new(record)
	return Command{
		Path: "/bin/sh", Args: []string{"-c", text}, Dir: t.TempDir(),
		Env: []string{"PATH=" + os.Getenv("PATH"), "DROVER_TEST_OF=" + t.Name()}, Stdout: out, Stderr: out,
	}, out
}

func start(t testing.TB, r *Reaper, c Command) *Process {
	t.Helper()
	p, err := r.Start(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func waited(t testing.TB, p *Process) Exit {
	t.Helper()
	select {
	case <-p.Done():
		return p.ExitState()
	case <-time.After(patience):
		t.Fatal("the process does not end")
		return Exit{}
	}
}

func TestAProcess(t *testing.T) {
	r, _ := newReaper(t)
	here := t.TempDir()
	file, err := os.Create(filepath.Join(here, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var out, errs bytes.Buffer
	p := start(t, r, Command{
		Path: "sh", Name: "its name", Args: []string{"-c", `echo "$0 $1"; pwd; cat; echo "$A|$B" >&2; echo three >&3; exit 7`, "zero", "one two"}, Dir: here,
		Env: []string{"PATH=" + os.Getenv("PATH"), "A=a b", "B=\xff"}, Stdin: []byte("input\n"), Stdout: &out, Stderr: &errs, Files: []*os.File{file},
	})
	exit := waited(t, p)
	if exit.Err != nil || exit.Status.ExitStatus() != 7 || exit.CPU <= 0 || exit.MaxRSS < 100<<10 || exit.MaxRSS > 1<<30 {
		t.Errorf("it ended with %+v", exit)
	}
	if want := "zero one two\n" + here + "\ninput\n"; out.String() != want {
		t.Errorf("it wrote %q, want %q", out.String(), want)
	}
	if errs.String() != "a b|\xff\n" {
		t.Errorf("its environment: %q", errs.String())
	}
	if text, err := os.ReadFile(file.Name()); err != nil || string(text) != "three\n" {
		t.Errorf("its file: %q, %v", text, err)
	}
	p.Signal(syscall.SIGKILL) // one that has ended
	for given, want := range map[string]string{"": ".", "../childproc": "."} {
		abs, err := filepath.Abs(want)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		waited(t, start(t, r, Command{Path: "pwd", Dir: given, Stdout: &out}))
		if out.String() != abs+"\n" {
			t.Errorf("with the folder %q it runs in %q", given, out.String())
		}
	}
	var group bytes.Buffer
	p = start(t, r, Command{Path: "/bin/sh", Args: []string{"-c", "ps -o pgid=,sid= -p $$; kill -TERM $$; sleep 1000"}, Env: os.Environ(), Stdout: &group})
	if exit := waited(t, p); !exit.Status.Signaled() || exit.Status.Signal() != syscall.SIGTERM {
		t.Errorf("it ended with %+v; the reaper's own deafness may not be inherited", exit)
	}
	if want := fmt.Sprintf("%d %d", p.PID, r.PID()); strings.Join(strings.Fields(group.String()), " ") != want {
		t.Errorf("its group and session are %q, want %s", group.String(), want)
	}
}

func TestManyProcesses(t *testing.T) {
	r, _ := newReaper(t)
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			var out bytes.Buffer
			p, err := r.Start(Command{Path: "/bin/sh", Args: []string{"-c", "cat; exit $1", "sh", fmt.Sprint(i)}, Stdin: []byte(fmt.Sprint(i)), Stdout: &out})
			if err != nil {
				t.Error(err)
				return
			}
			<-p.Done()
			if exit := p.ExitState(); exit.Status.ExitStatus() != i || out.String() != fmt.Sprint(i) {
				t.Errorf("%d: %+v, %q", i, exit, out.String())
			}
		})
	}
	all.Wait()
}

func TestWhatDoesNotStart(t *testing.T) {
	r, _ := newReaper(t)
	here := t.TempDir()
	plain := filepath.Join(here, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		command Command
		want    string
		is      error
	}{
		{Command{Path: "/nowhere/python"}, "starting /nowhere/python: no such file or directory", fs.ErrNotExist},
		{Command{Path: "no-such-program-here"}, "starting no-such-program-here: executable file not found in $PATH", nil},
		{Command{Path: plain}, "starting " + plain + ": permission denied", fs.ErrPermission},
		{Command{Path: "/bin/sh", Dir: "/nowhere"}, "starting /bin/sh: entering /nowhere: no such file or directory", fs.ErrNotExist},
		{Command{Path: "/bin/sh", Dir: plain}, "starting /bin/sh: entering " + plain + ": not a directory", syscall.ENOTDIR},
		{Command{Path: "/bin/sh", Args: []string{"a\x00b"}}, "starting /bin/sh: invalid argument", syscall.EINVAL},
		{Command{Path: "/bin/sh", Args: []string{strings.Repeat("x", 1<<20)}}, "the arguments and the environment together, or one of them, are more than the kernel takes", syscall.E2BIG},
		{Command{Path: "/bin/sh", Env: []string{strings.Repeat("x", maxMessage)}}, "bytes with its arguments and its environment, and 8388608 are the most", nil},
		{Command{Path: "/bin/sh", Files: make([]*os.File, maxFiles)}, "67 files for a process, where 64 are the most", nil},
	} {
		test.command.Stdout, test.command.Stdin = new(bytes.Buffer), []byte("x")
		p, err := r.Start(test.command)
		if err == nil {
			t.Errorf("%s: it started, as %d", test.want, p.PID)
			continue
		}
		if !strings.Contains(err.Error(), test.want) || test.is != nil && !errors.Is(err, test.is) {
			t.Errorf("%.300v; want %q", err, test.want)
		}
	}
	waited(t, start(t, r, Command{Path: "/bin/true"}))
}

func TestAReaperThatEnded(t *testing.T) {
	r, _ := newReaper(t)
	p := start(t, r, Command{Path: "/bin/sleep", Args: []string{"1000"}})
	r.Close()
	if exit := waited(t, p); exit.Err == nil {
		t.Errorf("%+v", exit)
	}
	r.Close() // again
	if _, err := r.Start(Command{Path: "/bin/true"}); err == nil || !strings.Contains(err.Error(), "the reaper has ended") {
		t.Errorf("got %v", err)
	}
	if r.PID() != 0 {
		t.Error("it still has a process")
	}
}

func TestLinesAreCut(t *testing.T) {
	var got []string
	w := &Lines{Line: func(line string) { got = append(got, line) }}
	for _, part := range []string{"o", "ne\n\n \r\ntw", "o\r\n", strings.Repeat("x", MaxLine+1), "\n", "\xff", ""} {
		if n, err := w.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	w.FlushRest()
	w.FlushRest()
	want := []string{"one", "two", strings.Repeat("x", MaxLine), "x", "?"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %.100q", got)
	}
}

func BenchmarkStart(b *testing.B) {
	r, _ := newReaper(b)
	for b.Loop() {
		p, err := r.Start(Command{Path: "/bin/true"})
		if err != nil {
			b.Fatal(err)
		}
		<-p.Done()
	}
}

func BenchmarkReaper(b *testing.B) {
	for b.Loop() {
		r := New(nil)
		if _, err := r.ensureSession(); err != nil {
			b.Fatal(err)
		}
		r.Close()
	}
}
