package driver

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

// Process is the worker's process, with a socket as its file descriptor 3.
type Process struct {
	*childproc.Process
	conn net.Conn

	mu     sync.Mutex
	stderr []byte // the last maxTail bytes
	stdout int    // number of bytes written
}

// The ways in which a process ended.
const (
	exitedWell = "it ended with exit status 0"
	running    = "the process is still there"
)

// startProcess starts the command with the socket, and collects its output.
func startProcess(reaper *childproc.Reaper, command childproc.Command) (*Process, error) {
	conn, child, err := childproc.Socketpair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = child.Close() }() // the process has a copy
	p := &Process{conn: conn}
	command.Stdout, command.Stderr, command.Files = counter{p}, tail{p}, []*os.File{child}
	p.Process, err = reaper.Start(command)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return p, nil
}

// waitFor waits until the process has ended, and returns how; running if ctx ends first.
func (p *Process) waitFor(ctx context.Context) string {
	select {
	case <-p.Done():
	case <-ctx.Done():
		return running
	}
	switch exit := p.ExitState(); {
	case exit.Err != nil:
		return "it was lost: " + exit.Err.Error()
	case exit.Status.Signaled():
		return "it was killed by " + unix.SignalName(exit.Status.Signal())
	default:
		return fmt.Sprintf("it ended with exit status %d", exit.Status.ExitStatus())
	}
}

// kill kills the process and waits until it has ended.
func (p *Process) kill() {
	p.Signal(syscall.SIGKILL) // it may have ended already
	_ = p.conn.Close()
	<-p.Done()
}

// maxTail bounds the kept end of the standard error, in bytes.
const maxTail = 4 << 10

// lastLines returns the last ten lines of standard error.
func (p *Process) lastLines() []string {
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
type tail struct{ p *Process }

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
type counter struct{ p *Process }

func (c counter) Write(b []byte) (int, error) {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	c.p.stdout += len(b)
	return len(b), nil
}

// PrintedBytes returns the number of bytes on standard output up to now.
func (p *Process) PrintedBytes() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stdout
}

// InGroup reports whether a process is in the worker's process group.
func (p *Process) InGroup(pid int) bool {
	group, err := syscall.Getpgid(pid)
	return err == nil && group == p.PID
}
