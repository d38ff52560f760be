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

// outputGrace is how long output is still read after a process ended, in case a process that
// could not be killed holds the pipe open.
const outputGrace = time.Second

// Output is a pipe to which processes write. It is read to its end.
type Output struct {
	// Child is the write end. Before a call of Adopt, the caller must have passed it to the
	// process. Start and Adopt close it.
	Child *os.File
	ours  *os.File
	to    io.Writer
}

// NewOutput returns a pipe. Once a process has been started with it, one goroutine copies the
// process's output to the writer.
func NewOutput(to io.Writer) (*Output, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("making a pipe: %w", withAdvice(err))
	}
	return &Output{Child: w, ours: r, to: to}, nil
}

// Close closes an Output with which no process was started.
func (o *Output) Close() error { return errors.Join(o.Child.Close(), o.ours.Close()) }

// MaxLine bounds a line of output, in bytes; longer lines are split.
const MaxLine = 16 << 10

// Lines is a writer that splits its input into lines, without the line ends. It omits empty lines,
// and replaces invalid UTF-8.
type Lines struct {
	// Line is called for each line.
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
			w.emitLine(w.rest[:MaxLine])
			w.rest = w.rest[MaxLine:]
		default:
			w.emitLine(w.rest[:at])
			w.rest = w.rest[at+1:]
		}
	}
}

// FlushRest passes on a last line without a line end.
func (w *Lines) FlushRest() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.emitLine(w.rest)
	w.rest = nil
}

func (w *Lines) emitLine(line []byte) {
	if text := strings.TrimRight(string(line), "\r"); strings.TrimSpace(text) != "" {
		w.Line(strings.ToValidUTF8(text, "?"))
	}
}

// withAdvice adds advice to errors caused by limits.
func withAdvice(err error) error {
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
