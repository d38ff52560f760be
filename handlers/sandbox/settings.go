package sandbox

import (
	"math"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-run/drover/handlers/sandbox/launch"
)

// Settings are what an app's workers are held to. The zero value is what all are:
// they write no core dumps, and gain no rights by the programs that they run.
type Settings struct {
	Dir     string // the app's
	DataDir string // the daemon's, which is not for workers

	// User and Group are names or numbers; empty is the daemon's.
	User, Group string
	// NewPrivileges lets set-user-ID programs, such as sudo, work.
	NewPrivileges bool
	Limits        Limits

	// Strict is the sandbox: see docs/workers.md. The rest is for it alone.
	Strict bool
	// Read and Write are paths in addition to those of the profile.
	Read, Write []string
	// Temporary is what a worker's temporary directory may hold, in bytes, and a file in it; 0
	// is any.
	Temporary int64
	// Connect are the TCP ports that can be connected to; nil is any.
	Connect []int
	// UnixSockets lets sockets of the family AF_UNIX be made.
	UnixSockets bool
	// LinkLocal lets link-local addresses be reached, where clouds have their metadata.
	LinkLocal bool

	Environment Environment
}

// Limits are those of one worker, or of each of its processes; 0 is none, but for
// Core.
type Limits struct {
	Memory    int64   // bytes, of a worker with its children
	CPU       float64 // cores, likewise
	Processes int     // with their threads, likewise

	OpenFiles    int           // of a process
	FileSize     int64         // bytes, of a file that is written
	AddressSpace int64         // bytes, of a process
	CPUTime      time.Duration // of a process, in all its life; whole seconds
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
