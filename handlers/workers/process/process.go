// Package process starts worker processes, and reports how they ended and what they use. It is
// independent of the worker protocol: it gives each process a socket as file descriptor 3, and
// logs its output.
//
// A pool has one Starter. Its methods, and those of a Process, may be called from any
// goroutine.
package process

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/handlers/sandbox"
)

const (
	// maxTail is the number of last lines of a worker's standard error that are kept.
	maxTail = 20
	// maxFatal is the number of first lines that are kept of a crash report of Python's
	// faulthandler, which has the stacks of all threads.
	maxFatal = 300
	// fatal begins such a report.
	fatal = "Fatal Python error: "
)

// Process is one child process in its own process group.
type Process struct {
	*childproc.Process
	// Conn is the daemon's end of the socket. The caller of Start or ForkProcess closes it.
	Conn net.Conn
	// CoreShare is the Starter's when the process, or the template that it was forked from, started.
	CoreShare int

	box         *sandbox.Box // nil if it is not confined
	memoryLimit int64        // in bytes; 0: none

	mu       sync.Mutex
	tail     []string      // the last lines of its standard error
	fatal    bool          // tail holds the report of a crash
	listener chan<- string // receives each line if there is room; nil if there is no listener

	ended  chan struct{} // closed when it has ended; state and cause are set before that
	state  string
	cause  Cause
	excess string // why it was killed because of its temporary directory; else ""
}

// Ended returns a channel that is closed when the process has ended and its output is complete.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// HowEnded reports how the process ended, in words and as a cause. It is called after
// Ended is closed.
func (p *Process) HowEnded() (state string, cause Cause) { return p.state, p.cause }

// describeExit reports how a process ended, by itself or killed by another.
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

// keepLine keeps the last lines of the standard error.
func (p *Process) keepLine(line string) {
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

// LastLines returns the last lines of the standard error, or the crash report in them.
func (p *Process) LastLines() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.tail, "\n")
}
