package conformance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/drover-run/drover/handlers/childproc"
)

// process is the worker under test, with a socket as its file descriptor 3.
type process struct {
	*childproc.Process
	conn net.Conn

	mu     sync.Mutex
	stderr []byte // the end of it
	stdout int    // how many bytes came
}

// How a process ended.
const (
	exitedWell = "it ended with exit status 0"
	stillThere = "the process is still there"
)

// startProcess starts the command.
func startProcess(reaper *childproc.Reaper, target Target) (*process, error) {
	conn, theirs, err := childproc.Socketpair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = theirs.Close() }() // the child has its own
	p := &process{conn: conn}
	p.Process, err = reaper.Start(childproc.Command{
		Path: target.Command[0], Args: target.Command[1:], Dir: target.Dir, Env: target.Env,
		Stdout: counter{p}, Stderr: tail{p}, Files: []*os.File{theirs},
	})
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return p, nil
}

// waitFor returns how the process ended, and stillThere if it has not in time.
func (p *process) waitFor(ctx context.Context) string {
	select {
	case <-p.Waited():
	case <-ctx.Done():
		return stillThere
	}
	switch exit := p.Exit(); {
	case exit.Err != nil:
		return "it was lost: " + exit.Err.Error()
	case exit.Status.Signaled():
		return "it was killed by " + unix.SignalName(exit.Status.Signal())
	default:
		return fmt.Sprintf("it ended with exit status %d", exit.Status.ExitStatus())
	}
}

// end kills the process and waits for it.
func (p *process) end() {
	p.Signal(syscall.SIGKILL) // it may be gone already
	_ = p.conn.Close()
	<-p.Waited()
}

// maxTail is how much of its standard error is kept, in bytes.
const maxTail = 4 << 10

func (p *process) lastWords() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := strings.TrimSpace(strings.ToValidUTF8(string(p.stderr), "?"))
	if text == "" {
		return nil
	}
	lines := strings.Split(text, "\n")
	return lines[max(len(lines)-10, 0):]
}

// tail keeps the end of standard error.
type tail struct{ p *process }

func (t tail) Write(b []byte) (int, error) {
	t.p.mu.Lock()
	defer t.p.mu.Unlock()
	t.p.stderr = append(t.p.stderr, b...)
	if n := len(t.p.stderr); n > maxTail {
		t.p.stderr = append([]byte(nil), t.p.stderr[n-maxTail:]...)
	}
	return len(b), nil
}

// counter counts standard output.
type counter struct{ p *process }

func (c counter) Write(b []byte) (int, error) {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	c.p.stdout += len(b)
	return len(b), nil
}

func (p *process) printed() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stdout
}

// owns reports whether a process is of the worker's group.
func (p *process) owns(pid int) bool {
	group, err := syscall.Getpgid(pid)
	return err == nil && group == p.PID
}
