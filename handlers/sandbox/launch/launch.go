// Package launch is the last step before a worker's command: this program, run
// again under the name Name, takes limits upon itself and then becomes the command.
// Its init does that, so it works in every program that imports it, a test's, too.
//
// The starter gives the stage one end of a stream socket, on which Send has written
// what is to be done. What the stage says comes back on it: Verdict reads it when
// the process has ended. Either all of it is done, or the command never runs.
package launch

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
)

// Name is what the stage is called, as its argv[0].
const Name = "drover-launch"

// maxSpec bounds a Spec in bytes, and what the stage says. It is well below what a
// socket holds, so that Send does not wait for a reader.
const maxSpec = 64 << 10

// exitRefused is the stage's exit status where a step failed.
const exitRefused = 126

const (
	// FilesABI is the version of landlock that Files needs, that of Linux 6.2: before
	// it a file that may only be read can be truncated.
	FilesABI = 3
	// ConnectABI is the one that ports need, that of Linux 6.7.
	ConnectABI = 4
	// ScopeABI is the one that keeps signals from the processes outside, and
	// connections from their abstract sockets: that of Linux 6.12.
	ScopeABI = 6
)

// Spec is what is done before the command, in the order given here.
type Spec struct {
	// Cgroups are the cgroup.procs files of the groups to join.
	Cgroups []string `json:"cgroups,omitempty"`
	Rlimits []Rlimit `json:"rlimits,omitempty"`
	// Unprivileged gives up all capabilities, those of root as well.
	Unprivileged bool      `json:"unprivileged,omitempty"`
	Identity     *Identity `json:"identity,omitempty"`
	// Reachable are files and directories that must be readable from here on.
	Reachable  []string    `json:"reachable,omitempty"`
	NoNewPrivs bool        `json:"no_new_privs,omitempty"`
	Files      *Files      `json:"files,omitempty"`
	Calls      *SystemCall `json:"calls,omitempty"`

	socket int // the stage's
}

// Rlimit is a resource limit, soft and hard alike.
type Rlimit struct {
	Name     string `json:"name"` // for people
	Resource int    `json:"resource"`
	Value    uint64 `json:"value"`
	// Hard is the hard limit, where it is another.
	Hard uint64 `json:"hard,omitempty"`
}

// Identity is whom the command runs as.
type Identity struct {
	UID    int   `json:"uid"`
	GID    int   `json:"gid"`
	Groups []int `json:"groups"`
}

// Files is what of the file system can be used, by landlock; of the rest nothing.
// A path that is not there is left out.
type Files struct {
	Read  []string `json:"read"`
	Write []string `json:"write"` // read, too
	// Connect are the TCP ports that can be connected to; nil is any.
	Connect []uint16 `json:"connect"`
}

// SystemCall is what can be asked of the kernel, by seccomp.
type SystemCall struct {
	// UnixSockets lets sockets of the family AF_UNIX be made.
	UnixSockets bool `json:"unix_sockets"`
	// Addresses has the daemon make the calls that name an address (package reach).
	Addresses bool `json:"addresses"`
}

// ErrUnsaid is the verdict on a stage that ended without a word.
var ErrUnsaid = errors.New("the launch stage ended before it ran the command")

// refusal is what the stage says where a step failed.
type refusal struct {
	Step  string `json:"step"`
	Error string `json:"error"`
}

// said is the byte with which the stage says that all steps are done.
const said = '.'

// Send writes a spec to the daemon's end of the socket, before the start.
func Send(w io.Writer, s Spec) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if len(text) > maxSpec {
		return fmt.Errorf("the limits of a worker take %d bytes, where %d is the most: list fewer paths", len(text), maxSpec)
	}
	_, err = w.Write(append(binary.LittleEndian.AppendUint32(nil, uint32(len(text))), text...))
	return err
}

// Args are the arguments, behind argv[0], that make of this program the stage for a
// command. fd is the socket's number in the new process. With an empty path it ends
// with status 0 after the last step.
func Args(fd int, path string, args []string) []string {
	return append([]string{strconv.Itoa(fd), path}, args...)
}

// Verdict reads what the stage said: nil where all steps were done and the command
// ran, else which step failed and why, or ErrUnsaid. It reads to the end.
func Verdict(r io.Reader) error {
	text, err := io.ReadAll(io.LimitReader(r, maxSpec))
	if len(text) == 0 {
		return errors.Join(ErrUnsaid, err)
	}
	if text[0] == said {
		text = text[1:]
	}
	if len(text) == 0 {
		return nil
	}
	var why refusal
	if err := json.Unmarshal(text, &why); err != nil {
		return fmt.Errorf("what the launch stage said is no JSON: %w", err)
	}
	return fmt.Errorf("%s: %s", why.Step, why.Error)
}

// stage does what the arguments say and returns the exit status; it does not return
// where it becomes the command.
func stage(args []string) int {
	fd, err := strconv.Atoi(args[1])
	if err != nil || fd < 3 {
		_, _ = fmt.Fprintln(os.Stderr, Name+" is a part of drover, and not for people")
		return exitRefused
	}
	socket := os.NewFile(uintptr(fd), "daemon")
	if step, err := perform(socket, fd, args[2], args[2:]); err != nil {
		text, _ := json.Marshal(refusal{step, err.Error()}) // two texts
		_, _ = socket.Write(text)
		return exitRefused
	}
	return 0
}

// receive reads the spec.
func receive(r io.Reader) (s Spec, err error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return s, fmt.Errorf("reading what to do: %w", err)
	}
	n := binary.LittleEndian.Uint32(size[:])
	if n > maxSpec {
		return s, fmt.Errorf("reading what to do: it has %d bytes", n)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return s, fmt.Errorf("reading what to do: %w", err)
	}
	return s, json.Unmarshal(text, &s)
}
