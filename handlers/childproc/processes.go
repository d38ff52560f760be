// Package childproc starts child processes that never outlive the daemon. They are children of a
// reaper: a second process of this program that only starts, signals and collects processes. When
// a process ends, the reaper kills its process group, and on Linux also the processes that have
// left the group, with setsid or a double fork. When the daemon ends in any way, the reaper
// finds its socket closed, kills all its descendants, and ends.
//
// An init function of this package takes over if the program was started as the reaper, so every
// program that imports it can be the reaper. A Reaper is safe for concurrent use; Close ends it.
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

// Process is a process started or adopted by a reaper.
type Process struct {
	PID int

	id       uint64
	session  *session
	answered chan error // receives the result of the start once
	outputs  []*Output
	input    *os.File // the pipe to its standard input; nil: none
	copying  sync.WaitGroup

	done chan struct{}
	exit Exit
}

func newProcess(s *session) *Process {
	return &Process{session: s, answered: make(chan error, 1), done: make(chan struct{})}
}

// Done returns a channel that is closed when the process has been collected, its remaining
// descendants are killed, and its output is written.
func (p *Process) Done() <-chan struct{} { return p.done }

// ExitState returns how the process ended. It is called after Done is closed.
func (p *Process) ExitState() Exit { return p.exit }

// Signal sends a signal to the process group, unless the process was collected. It does not wait
// for the effect.
func (p *Process) Signal(signal syscall.Signal) { p.session.sendSignal(p.id, signal) }

// Reaper starts processes. New starts its own process, which is replaced if it dies.
type Reaper struct {
	log *slog.Logger

	mu      sync.Mutex
	closed  bool
	current *session // nil: not started yet, or the start failed
	first   sync.WaitGroup
}

var ourSpares sync.Once

// New returns a Reaper, and starts its process in the background. If that fails, Start returns
// the error.
func New(log *slog.Logger) *Reaper {
	ourSpares.Do(func() { go spareThreads() })
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	r := &Reaper{log: log}
	r.first.Go(func() {
		_, _ = r.ensureSession() // Start tries again, and returns the error
	})
	return r
}

// ensureSession returns a running reaper process. It starts one if necessary.
func (r *Reaper) ensureSession() (*session, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, errors.New("the reaper has ended")
	}
	if r.current != nil && !r.current.isDead() {
		return r.current, nil
	}
	s, err := startReaper(r.log)
	if err != nil {
		return nil, fmt.Errorf("starting the reaper: %w", err)
	}
	r.current = s
	return s, nil
}

// Close kills the remaining processes and their descendants, and waits until they have ended.
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

// PID returns the process ID of the reaper; 0 if it does not run.
func (r *Reaper) PID() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current == nil || r.current.isDead() {
		return 0
	}
	return r.current.cmd.Process.Pid
}

// Start runs a command. Its error includes advice if the cause is known.
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
			return nil, errors.Unwrap(err) // its text would repeat the path
		}
		path = found
	}
	if c.Name == "" {
		c.Name = c.Path
	}
	dir, err := filepath.Abs(c.Dir) // the reaper has another working directory
	if err != nil {
		return nil, err
	}
	c.Dir = dir
	s, err := r.ensureSession()
	if err != nil {
		return nil, err
	}
	p := newProcess(s)
	var theirs []*os.File // file descriptors that only the child keeps
	defer func() {
		for _, f := range theirs {
			_ = f.Close()
		}
	}()
	files := make([]*os.File, 3, 3+len(c.Files))
	if len(c.Stdin) > 0 {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, fmt.Errorf("making a pipe: %w", withAdvice(err))
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
			p.closePipes()
			return nil, err
		}
		p.outputs = append(p.outputs, out)
		files[1+i] = out.Child
	}
	if c.Terminal != nil {
		files[0], files[1], files[2] = c.Terminal, c.Terminal, c.Terminal
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		p.closePipes()
		return nil, withAdvice(err)
	}
	theirs = append(theirs, null)
	files = append(files, c.Files...)
	for i, f := range files {
		if f == nil {
			files[i] = null
		}
	}
	p.copyStreams(c.Stdin)
	if err := s.startProcess(p, path, c, files); err != nil {
		p.closePipes()
		return nil, err
	}
	p.closeChildEnds()
	return p, nil
}

// Adopt takes over a process that parent has forked through an intermediate process. It becomes
// the reaper's child when the intermediate process ends, which must not happen before Adopt
// returns. The process must descend from parent, and must have called setpgid(0, 0) or
// setsid. From then on it is signalled, awaited and cleaned up like a process from Start.
// outputs are the pipes to which it writes.
func (r *Reaper) Adopt(parent *Process, pid int, outputs ...*Output) (*Process, error) {
	p := newProcess(parent.session)
	p.outputs = outputs
	p.copyStreams(nil)
	if err := parent.session.adoptProcess(p, parent, pid); err != nil {
		p.closePipes()
		return nil, fmt.Errorf("adopting process %d: %w", pid, err)
	}
	p.closeChildEnds()
	return p, nil
}

// SelfPath returns the path of this program, for starting it again. It refers to the running file,
// even if another file has replaced it.
func SelfPath() (string, error) {
	const same = "/proc/self/exe"
	if _, err := os.Stat(same); err == nil {
		return same, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return os.Executable()
}

// newMarks returns the base of the numbers of a reaper's processes. It is unique on this machine,
// so a process with such a number certainly belongs to this reaper.
func newMarks() uint64 {
	var random [4]byte
	_, _ = rand.Read(random[:]) // it never fails
	return uint64(binary.LittleEndian.Uint32(random[:])>>1|1) << markBits
}

// markBits is the number of bits that count the processes of one reaper.
const markBits = 32

// inheritableFDs returns the file descriptors of files. It sets them to blocking mode, because the
// child inherits the mode.
func inheritableFDs(files []*os.File) []int {
	out := make([]int, 0, len(files))
	for _, f := range files {
		out = append(out, int(f.Fd()))
	}
	return out
}

// copyStreams copies the input and output of the process. It starts before the process does, so that
// no output of a short-lived process is lost.
func (p *Process) copyStreams(stdin []byte) {
	if p.input != nil {
		p.copying.Go(func() {
			_, _ = p.input.Write(stdin) // the process need not read all of it
			_ = p.input.Close()
		})
	}
	for _, o := range p.outputs {
		p.copying.Go(func() {
			_, _ = io.Copy(o.to, o.ours) // until the end of the pipe, or until it is closed
			_ = o.ours.Close()
		})
	}
}

// closeChildEnds closes the file descriptors that the child has inherited.
func (p *Process) closeChildEnds() {
	for _, o := range p.outputs {
		_ = o.Child.Close()
	}
}

// closePipes closes the pipes of a process that did not start.
func (p *Process) closePipes() {
	if p.input != nil {
		_ = p.input.Close()
	}
	for _, o := range p.outputs {
		_ = o.Close()
	}
	p.copying.Wait()
}

// recordExit records how the process ended, and ends the copying.
func (p *Process) recordExit(exit Exit) {
	p.exit = exit
	defer close(p.done)
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
