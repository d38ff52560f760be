package workers

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// outputGrace is how long the pipes of a process that ended are read on, in case
// a process that it left behind holds them open.
const outputGrace = time.Second

// maxLine cuts a line of a worker's output, in bytes.
const maxLine = 16 << 10

// process is one child process in a process group of its own, with a socket to
// it, and its output in our log.
type process struct {
	cmd    *exec.Cmd
	conn   net.Conn
	pid    int
	output sync.WaitGroup
	pipes  []*os.File

	mu   sync.Mutex
	tail []string // the last lines of its standard error

	waited chan struct{} // closed when it has ended; state and cause are read after that
	state  string
	cause  Cause
}

// spawner starts processes, all from one thread that lives as long as it: the
// kernel sends a child its parent-death signal when the thread that forked it
// ends, and Go ends threads as it likes.
type spawner struct {
	accounts *accounts
	requests chan func()
	ended    chan struct{}
}

func newSpawner(a *accounts) *spawner {
	s := &spawner{accounts: a, requests: make(chan func()), ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		runtime.LockOSThread() // and never unlocked: the thread ends with this
		for start := range s.requests {
			start()
		}
	}()
	return s
}

func (s *spawner) close() {
	close(s.requests)
	<-s.ended
}

// start runs a command with a socket as its file descriptor 3.
func (s *spawner) start(command Command, log *slog.Logger) (*process, error) {
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
	p.cmd = exec.Command(command.Path, command.Args...)
	p.cmd.Dir, p.cmd.Env = command.Dir, command.Env
	p.cmd.ExtraFiles = []*os.File{theirs}
	p.cmd.SysProcAttr = processAttributes()
	var childEnds []*os.File
	for _, out := range []*io.Writer{&p.cmd.Stdout, &p.cmd.Stderr} {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("making a worker's pipes: %w", err), conn.Close())
		}
		*out = w
		p.pipes, childEnds = append(p.pipes, r), append(childEnds, w)
	}
	started := make(chan error)
	s.requests <- func() { started <- p.cmd.Start() }
	err = <-started
	for _, w := range childEnds {
		_ = w.Close()
	}
	if err != nil {
		for _, r := range p.pipes {
			_ = r.Close()
		}
		return nil, errors.Join(fmt.Errorf("starting the worker %s: %w", command.Path, err), conn.Close())
	}
	p.pid = p.cmd.Process.Pid
	s.accounts.begin(p)
	for i, name := range []string{"stdout", "stderr"} {
		p.output.Go(func() { p.logLines(p.pipes[i], name, log.With("worker", p.pid)) })
	}
	go p.wait(s.accounts)
	return p, nil
}

// wait collects the process, and what it left in its group.
func (p *process) wait(a *accounts) {
	err := p.cmd.Wait()
	var used time.Duration
	if state := p.cmd.ProcessState; state != nil {
		used = state.UserTime() + state.SystemTime()
	}
	a.end(p, used)
	p.kill(syscall.SIGKILL)
	drained := make(chan struct{})
	go func() { p.output.Wait(); close(drained) }()
	limit := time.NewTimer(outputGrace)
	defer limit.Stop()
	select {
	case <-drained:
	case <-limit.C:
		for _, r := range p.pipes {
			_ = r.Close() // wakes the readers
		}
		<-drained
	}
	p.state, p.cause = describeExit(err)
	close(p.waited)
}

// kill signals the whole process group.
func (p *process) kill(signal syscall.Signal) {
	_ = syscall.Kill(-p.pid, signal) // it may be gone already
}

// describeExit says how a process ended, of itself or by somebody else.
func describeExit(err error) (string, Cause) {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return "it ended with exit status 0", CauseExit
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		text := fmt.Sprintf("it was killed by %s", unix.SignalName(status.Signal()))
		if status.Signal() == syscall.SIGKILL {
			return text + " (out of memory?)", CauseMemory
		}
		return text, CauseSignal
	}
	return fmt.Sprintf("it ended with exit status %d", exit.ExitCode()), CauseExit
}

// logLines logs what the process writes, line by line, and never lets the pipe
// fill.
func (p *process) logLines(r *os.File, name string, log *slog.Logger) {
	defer func() { _ = r.Close() }()
	in := bufio.NewReaderSize(r, maxLine)
	skipping := false
	for {
		line, more, err := in.ReadLine()
		if err != nil {
			return
		}
		if skipping { // the rest of a line that was cut
			skipping = more
			continue
		}
		skipping = more
		text := strings.ToValidUTF8(strings.TrimRight(string(line), "\r"), "?")
		if strings.TrimSpace(text) == "" {
			continue
		}
		log.LogAttrs(context.Background(), slog.LevelInfo, text, slog.String("stream", name))
		if name == "stderr" {
			p.mu.Lock()
			if p.tail = append(p.tail, text); len(p.tail) > 20 {
				p.tail = p.tail[1:]
			}
			p.mu.Unlock()
		}
	}
}

// lastWords are the last lines of its standard error.
func (p *process) lastWords() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.tail, "\n")
}
