package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/handlers/sandbox"
	"github.com/drover-run/drover/handlers/workers/coreshare"
)

// Starter starts the processes of one pool, and sums up their resource use.
type Starter struct {
	Command Command
	Reaper  *childproc.Reaper
	// Confine confines the processes; nil: no confinement.
	Confine *sandbox.Confinement
	// Terminal is the standard input, output and error of the processes that Start starts; nil: they
	// have no input, and their output is logged.
	Terminal *os.File
	Log      *slog.Logger

	coreShare atomic.Int64
	forking   sync.Mutex // one fork of a template at a time
	accounts  accounts
}

// CoreShare returns the number that SetCoreShare has set.
func (s *Starter) CoreShare() int { return int(s.coreShare.Load()) }

// SetCoreShare sets how many cores the libraries of each process may use, as in coreshare.Environ, for
// processes that start from now on; 0: no limit. It reports whether that is another number.
func (s *Starter) SetCoreShare(share int) (changed bool) {
	return s.coreShare.Swap(int64(share)) != int64(share)
}

// MemoryLimit returns the limit of each process in bytes; 0 if there is none.
func (s *Starter) MemoryLimit() int64 {
	if s.Confine == nil {
		return 0
	}
	return s.Confine.MemoryLimit()
}

// Start runs the worker's command.
func (s *Starter) Start() (*Process, error) {
	share, own := s.CoreShare(), s.Command
	own.Env = coreshare.Environ(own.Env, share)
	proc, err := s.startWith(func(theirs *os.File, stdout, stderr *childproc.Lines) (*childproc.Process, *sandbox.Box, error) {
		command, box, err := confineCommand(own, s.Confine, theirs)
		if err != nil {
			return nil, box, err
		}
		if command.Terminal = s.Terminal; command.Terminal == nil {
			command.Stdout, command.Stderr = stdout, stderr
		}
		started, err := s.Reaper.Start(command)
		return started, box, err
	})
	if err != nil {
		return nil, fmt.Errorf("a worker: %w", err)
	}
	proc.CoreShare = share
	return proc, nil
}

// ForkProcess adopts a process that a template forks. ask requests the fork. It gets the temporary
// directory of the new process and the files that it inherits, and returns its process ID. Calls
// of ask do not overlap.
func (s *Starter) ForkProcess(template *Process, ask func(temporary string, files []*os.File) (pid int, err error)) (*Process, error) {
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
			box = s.Confine.ForkBox(template.box)
			temporary = box.TemporaryDir()
		}
		pid, err := ask(temporary, files)
		if err != nil {
			return nil, box, err
		}
		adopted, err := s.Reaper.Adopt(template.Process, pid, outputs...)
		outputs = nil // they belong to the process now, or are closed
		if err != nil {
			return nil, box, err
		}
		if box != nil {
			if err = box.JoinCgroup(adopted.PID); err != nil {
				adopted.Signal(syscall.SIGKILL) // the new process has done nothing yet
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
	own.CoreShare = template.CoreShare
	return own, nil
}

// startWith creates a socket and log writers, and calls start with them.
func (s *Starter) startWith(start func(theirs *os.File, stdout, stderr *childproc.Lines) (*childproc.Process, *sandbox.Box, error)) (*Process, error) {
	conn, theirs, err := childproc.Socketpair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = theirs.Close() }() // the child has a copy
	own := &Process{Conn: conn, memoryLimit: s.MemoryLimit(), ended: make(chan struct{})}
	started := make(chan struct{}) // no output is logged before, because the log has the process ID
	var log *slog.Logger
	lines := func(stream string, also func(string)) *childproc.Lines {
		return &childproc.Lines{Line: func(line string) {
			<-started
			log.LogAttrs(context.Background(), slog.LevelInfo, line, slog.String("stream", stream))
			also(line)
		}}
	}
	stdout, stderr := lines("stdout", func(string) {}), lines("stderr", own.keepLine)
	var box *sandbox.Box
	if own.Process, box, err = start(theirs, stdout, stderr); err != nil {
		return nil, errors.Join(err, closeBox(box), conn.Close())
	}
	own.box = box
	log = s.Log.With("worker", own.PID)
	close(started)
	s.accounts.addProcess(own)
	go func() {
		own.boundTemporary()
		<-own.Done()
		stdout.FlushRest()
		stderr.FlushRest()
		exit := own.ExitState()
		s.accounts.removeProcess(own, exit.CPU)
		own.state, own.cause = describeExit(exit)
		own.explainEnd()
		own.addMemory(exit)
		if err := closeBox(box); err != nil {
			log.Warn("not all of what a worker had was removed; the next daemon does it", "error", err)
		}
		close(own.ended)
	}()
	return own, nil
}

// Usage returns what the running processes use, and the CPU time of those that have ended. It reads
// several files in /proc per process.
func (s *Starter) Usage() Usage { return s.accounts.usage() }

// CPU returns only the CPU time of Usage. It reads one file in /proc per process.
func (s *Starter) CPU() time.Duration { return s.accounts.cpuTime() }
