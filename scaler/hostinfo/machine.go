// Package hostinfo tells what this machine gives to the process that asks: cores and
// memory, also where a cgroup or an affinity gives less than there is, what others
// take of them, and for how long threads wait for a processor.
//
// It reads /proc and cgroups of version 1 and 2, which Linux has. Elsewhere it knows
// the number of processors and says that the rest is unknown. Nothing is written, and
// nothing is kept open. A look takes some tenths of a millisecond, and one at threads
// some hundredths for each, so that once or twice a second is nothing. Each reads the
// limits again: they change while a process runs, by an operator's hand, by an
// autoscaler's, or because the process is moved to another group.
//
// A Reader and a Delays are each for one goroutine.
package hostinfo

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
)

// Machine is what there is at one look.
type Machine struct {
	// Known says that there is a /proc to read. Where there is none, only CPUs and
	// Cores are told.
	Known bool

	// CPUs are the processors that this process may run on.
	CPUs int
	// Cores is how many of them it may use at once: CPUs, or the least quota of its
	// cgroup and those above it. More than 0; 0.5 is half of one.
	Cores float64
	// CoresBy is what holds Cores there, for people: a file, or "processors".
	CoresBy string
	// Busy is for how long the CPUs were busy since the machine started, together,
	// whoever kept them so. What a hypervisor gave to others counts, too. It is
	// counted in steps of 10 ms. See Others.
	Busy time.Duration

	// MemoryLimit is how much memory this process, and those beside it in its cgroup,
	// may use, in bytes: the machine's, or the least limit of the cgroup and those
	// above it. 0 is unknown, and then so is MemoryAvailable.
	MemoryLimit uint64
	// MemoryBy is what holds MemoryLimit there, for people: a file, or "memory".
	MemoryBy string
	// MemoryAvailable is how much more can be used before something has to go that
	// is in use, in bytes. Caches of files don't count as in use.
	MemoryAvailable uint64

	Pressure Pressure
}

// Pressure is the share of the last ten seconds in which at least one of the
// machine's tasks waited for a resource, 0 to 100. NaN is unknown: not all kernels
// measure it.
type Pressure struct{ CPU, Memory float64 }

// Others is how many cores others than us kept busy between two looks, elapsed
// apart, of the CPUs that we may run on. Ours is the CPU time that our own processes
// used meanwhile, the asking one's included. NaN is unknown.
func Others(before, now Machine, ours, elapsed time.Duration) float64 {
	if !before.Known || !now.Known || before.CPUs != now.CPUs || elapsed <= 0 {
		return math.NaN()
	}
	return max(0, (now.Busy-before.Busy-ours).Seconds()/elapsed.Seconds())
}

// Reader looks at the machine.
type Reader struct {
	root     string
	affinity func() (cpus map[int]bool, known bool)
	proc     procfs.FS
	known    bool
	groups   string // /proc/self/cgroup, as when the next two were found
	cpu      []group
	memory   []group
}

// New returns a reader of the machine that we are on.
func New() *Reader { return newReader("/", affinity) }

func newReader(root string, affinity func() (map[int]bool, bool)) *Reader {
	r := &Reader{root: root, affinity: affinity}
	var err error
	r.proc, err = procfs.NewFS(r.path("proc"))
	r.known = err == nil
	return r
}

func (r *Reader) path(name string) string { return filepath.Join(r.root, name) }

// Look reads what there is now. What is there but can't be read or understood counts
// for nothing, and is in the error; the Machine is good for all the rest. What is not
// there is no error.
func (r *Reader) Look() (Machine, error) {
	allowed, known := r.affinity()
	m := Machine{Known: r.known, CPUs: len(allowed), CoresBy: "processors"}
	if !known {
		m.CPUs = runtime.NumCPU()
	}
	m.Cores = float64(m.CPUs)
	m.Pressure = Pressure{math.NaN(), math.NaN()}
	if !m.Known {
		return m, nil
	}
	var errs []error
	if text, err := r.read("proc/stat"); err != nil {
		errs = append(errs, err)
		m.Known = false
	} else if m.Busy, err = busy(text, allowed); err != nil {
		errs = append(errs, fmt.Errorf("%s: %w", r.path("proc/stat"), err))
		m.Known = false
	}
	errs = append(errs, r.findGroups(), r.lookAtCPU(&m), r.lookAtMemory(&m))
	var err error
	m.Pressure.CPU, err = r.pressure("cpu")
	errs = append(errs, err)
	m.Pressure.Memory, err = r.pressure("memory")
	errs = append(errs, err)
	return m, errors.Join(errs...)
}

// tick is the unit of /proc/stat: on Linux, everywhere.
const tick = time.Second / 100

// busy adds up what the lines of /proc/stat say of the processors that are allowed;
// nil are all of them.
func busy(text string, allowed map[int]bool) (time.Duration, error) {
	var ticks uint64
	seen := false
	for line := range strings.Lines(text) {
		rest, found := strings.CutPrefix(line, "cpu")
		if !found {
			break // they come first
		}
		if strings.HasPrefix(rest, " ") {
			continue // the sum of all
		}
		fields := strings.Fields(rest)
		if len(fields) < 5 {
			return 0, fmt.Errorf("%q is not what a processor did", strings.TrimSpace(line))
		}
		cpu, err := strconv.Atoi(fields[0])
		if err != nil {
			return 0, fmt.Errorf("%q is not what a processor did", strings.TrimSpace(line))
		}
		if allowed != nil && !allowed[cpu] {
			continue
		}
		// user, nice, system, idle, iowait, irq, softirq, steal; what guests use is in user.
		for i, field := range fields[1:min(len(fields), 9)] {
			if i == 3 || i == 4 {
				continue
			}
			n, err := strconv.ParseUint(field, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%q is not what a processor did", strings.TrimSpace(line))
			}
			ticks += n
		}
		seen = true
	}
	if !seen {
		return 0, errors.New("it tells of no processor")
	}
	return time.Duration(ticks) * tick, nil
}

func (r *Reader) pressure(resource string) (float64, error) {
	stats, err := r.proc.PSIStatsForResource(resource)
	switch {
	case absent(err):
		return math.NaN(), nil
	case err != nil:
		return math.NaN(), fmt.Errorf("%s: %w", r.path("proc/pressure/"+resource), err)
	case stats.Some == nil:
		return math.NaN(), fmt.Errorf("%s: no line begins with some", r.path("proc/pressure/"+resource))
	}
	return stats.Some.Avg10, nil
}

// read returns what is in a file.
func (r *Reader) read(name string) (string, error) {
	text, err := os.ReadFile(r.path(name))
	return string(text), err
}

// absent reports whether an error of reading says that there is nothing to read: no
// such file, a group that was removed, or something that the kernel doesn't do.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.ENOTDIR) ||
		errors.Is(err, syscall.EOPNOTSUPP)
}
