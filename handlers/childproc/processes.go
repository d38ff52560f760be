// Package childproc starts child processes of which none outlives us. They are
// children of a reaper: this program again, in a process of its own that does
// nothing but start, signal and collect. When a process ends, what it left behind
// ends with it: its group, and on Linux also those that left the group (setsid, a
// daemon's double fork). When we end, in whatever way, the reaper sees its socket
// close, kills all that is below it, and ends.
//
// The package has an init function that takes over where the program was started
// as the reaper, so every program that imports it can be one. A Reaper may be used
// from many goroutines; Close ends it.
package childproc

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is a process that a reaper started or adopted.
type Process struct {
	PID int

	id       uint64
	session  *session
	answered chan error // once: whether there is a process
	outputs  []*Output
	input    *os.File // what Stdin is written to; nil: nothing
	copying  sync.WaitGroup

	waited chan struct{}
	exit   Exit
}

func newProcess(s *session) *Process {
	return &Process{session: s, answered: make(chan error, 1), waited: make(chan struct{})}
}

// Waited is closed when the process has been collected, and what it left behind
// was killed, and its output is written.
func (p *Process) Waited() <-chan struct{} { return p.waited }

// Exit is how it ended; call it after Waited is closed.
func (p *Process) Exit() Exit { return p.exit }

// Signal sends a signal to its process group, if it has not been collected. It
// does not wait for what comes of it.
func (p *Process) Signal(signal syscall.Signal) { p.session.signal(p.id, signal) }

// Reaper starts processes. It has a process of its own from New on, and another
// one when that died.
type Reaper struct {
	log *slog.Logger

	mu      sync.Mutex
	closed  bool
	current *session // nil: none yet, or it could not be started
	first   sync.WaitGroup
}

var ourSpares sync.Once

// New returns a reaper, whose process is being started: what goes wrong there is
// the error of Start.
func New(log *slog.Logger) *Reaper {
	ourSpares.Do(func() { go spareThreads() })
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	r := &Reaper{log: log}
	r.first.Go(func() {
		_, _ = r.reach() // Start tries again, and returns the error
	})
	return r
}

// reach returns a reaper that lives, as far as we know.
func (r *Reaper) reach() (*session, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, errors.New("the reaper has ended")
	}
	if r.current != nil && !r.current.over() {
		return r.current, nil
	}
	s, err := launch(r.log)
	if err != nil {
		return nil, fmt.Errorf("starting the reaper: %w", err)
	}
	r.current = s
	return s, nil
}

// Close kills the processes that are left, with all below them, and waits until
// they are gone.
func (r *Reaper) Close() {
	r.first.Wait()
	r.mu.Lock()
	s := r.current
	r.closed = true
	r.mu.Unlock()
	if s != nil {
		s.close()
	}
}

// PID is the reaper's process; 0 if there is none.
func (r *Reaper) PID() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current == nil || r.current.over() {
		return 0
	}
	return r.current.cmd.Process.Pid
}

// Start runs a command. The error says what to do about it where that is known.
func (r *Reaper) Start(c Command) (*Process, error) {
	p, err := r.startCommand(c)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", c.Path, err)
	}
	return p, nil
}

func (r *Reaper) startCommand(c Command) (*Process, error) {
	path := c.Path
	if !strings.Contains(path, "/") {
		found, err := exec.LookPath(path)
		if err != nil {
			return nil, errors.Unwrap(err) // which repeats the path
		}
		path = found
	}
	if c.Name == "" {
		c.Name = c.Path
	}
	dir, err := filepath.Abs(c.Dir) // the reaper is elsewhere
	if err != nil {
		return nil, err
	}
	c.Dir = dir
	s, err := r.reach()
	if err != nil {
		return nil, err
	}
	p := newProcess(s)
	var theirs []*os.File // what only the child keeps
	defer func() {
		for _, f := range theirs {
			_ = f.Close()
		}
	}()
	files := make([]*os.File, 3, 3+len(c.Files))
	if len(c.Stdin) > 0 {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, fmt.Errorf("making a pipe: %w", explain(err))
		}
		p.input = w
		theirs, files[0] = append(theirs, r), r
	}
	for i, to := range []io.Writer{c.Stdout, c.Stderr} {
		if to == nil {
			continue
		}
		out, err := NewOutput(to)
		if err != nil {
			p.abandon()
			return nil, err
		}
		p.outputs = append(p.outputs, out)
		files[1+i] = out.Child
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		p.abandon()
		return nil, explain(err)
	}
	theirs = append(theirs, null)
	files = append(files, c.Files...)
	for i, f := range files {
		if f == nil {
			files[i] = null
		}
	}
	p.copy(c.Stdin)
	if err := s.startProcess(p, path, c, files); err != nil {
		p.abandon()
		return nil, err
	}
	p.passed()
	return p, nil
}

