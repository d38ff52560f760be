// Package hostinfo measures the resources that this process may use: cores and memory, also
// where a cgroup or an affinity limits them, the use by others, and how long threads wait for a
// processor.
//
// It reads /proc and cgroups of version 1 and 2, on Linux. Elsewhere only the number of
// processors is known. It writes nothing, and keeps no file open. ReadMachine takes some tenths of a
// millisecond, and WaitedSince some hundredths for each thread, so once or twice a second costs
// almost nothing. Each call reads the limits again: they change while a process runs, by an
// operator, by an autoscaler, or because the process is moved to another group.
//
// A Reader and a Delays are each used by one goroutine at a time.
package hostinfo

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
)

// Machine is the result of ReadMachine.
type Machine struct {
	// Known reports whether /proc can be read. Otherwise only CPUs and Cores are known.
	Known bool

	// CPUs is the number of processors that this process may run on.
	CPUs int
	// Cores is the number of them that it may use at once: CPUs, or the lowest quota of its
	// cgroup and those above it. More than 0; 0.5 is half of one.
	Cores float64
	// CoresBy is the origin of Cores, as text: a file, or "processors".
	CoresBy string
	// Busy is the total time that the CPUs were busy since the machine started, for any
	// program. Time that a hypervisor gave to others is included, and it alone is Stolen. The
	// resolution is 10 ms. See OthersBusy and StolenPart.
	Busy, Stolen time.Duration
	// Throttled is the total time for which CPUs were withheld from the cgroup of this process, and
	// from those above it, because a CPU quota was used up: two CPUs for a second are two seconds.
	// See ThrottledPart.
	Throttled time.Duration

	// MemoryLimit is the memory that this process, with the others in its cgroup, may use, in
	// bytes: that of the machine, or the lowest limit of the cgroup and those above it. 0 is
	// unknown, and then MemoryAvailable is, too.
	MemoryLimit uint64
	// MemoryBy is the origin of MemoryLimit, as text: a file, or "memory".
	MemoryBy string
	// MemoryAvailable is the memory that can be used without reclaiming memory in use, in
	// bytes. Caches of files do not count as in use.
	MemoryAvailable uint64

	Pressure Pressure
}

// Pressure is the share of the last ten seconds in which at least one task of the machine
// waited for a resource, 0 to 100. NaN is unknown: not all kernels measure it.
type Pressure struct{ CPU, Memory float64 }

// OthersBusy returns how many cores others kept busy between two results of ReadMachine, of the CPUs that
// this process may run on. ours is the CPU time of the daemon's own processes meanwhile,
// including the caller's, and elapsed the time between the two. NaN is unknown.
func OthersBusy(before, now Machine, ours, elapsed time.Duration) float64 {
	if !before.Known || !now.Known || before.CPUs != now.CPUs || elapsed <= 0 {
		return math.NaN()
	}
	return max(0, (now.Busy-before.Busy-ours).Seconds()/elapsed.Seconds())
}

// StolenPart returns which part of the time in which the CPUs were busy between two results of
// ReadMachine a hypervisor gave to others, 0 to 1; 0 if that is unknown.
func StolenPart(before, now Machine) float64 {
	if !before.Known || !now.Known || before.CPUs != now.CPUs || now.Busy <= before.Busy {
		return 0
	}
	return min(max((now.Stolen-before.Stolen).Seconds()/(now.Busy-before.Busy).Seconds(), 0), 1)
}

// ThrottledPart returns for which part of the time in which the daemon's own processes were ready to
// run between two results of ReadMachine a CPU quota stopped them, 0 to 1; 0 if that is unknown.
// ours is their CPU time meanwhile, and elapsed the time between the two.
func ThrottledPart(before, now Machine, ours, elapsed time.Duration) float64 {
	throttled := now.Throttled - before.Throttled
	// In another cgroup the counters are others.
	if throttled <= 0 || ours < 0 || throttled > 2*elapsed*time.Duration(max(now.CPUs, 1)) {
		return 0
	}
	return throttled.Seconds() / (throttled + ours).Seconds()
}

// Reader reads the state of the machine.
type Reader struct {
	root     string
	affinity func() (cpus map[int]bool, known bool)
	proc     procfs.FS
	known    bool
	buffer   []byte // of readFile
	groups   string // /proc/self/cgroup, when cpu and memory were found
	cpu      []group
	memory   []group
}

