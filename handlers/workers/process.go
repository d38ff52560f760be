package workers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/handlers/sandbox"
)

// outputGrace is how long a worker that closed its socket has to end by itself.
const outputGrace = time.Second

const (
	// maxTail is how many lines of a worker's standard error are kept: the last.
	maxTail = 20
	// maxFatal is how many lines are kept of the report of a crash that Python's
	// faulthandler writes: the stacks of all threads. The first are kept.
	maxFatal = 300
	// fatal is how such a report begins.
	fatal = "Fatal Python error: "
)

// process is one child process in a process group of its own, with a socket to
// it, and its output in our log.
type process struct {
	*childproc.Process
	conn net.Conn
	pid  int
	box  *sandbox.Box // nil if it is held to nothing

	mu       sync.Mutex
	tail     []string      // the last lines of its standard error
	fatal    bool          // whether they hold the report of a crash
	listener chan<- string // gets each, if there is room; nil if nobody listens

	waited chan struct{} // closed when it has ended; state and cause are read after that
	state  string
	cause  Cause
	excess string // why it was killed, if its temporary directory held too much
}

// startProcess runs the worker's command.
func (p *Pool) startProcess() (*process, error) {
	own, err := p.newProcess(func(theirs *os.File, stdout, stderr *childproc.Lines) (*childproc.Process, *sandbox.Box, error) {
		command, box, err := p.confined(theirs)
		if err != nil {
			return nil, box, err
		}
		command.Stdout, command.Stderr = stdout, stderr
		started, err := p.reaper.Start(command)
		return started, box, err
	})
	if err != nil {
		return nil, fmt.Errorf("a worker: %w", err)
	}
	return own, nil
}

// newProcess has a process begun, and gives it a socket, and its output a place in
// the log.
func (p *Pool) newProcess(begin func(theirs *os.File, stdout, stderr *childproc.Lines) (*childproc.Process, *sandbox.Box, error)) (*process, error) {
	conn, theirs, err := childproc.Socketpair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = theirs.Close() }() // the child has its own
	own := &process{conn: conn, waited: make(chan struct{})}
	started := make(chan struct{}) // nothing is written before; its number is in the log
	var log *slog.Logger
	lines := func(stream string, also func(string)) *childproc.Lines {
		return &childproc.Lines{Line: func(line string) {
			<-started
			log.LogAttrs(context.Background(), slog.LevelInfo, line, slog.String("stream", stream))
			also(line)
		}}
	}
	stdout, stderr := lines("stdout", func(string) {}), lines("stderr", own.remember)
	var box *sandbox.Box
	if own.Process, box, err = begin(theirs, stdout, stderr); err != nil {
		return nil, errors.Join(err, unbox(box), conn.Close())
	}
	own.pid, own.box = own.PID, box
	log = p.log.With("worker", own.pid)
	close(started)
	p.accounts.begin(own)
	go func() {
		own.bound(box)
		<-own.Waited()
		stdout.End()
		stderr.End()
		exit := own.Exit()
		p.accounts.end(own, exit.CPU)
		own.state, own.cause = describeExit(exit)
		own.explain(box)
		own.weigh(exit, p.memoryLimit())
		if err := unbox(box); err != nil {
			log.Warn("not all of what a worker had was removed; the next daemon does it", "error", err)
		}
		close(own.waited)
	}()
	return own, nil
}

// describeExit says how a process ended, of itself or by somebody else.
func describeExit(exit childproc.Exit) (string, Cause) {
	switch status := exit.Status; {
	case exit.Err != nil:
		return "it was lost: " + exit.Err.Error(), CauseReaper
	case status.Signaled():
		text := fmt.Sprintf("it was killed by %s", unix.SignalName(status.Signal()))
		if status.Signal() == syscall.SIGKILL {
			return text + " (out of memory?)", CauseMemory
		}
		return text, CauseSignal
	default:
		return fmt.Sprintf("it ended with exit status %d", status.ExitStatus()), CauseExit
	}
}

// remember keeps the last lines of its standard error.
func (p *process) remember(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fatal = p.fatal || strings.HasPrefix(line, fatal)
	switch {
	case p.fatal && len(p.tail) >= maxFatal:
	case p.fatal || len(p.tail) < maxTail:
		p.tail = append(p.tail, line)
	default:
		p.tail = append(p.tail[1:], line)
	}
	if p.listener != nil {
		select {
		case p.listener <- line:
		default:
		}
	}
}

// lastWords are those lines.
func (p *process) lastWords() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.tail, "\n")
}