// Adopt takes over a process that parent has forked through one between them, and that
// becomes the reaper's child when the one between ends. That must not end before Adopt
// has returned. The process must be below parent, and have called setpgid(0, 0) or
// setsid. From then on it is signalled, waited for and cleaned up after like one that
// Start has started. outputs are the pipes that it writes to.
func (r *Reaper) Adopt(parent *Process, pid int, outputs ...*Output) (*Process, error) {
	p := newProcess(parent.session)
	p.outputs = outputs
	p.copy(nil)
	if err := parent.session.adoptProcess(p, parent, pid); err != nil {
		p.abandon()
		return nil, fmt.Errorf("adopting process %d: %w", pid, err)
	}
	p.passed()
	return p, nil
}

// Self is the path of this program, for those who start it again: the very file
// that runs, though another may have taken its place.
func Self() (string, error) {
	const same = "/proc/self/exe"
	if _, err := os.Stat(same); err == nil {
		return same, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return os.Executable()
}

// newMarks is where the numbers of a reaper's processes begin. Nobody else on this
// machine has the same, so that a process that carries one is ours for certain.
func newMarks() uint64 {
	var random [4]byte
	_, _ = rand.Read(random[:]) // it does not fail
	return uint64(binary.LittleEndian.Uint32(random[:])>>1|1) << markBits
}

// markBits is how many bits of a number count a reaper's processes.
const markBits = 32

// descriptors are the file descriptors of files, which are in blocking mode from
// here on: it is the child's who inherits them, too.
func descriptors(files []*os.File) []int {
	out := make([]int, 0, len(files))
	for _, f := range files {
		out = append(out, int(f.Fd()))
	}
	return out
}

// copy moves what goes into the process and comes from it. It begins before the
// process does, so that nothing that is short-lived is missed.
func (p *Process) copy(stdin []byte) {
	if p.input != nil {
		p.copying.Go(func() {
			_, _ = p.input.Write(stdin) // it need not read all, nor any
			_ = p.input.Close()
		})
	}
	for _, o := range p.outputs {
		p.copying.Go(func() {
			_, _ = io.Copy(o.to, o.ours) // to the end of the pipe, or until it is closed
			_ = o.ours.Close()
		})
	}
}

// passed closes what the child has now.
func (p *Process) passed() {
	for _, o := range p.outputs {
		_ = o.Child.Close()
	}
}

// abandon closes the pipes of a process that did not start.
func (p *Process) abandon() {
	if p.input != nil {
		_ = p.input.Close()
	}
	for _, o := range p.outputs {
		_ = o.Close()
	}
	p.copying.Wait()
}

// ended takes how the process ended, and ends the copying.
func (p *Process) ended(exit Exit) {
	p.exit = exit
	defer close(p.waited)
	copied := make(chan struct{})
	go func() { p.copying.Wait(); close(copied) }()
	limit := time.NewTimer(outputGrace)
	defer limit.Stop()
	select {
	case <-copied:
		return
	case <-limit.C:
	}
	if p.input != nil {
		_ = p.input.Close()
	}
	for _, o := range p.outputs {
		_ = o.ours.Close() // wakes the reader
	}
	<-copied
}
