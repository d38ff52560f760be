package childproc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// Command is what a process runs, in a process group of its own.
type Command struct {
	// Path is the program. One without a slash is searched for in the daemon's PATH.
	Path string
	// Name is the program's argv[0]; empty: Path.
	Name string
	Args []string
	// Dir is where it runs; empty: where we do.
	Dir string
	// Env is its environment, and no more than that.
	Env []string
	// Stdin is what it can read; it need not read all, nor any.
	Stdin []byte
	// Stdout and Stderr take what it writes, each from one goroutine; nil drops it.
	Stdout, Stderr io.Writer
	// Files are its file descriptors 3 and up. They stay ours to close.
	Files []*os.File
}

// Exit is how a process ended.
type Exit struct {
	// Err says that nobody knows: the reaper died, or somebody else collected it.
	// Then the rest is not set.
	Err    error
	Status syscall.WaitStatus
	// CPU is what it has used, with the children that it or the reaper collected.
	CPU time.Duration
	// MaxRSS is the most that was resident of it, in bytes.
	MaxRSS int64
}

// String is how it ended, as exec.ExitError says it.
func (e Exit) String() string {
	switch {
	case e.Err != nil:
		return e.Err.Error()
	case e.Status.Signaled():
		return "signal: " + e.Status.Signal().String()
	}
	return fmt.Sprintf("exit status %d", e.Status.ExitStatus())
}

// ErrReaperDied is Exit.Err of the processes of a reaper that died. They were
// killed.
var ErrReaperDied = errors.New("the reaper died")
