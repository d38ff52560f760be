package childproc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// outputGrace is how long the output of a process that ended is read on, in case
// a process that could not be killed holds it open.
const outputGrace = time.Second

// Output is a pipe that processes write to, and that is read to its end.
type Output struct {
	// Child is their end. Whoever gives it to a process by Adopt has passed it on
	// before; it is closed then.
	Child *os.File
	ours  *os.File
	to    io.Writer
}

// NewOutput makes a pipe; what is written to it goes to a writer, from one
// goroutine, once a process has been started with it.
func NewOutput(to io.Writer) (*Output, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("making a pipe: %w", explain(err))
	}
	return &Output{Child: w, ours: r, to: to}, nil
}

// Close is for one that no process was started with.
func (o *Output) Close() error { return errors.Join(o.Child.Close(), o.ours.Close()) }

// MaxLine is how long a line of output may be, in bytes: it is cut in several.
const MaxLine = 16 << 10

// Lines is a writer that cuts what is written into lines, without what ends them.
// Empty ones are left out, and what is no UTF-8 is replaced.
type Lines struct {
	// Line takes each.
	Line func(line string)

	mu   sync.Mutex
	rest []byte
}

// Write implements io.Writer.
func (w *Lines) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rest = append(w.rest, p...)
	for {
		at := bytes.IndexByte(w.rest, '\n')
		switch {
		case at < 0 && len(w.rest) < MaxLine:
			return len(p), nil
		case at < 0 || at > MaxLine:
			w.put(w.rest[:MaxLine])
			w.rest = w.rest[MaxLine:]
		default:
			w.put(w.rest[:at])
			w.rest = w.rest[at+1:]
		}
	}
}

// End takes a line that nobody ended.
func (w *Lines) End() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.put(w.rest)
	w.rest = nil
}

func (w *Lines) put(line []byte) {
	if text := strings.TrimRight(string(line), "\r"); strings.TrimSpace(text) != "" {
		w.Line(strings.ToValidUTF8(text, "?"))
	}
}

// explain says what to do about errors that come of limits.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EAGAIN):
		return fmt.Errorf("%w: no more processes may be made here; see ulimit -u, pids.max of the cgroup (TasksMax of the unit, the container's limit), and kernel.pid_max", err)
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return fmt.Errorf("%w; see ulimit -n (LimitNOFILE of the unit)", err)
	case errors.Is(err, unix.E2BIG):
		return fmt.Errorf("%w: the arguments and the environment together, or one of them, are more than the kernel takes", err)
	}
	return err
}
