package sandbox

import (
	"math"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-run/drover/handlers/sandbox/launch"
)

// Settings are the restrictions of an app's workers. With the zero value, workers write no core
// dumps, and gain no rights through the programs that they run.
type Settings struct {
	Dir     string // of the app
	DataDir string // of the daemon; workers have no access

	// User and Group are names or numbers; empty is the daemon's.
	User, Group string
	// NewPrivileges allows set-user-ID programs such as sudo.
	NewPrivileges bool
	Limits        Limits

	// Strict enables the strict sandbox: see docs/workers.md. The following fields apply only to it.
	Strict bool
	// Read and Write are paths in addition to those of the profile.
	Read, Write []string
	// Temporary bounds a worker's temporary directory, and each file in it, in bytes; 0 is no
	// bound.
	Temporary int64
	// Connect are the TCP ports to which connections are allowed; nil is any.
	Connect []int
	// UnixSockets allows sockets of the family AF_UNIX.
	UnixSockets bool
	// LinkLocal allows link-local addresses, at which clouds serve their metadata.
	LinkLocal bool

	Environment Environment
}

// Limits are the limits of a worker, or of each of its processes; 0 is no limit, except for
// Core.
type Limits struct {
	Memory    int64   // bytes, of a worker with its children
	CPU       float64 // cores, of a worker with its children
	Processes int     // including threads, of a worker with its children

	OpenFiles    int           // of a process
	FileSize     int64         // bytes, of a written file
	AddressSpace int64         // bytes, of a process
	CPUTime      time.Duration // of a process, over its lifetime; whole seconds
	Core         int64         // bytes, of a core dump; 0 is no dump
}

func (l Limits) rlimits() []launch.Rlimit {
	out := []launch.Rlimit{{Name: "core", Resource: unix.RLIMIT_CORE, Value: uint64(l.Core)}}
	add := func(name string, resource int, value int64, grace uint64) {
		if value > 0 {
			out = append(out, launch.Rlimit{Name: name, Resource: resource, Value: uint64(value), Hard: uint64(value) + grace})
		}
	}
	add("open_files", unix.RLIMIT_NOFILE, int64(l.OpenFiles), 0)
	add("file_size", unix.RLIMIT_FSIZE, l.FileSize, 0)
	add("address_space", unix.RLIMIT_AS, l.AddressSpace, 0)
	add("cpu_time", unix.RLIMIT_CPU, int64(math.Ceil(l.CPUTime.Seconds())), cpuGrace)
	return out
}