// New returns a reader of this machine.
func New() *Reader { return newReader("/", allowedCPUs) }

func newReader(root string, affinity func() (map[int]bool, bool)) *Reader {
	r := &Reader{root: root, affinity: affinity, buffer: make([]byte, 0, bufferSize)}
	var err error
	r.proc, err = procfs.NewFS(r.path("proc"))
	r.known = err == nil
	return r
}

func (r *Reader) path(name string) string { return filepath.Join(r.root, name) }

// ReadMachine reads the current state. A value that cannot be read or understood is ignored, and is in
// the error; the rest of the Machine is valid. A missing file is not an error.
func (r *Reader) ReadMachine() (Machine, error) {
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
	if text, err := r.readFile("proc/stat"); err != nil {
		errs = append(errs, err)
		m.Known = false
	} else if m.Busy, m.Stolen, err = busyTime(text, allowed); err != nil {
		errs = append(errs, fmt.Errorf("%s: %w", r.path("proc/stat"), err))
		m.Known = false
	}
	errs = append(errs, r.findGroups(), r.lookAtCPU(&m), r.lookAtMemory(&m))
	var err error
	m.Pressure.CPU, err = r.readPressure("cpu")
	errs = append(errs, err)
	m.Pressure.Memory, err = r.readPressure("memory")
	errs = append(errs, err)
	return m, errors.Join(errs...)
}

// tick is the unit of /proc/stat: on Linux, on all architectures.
const tick = time.Second / 100

// busyTime returns the sums of the busy times in /proc/stat of the allowed processors, and of the
// stolen times, which the busy ones include; nil allows all.
func busyTime(text string, allowed map[int]bool) (busy, stolen time.Duration, err error) {
	const stealField = 7 // of those after the name
	var ticks, steal uint64
	seen := false
	for line := range strings.Lines(text) {
		rest, found := strings.CutPrefix(line, "cpu")
		if !found {
			break // they are the first lines
		}
		if strings.HasPrefix(rest, " ") {
			continue // the total of all processors
		}
		fields := strings.Fields(rest)
		if len(fields) < 5 {
			return 0, 0, fmt.Errorf("%q is not what a processor did", strings.TrimSpace(line))
		}
		cpu, err := strconv.Atoi(fields[0])
		if err != nil {
			return 0, 0, fmt.Errorf("%q is not what a processor did", strings.TrimSpace(line))
		}
		if allowed != nil && !allowed[cpu] {
			continue
		}
		// user, nice, system, idle, iowait, irq, softirq, steal; guest time is included in
		// user.
		for i, field := range fields[1:min(len(fields), 9)] {
			if i == 3 || i == 4 {
				continue
			}
			n, err := strconv.ParseUint(field, 10, 64)
			if err != nil {
				return 0, 0, fmt.Errorf("%q is not what a processor did", strings.TrimSpace(line))
			}
			ticks += n
			if i == stealField {
				steal += n
			}
		}
		seen = true
	}
	if !seen {
		return 0, 0, errors.New("it lists no processor")
	}
	return time.Duration(ticks) * tick, time.Duration(steal) * tick, nil
}

func (r *Reader) readPressure(resource string) (float64, error) {
	stats, err := r.proc.PSIStatsForResource(resource)
	switch {
	case isAbsent(err):
		return math.NaN(), nil
	case err != nil:
		return math.NaN(), fmt.Errorf("%s: %w", r.path("proc/pressure/"+resource), err)
	case stats.Some == nil:
		return math.NaN(), fmt.Errorf("%s: no line begins with some", r.path("proc/pressure/"+resource))
	}
	return stats.Some.Avg10, nil
}

// readFile returns the contents of a file.
func (r *Reader) readFile(name string) (string, error) {
	var err error
	r.buffer, err = readSmall(r.path(name), r.buffer)
	if err != nil {
		return "", err
	}
	return string(r.buffer), nil
}

// isAbsent reports whether a read failed because there is nothing to read: no such file, a
// removed group, or a feature that the kernel lacks.
func isAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.ENOTDIR) ||
		errors.Is(err, syscall.EOPNOTSUPP)
}
