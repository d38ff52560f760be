package hostinfo

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/prometheus/procfs"
)

// Delays measures how long the threads of processes were ready to run and waited for a
// processor: the cost of too many processes. It misses a thread that starts and ends between
// two calls.
type Delays struct {
	root   string
	proc   procfs.FS
	known  bool
	buffer []byte
	// The waiting time of each thread of each process at the last call, in ns.
	processes map[int]map[int]uint64
}

// NewDelays returns a Delays without measurements.
func NewDelays() *Delays { return newDelays("/") }

func newDelays(root string) *Delays {
	d := &Delays{root: root, processes: make(map[int]map[int]uint64), buffer: make([]byte, 0, bufferSize)}
	var err error
	if d.proc, err = procfs.NewFS(filepath.Join(root, "proc")); err == nil {
		_, err = os.Stat(filepath.Join(root, "proc/self/schedstat"))
	}
	d.known = err == nil
	return d
}

// WaitedSince returns the total waiting time of the threads of the processes since the last call: two
// threads that waited for a second are two seconds. A process that was not in the last call
// adds nothing yet; one that has ended adds nothing more. known is false if the kernel does not
// count it.
func (d *Delays) WaitedSince(pids []int) (waited time.Duration, known bool) {
	if !d.known {
		return 0, false
	}
	now := make(map[int]map[int]uint64, len(pids))
	for _, pid := range pids {
		threads, err := d.proc.AllThreads(pid)
		if err != nil {
			continue
		}
		before, seen := d.processes[pid]
		after := make(map[int]uint64, len(threads))
		for _, t := range threads {
			total, err := d.waitedSinceStart(pid, t.PID)
			if err != nil {
				continue // the thread has ended
			}
			after[t.PID] = total
			if !seen {
				continue
			}
			if was := before[t.PID]; was <= total {
				waited += time.Duration(total - was)
			} else { // a new thread has the number of one that ended
				waited += time.Duration(total)
			}
		}
		now[pid] = after
	}
	d.processes = now
	return waited, true
}

// waitedSinceStart returns the waiting time of a thread, in ns: the second number of its schedstat.
func (d *Delays) waitedSinceStart(pid, thread int) (ns uint64, err error) {
	d.buffer, err = readSmall(filepath.Join(d.root, "proc", strconv.Itoa(pid), "task", strconv.Itoa(thread), "schedstat"), d.buffer)
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(d.buffer)
	if len(fields) < 2 {
		return 0, fmt.Errorf("%q is no schedstat", d.buffer)
	}
	return strconv.ParseUint(string(fields[1]), 10, 64)
}
