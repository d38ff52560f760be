package conformance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is the worker under test, in a process group of its own, with a socket as
// its file descriptor 3.
type process struct {
	cmd    *exec.Cmd
	conn   net.Conn
	waited chan struct{}
	state  string // how it ended; read after waited is closed

	mu     sync.Mutex
	stderr []byte // the end of it
	stdout int    // how many bytes came
}

const (
	exitedWell = "it ended with exit status 0"
	stillThere = "the process is still there"
)

// startProcess starts the command.
func startProcess(target Target) (*process, error) {
	syscall.ForkLock.RLock() // no child is forked between the two calls
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, fmt.Errorf("making a worker's socket: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "worker"), os.NewFile(uintptr(fds[1]), "daemon")
	defer func() { _ = theirs.Close() }() // the child has its own
	conn, err := net.FileConn(ours)
	if err = errors.Join(err, ours.Close()); err != nil {
		return nil, fmt.Errorf("making a worker's socket: %w", err)
	}
	p := &process{conn: conn, waited: make(chan struct{})}
	p.cmd = exec.Command(target.Command[0], target.Command[1:]...)
	p.cmd.Dir, p.cmd.Env = target.Dir, target.Env
	p.cmd.ExtraFiles = []*os.File{theirs}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.WaitDelay = time.Second // for what it left outside of its group, and holds its output open
	p.cmd.Stdout, p.cmd.Stderr = counter{p}, tail{p}
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	go func() {
		defer close(p.waited)
		err := p.cmd.Wait()
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // what it left in its group
		p.state = exitedWell
		if err != nil {
			p.state = "it ended: " + err.Error()
		}
	}()
	return p, nil
}

// waitFor returns how the process ended, and stillThere if it has not in time.
func (p *process) waitFor(ctx context.Context) string {
	select {
	case <-p.waited:
		return p.state
	case <-ctx.Done():
		return stillThere
	}
}

// end kills the process and waits for it.
func (p *process) end() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // it may be gone already
	_ = p.conn.Close()
	<-p.waited
}

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
