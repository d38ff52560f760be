package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/handlers/sandbox"
)

// Starter starts the processes of one pool. It adds up what they use.
type Starter struct {
	Command Command
	Reaper  *childproc.Reaper
	// Confine is what the processes are held to; nil is nothing.
	Confine *sandbox.Confinement
	Log     *slog.Logger

	forking  sync.Mutex // a template is asked for one process at a time
	accounts accounts
}

// MemoryLimit is the limit of each process in bytes; 0 if there is none.
func (s *Starter) MemoryLimit() int64 {
	if s.Confine == nil {
		return 0
	}
	return s.Confine.Memory()
}

// Start runs the worker's command.
func (s *Starter) Start() (*Process, error) {
	own, err := s.startWith(func(theirs *os.File, stdout, stderr *childproc.Lines) (*childproc.Process, *sandbox.Box, error) {
		command, box, err := confine(s.Command, s.Confine, theirs)
		if err != nil {
			return nil, box, err
		}
		command.Stdout, command.Stderr = stdout, stderr
		started, err := s.Reaper.Start(command)
		return started, box, err
	})
	if err != nil {
		return nil, fmt.Errorf("a worker: %w", err)
	}
	return own, nil
}

// Fork adopts a process that a template has forked. ask has the template do that: it
// gets the temporary directory of the new process and the files that it inherits, and
// returns the number of the process. At most one ask is running.
func (s *Starter) Fork(template *Process, ask func(temporary string, files []*os.File) (pid int, err error)) (*Process, error) {
	s.forking.Lock()
	defer s.forking.Unlock()
	var outputs []*childproc.Output
	own, err := s.startWith(func(theirs *os.File, stdout, stderr *childproc.Lines) (*childproc.Process, *sandbox.Box, error) {
		files := []*os.File{theirs}
		for _, to := range []*childproc.Lines{stdout, stderr} {
			out, err := childproc.NewOutput(to)
			if err != nil {
				return nil, nil, err
			}
			outputs = append(outputs, out)
			files = append(files, out.Child)
		}
		var box *sandbox.Box
		temporary := ""
		if template.box != nil {
			box = s.Confine.Fork(template.box)
			temporary = box.Directory()
		}
		pid, err := ask(temporary, files)
		if err != nil {
			return nil, box, err
		}
		adopted, err := s.Reaper.Adopt(template.Process, pid, outputs...)
		outputs = nil // they are the process's now, or closed
		if err != nil {
			return nil, box, err
		}
		if box != nil {
			if err = box.Join(adopted.PID); err != nil {
				adopted.Signal(syscall.SIGKILL) // it does nothing yet
			}
		}
		return adopted, box, err
	})
	for _, out := range outputs {
		err = errors.Join(err, out.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("forking a worker: %w", err)
	}
	return own, nil
}

// startWith has a process started, and gives it a socket, and its output a place in the log.
func (s *Starter) startWith(start func(theirs *os.File, stdout, stderr *childproc.Lines) (*childproc.Process, *sandbox.Box, error)) (*Process, error) {
	conn, theirs, err := childproc.Socketpair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = theirs.Close() }() // the child has its own
	own := &Process{Conn: conn, memoryLimit: s.MemoryLimit(), ended: make(chan struct{})}
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
	if own.Process, box, err = start(theirs, stdout, stderr); err != nil {
		return nil, errors.Join(err, unbox(box), conn.Close())
	}
	own.box = box
	log = s.Log.With("worker", own.PID)
	close(started)
	s.accounts.add(own)
	go func() {
		own.boundTemporary()
		<-own.Waited()
		stdout.End()
		stderr.End()
		exit := own.Exit()
		s.accounts.remove(own, exit.CPU)
		own.state, own.cause = describeExit(exit)
		own.explainBox()
		own.addMemory(exit)
		if err := unbox(box); err != nil {
			log.Warn("not all of what a worker had was removed; the next daemon does it", "error", err)
		}
		close(own.ended)
	}()
	return own, nil
}

// Usage reads what the living processes use, some files of /proc for each, and adds what
// those used that have ended.
func (s *Starter) Usage() Usage { return s.accounts.usage() }

// CPU is that of Usage alone: one file of /proc for each process.
func (s *Starter) CPU() time.Duration { return s.accounts.cpu() }
