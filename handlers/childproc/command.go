package childproc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// Command describes a process. It runs in its own process group.
type Command struct {
	// Path is the program. Without a slash, it is searched in the daemon's PATH.
	Path string
	// Name is the program's argv[0]; empty: Path.
	Name string
	Args []string
	// Dir is the working directory; empty: that of the daemon.
	Dir string
	// Env is the complete environment.
	Env []string
	// Stdin is the input. The process need not read all of it.
	Stdin []byte
	// Terminal is the standard input, output and error, instead of the three fields above; nil: none. The
	// caller closes it. The process is in another session, so the terminal sends it no signals.
	Terminal *os.File
	// Stdout and Stderr receive the output, each from one goroutine; nil drops it.
	Stdout, Stderr io.Writer
	// Files are the file descriptors from 3 on. The caller closes them.
	Files []*os.File
}

// Exit describes how a process ended.
type Exit struct {
	// Err is set if the result is unknown: the reaper died, or another process collected the
	// exit status. The other fields are then not set.
	Err    error
	Status syscall.WaitStatus
	// CPU is the CPU time used, including that of the children that it or the reaper collected.
	CPU time.Duration
	// MaxRSS is the maximum resident size, in bytes.
	MaxRSS int64
}

// String describes the exit in the format of exec.ExitError.
func (e Exit) String() string {
	switch {
	case e.Err != nil:
		return e.Err.Error()
	case e.Status.Signaled():
		return "signal: " + e.Status.Signal().String()
	}
	return fmt.Sprintf("exit status %d", e.Status.ExitStatus())
}

// ErrReaperDied is the Exit.Err of the processes of a reaper that died. They were killed.
var ErrReaperDied = errors.New("the reaper died")
