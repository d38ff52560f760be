package hostinfo

import (
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/procfs"
)

// Delays measures how long the threads of processes were ready to run and waited for a
// processor: the cost of too many processes. It misses a thread that starts and ends between
// two calls.
type Delays struct {
	proc  procfs.FS
	known bool
	// The waiting time of each thread of each process at the last call, in ns.
	processes map[int]map[int]uint64
}

// NewDelays returns a Delays without measurements.
func NewDelays() *Delays { return newDelays("/") }

func newDelays(root string) *Delays {
	d := &Delays{processes: make(map[int]map[int]uint64)}
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
			stat, err := t.Schedstat()
			if err != nil {
				continue // the thread has ended
			}
			after[t.PID] = stat.WaitingNanoseconds
			if !seen {
				continue
			}
			if was := before[t.PID]; was <= stat.WaitingNanoseconds {
				waited += time.Duration(stat.WaitingNanoseconds - was)
			} else { // a new thread has the number of one that ended
				waited += time.Duration(stat.WaitingNanoseconds)
			}
		}
		now[pid] = after
	}
	d.processes = now
	return waited, true
}
