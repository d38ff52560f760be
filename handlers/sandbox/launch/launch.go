// Package launch is the last step before a worker's command. This program is run again under the
// name Name, restricts itself, and then executes the command. The package's init does that, so
// every program that imports it can be the stage, including tests.
//
// The parent passes one end of a stream socket to the stage, after SendSpec has written the steps
// to it. The stage reports on the socket, and ReadVerdict reads the report when the process has
// ended. If a step fails, the command is not run.
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

// Name is the argv[0] of the stage.
const Name = "drover-launch"

// maxSpec bounds a Spec and the stage's report, in bytes. It is well below the capacity of a
// socket, so that SendSpec does not wait for a reader.
const maxSpec = 64 << 10

// exitRefused is the stage's exit status if a step failed.
const exitRefused = 126

const (
	// FilesABI is the landlock version that Files requires, that of Linux 6.2: before it, a
	// read-only file could be truncated.
	FilesABI = 3
	// ConnectABI is the version that restricts ports, that of Linux 6.7.
	ConnectABI = 4
	// ScopeABI is the version that blocks signals to processes outside, and connections to their
	// abstract sockets: that of Linux 6.12.
	ScopeABI = 6
)

// Spec has the steps before the command, in this order.
type Spec struct {
	// Cgroups are the cgroup.procs files of the groups to join.
	Cgroups []string `json:"cgroups,omitempty"`
	Rlimits []Rlimit `json:"rlimits,omitempty"`
	// Unprivileged drops all capabilities, including those of root.
	Unprivileged bool      `json:"unprivileged,omitempty"`
	Identity     *Identity `json:"identity,omitempty"`
	// Reachable are files and directories that must be readable after the preceding steps.
	Reachable  []string    `json:"reachable,omitempty"`
	NoNewPrivs bool        `json:"no_new_privs,omitempty"`
	Files      *Files      `json:"files,omitempty"`
	Calls      *SystemCall `json:"calls,omitempty"`

	socket int // of the stage
}

// Rlimit is a resource limit. Soft and hard limit are the same unless Hard is set.
type Rlimit struct {
	Name     string `json:"name"` // for error texts
	Resource int    `json:"resource"`
	Value    uint64 `json:"value"`
	// Hard is the hard limit if it differs.
	Hard uint64 `json:"hard,omitempty"`
}

// Identity is the user and the groups of the command.
type Identity struct {
	UID    int   `json:"uid"`
	GID    int   `json:"gid"`
	Groups []int `json:"groups"`
}

// Files are the accessible paths of the file system, restricted by landlock. Paths that do not
// exist are ignored.
type Files struct {
	Read  []string `json:"read"`
	Write []string `json:"write"` // includes reading
	// Connect are the TCP ports to which connections are allowed; nil is any.
	Connect []uint16 `json:"connect"`
}

// SystemCall restricts system calls by seccomp.
type SystemCall struct {
	// UnixSockets allows sockets of the family AF_UNIX.
	UnixSockets bool `json:"unix_sockets"`
	// Addresses makes the daemon perform the calls that name an address (package reach).
	Addresses bool `json:"addresses"`
}

// ErrNoReport is the verdict on a stage that ended without a report.
var ErrNoReport = errors.New("the launch stage ended before it ran the command")

// refusal is the stage's report of a failed step.
type refusal struct {
	Step  string `json:"step"`
	Error string `json:"error"`
}

// reportOK is the byte with which the stage reports that all steps have succeeded.
const reportOK = '.'

// SendSpec writes a Spec to the daemon's end of the socket. It is called before the start.
func SendSpec(w io.Writer, s Spec) error {
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

// StageArgs returns the arguments, after argv[0], with which this program runs as the stage of a
// command. fd is the socket's descriptor in the new process. If path is empty, the stage ends
// with status 0 after the last step.
func StageArgs(fd int, path string, args []string) []string {
	return append([]string{strconv.Itoa(fd), path}, args...)
}

// ReadVerdict reads the stage's report until its end. It returns nil if all steps succeeded and the
// command ran, the step that failed and why, or ErrNoReport.
func ReadVerdict(r io.Reader) error {
	text, err := io.ReadAll(io.LimitReader(r, maxSpec))
	if len(text) == 0 {
		return errors.Join(ErrNoReport, err)
	}
	if text[0] == reportOK {
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

// runStage performs the steps and executes the command. It returns an exit status if that fails.
func runStage(args []string) int {
	fd, err := strconv.Atoi(args[1])
	if err != nil || fd < 3 {
		_, _ = fmt.Fprintln(os.Stderr, Name+" is an internal part of drover; do not run it yourself")
		return exitRefused
	}
	socket := os.NewFile(uintptr(fd), "daemon")
	if step, err := performSteps(socket, fd, args[2], args[2:]); err != nil {
		text, _ := json.Marshal(refusal{step, err.Error()}) // two strings
		_, _ = socket.Write(text)
		return exitRefused
	}
	return 0
}

// readSpec reads the Spec.
func readSpec(r io.Reader) (s Spec, err error) {
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
