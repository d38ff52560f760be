package childproc

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// template forks twice for each line on file descriptor 3. The last process gets its own group,
// writes its number to 4, and its parent ends when the template reads a line on 5. The template
// leaves a daemon behind, and ends with status 7 at SIGTERM.
const template = `
import os, signal, sys, time
for line in os.fdopen(3):
    between = os.fork()
    if between == 0:
        up, down = os.pipe()
        if os.fork() == 0:
            os.close(up)
            if "group" in line: os.setpgid(0, 0)
            if "session" in line: os.setsid()
            signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
            os.write(4, b"%d\n" % os.getpid())
            while os.read(5, 1) != b"\n": pass
            if "quick" in line: os._exit(9)
            if os.fork() == 0:
                os.setsid()
                os.execvp("sleep", ["sleep", "1000"])
            os.close(down)
            time.sleep(1000)
        os.close(down)
        os.read(up, 1)
        if "collects" in line: os.wait()
        if "hoards" in line: time.sleep(1000)
        os._exit(0)
    os.waitpid(between, 0)
`

type forker struct {
	t     *testing.T
	r     *Reaper
	self  *Process
	order *os.File
	said  *bufio.Reader
	goOn  *os.File
}

func newForker(t *testing.T, r *Reaper) *forker {
	f := &forker{t: t, r: r}
	c, _ := script(t, "exec python3 -c '"+template+"'")
	var ends [3]*os.File
	for i := range ends {
		in, out, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { in.Close(); out.Close() })
		switch i {
		case 1:
			ends[i], f.said = out, bufio.NewReader(in)
		case 0:
			ends[i], f.order = in, out
		default:
			ends[i], f.goOn = in, out
		}
	}
	c.Files = ends[:]
	f.self = start(t, r, c)
	return f
}

// fork returns the number of a process that waits to be adopted.
func (f *forker) fork(how string) int {
	f.t.Helper()
	if _, err := io.WriteString(f.order, how+"\n"); err != nil {
		f.t.Fatal(err)
	}
	line, err := f.said.ReadString('\n')
	if err != nil {
		f.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		f.t.Fatal(err)
	}
	return pid
}

// release lets the latest forked process continue.
func (f *forker) release() {
	if _, err := io.WriteString(f.goOn, "\n"); err != nil {
		f.t.Fatal(err)
	}
}

func (f *forker) adopt(how string) *Process {
	f.t.Helper()
	p, err := f.r.Adopt(f.self, f.fork(how))
	if err != nil {
		f.t.Fatal(err)
	}
	return p
}

func TestAdoptedProcesses(t *testing.T) {
	r, _ := newReaper(t)
	f := newForker(t, r)
	var all []*Process
	for _, how := range []string{"group", "session", "group", "group"} {
		all = append(all, f.adopt(how))
		f.release()
	}
	settled(t, t.Name(), 1+2*len(all)) // each has a daemon
	for _, p := range all {
		eventually(t, "it is the reaper's child", func() bool { return parentOf(p.PID) == r.PID() })
	}
	all[0].Signal(syscall.SIGTERM)
	if exit := waited(t, all[0]); exit.Err != nil || exit.Status.ExitStatus() != 7 {
		t.Errorf("one with a signal: %+v", exit)
	}
	settled(t, t.Name(), 7)
	all[1].Signal(syscall.SIGKILL)
	if exit := waited(t, all[1]); exit.Err != nil || exit.Status.Signal() != syscall.SIGKILL {
		t.Errorf("one that is killed: %+v", exit)
	}
	settled(t, t.Name(), 5)
	f.self.Signal(syscall.SIGKILL) // the others stand for themselves
	waited(t, f.self)
	settled(t, t.Name(), 4)
	if err := syscall.Kill(r.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waited(t, all[2])
	waited(t, all[3])
	settled(t, t.Name(), 0)
}

// A process that ends before it is the reaper's child.
func TestAnAdoptedProcessThatEndsAtOnce(t *testing.T) {
	r, _ := newReaper(t)
	f := newForker(t, r)
	p := f.adopt("group quick")
	f.release()
	if exit := waited(t, p); exit.Err != nil || exit.Status.ExitStatus() != 9 {
		t.Errorf("it ended with %+v", exit)
	}
	p = f.adopt("group quick collects")
	f.release()
	eventually(t, "its parent has collected it", func() bool { return syscall.Kill(p.PID, 0) != nil })
	p.Signal(syscall.SIGKILL) // as the daemon does when its socket closes
	if exit := waited(t, p); exit.Err == nil {
		t.Errorf("its end cannot be known, but: %+v", exit)
	}
	settled(t, t.Name(), 1)
}

// A process that never becomes the reaper's child, since its parent stays: its end is still
// detected, and the processes that it left behind are killed.
func TestAnAdoptedProcessWhoseParentStays(t *testing.T) {
	r, _ := newReaper(t)
	f := newForker(t, r)
	for i, how := range []string{"group collects", "group hoards"} {
		p := f.adopt(how)
		f.release()
		settled(t, t.Name(), 4) // with the one between, and its daemon
		p.Signal(syscall.SIGKILL)
		if exit := waited(t, p); exit.Err == nil {
			t.Errorf("%s: its end cannot be known, but: %+v", how, exit)
		}
		settled(t, t.Name(), 1+i) // the one between stays, which does not collect it
	}
}

// Whatever a worker reports, only its own processes are adopted, so no others are killed.
func TestWhoIsNotAdopted(t *testing.T) {
	r, _ := newReaper(t)
	f, other := newForker(t, r), newForker(t, r)
	own, foreign := f.fork("nothing"), other.fork("group")
	for _, test := range []struct {
		pid  int
		want string
	}{
		{os.Getpid(), "it does not come from the process that is said to have forked it"},
		{r.PID(), "it does not come from the process that is said to have forked it"},
		{foreign, "it does not come from the process that is said to have forked it"},
		{f.self.PID, "it is not a process that another has just forked"},
		{other.self.PID, "it is not a process that another has just forked"},
		{own, "it is not a leader of a process group, or is gone"},
		{1, "it is not a process that another has just forked"},
		{0, "it is not a process that another has just forked"},
		{-1, "it does not come from the process that is said to have forked it"},
		{1 << 30, "it does not come from the process that is said to have forked it"},
	} {
		p, err := r.Adopt(f.self, test.pid)
		if want := fmt.Sprintf("adopting process %d: %s", test.pid, test.want); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, %v; want %s", p, err, want)
		}
	}
	settled(t, t.Name(), 6)
	f.self.Signal(syscall.SIGKILL)
	waited(t, f.self)
	settled(t, t.Name(), 3)
	if _, err := r.Adopt(f.self, foreign); err == nil || !strings.Contains(err.Error(), "the process that forked it has ended") {
		t.Errorf("of one that has ended: %v", err)
	}
}
