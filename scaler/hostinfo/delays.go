package hostinfo

import (
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/procfs"
)

// Delays measures for how long the threads of processes were ready to run and waited
// for a processor: what one process too many costs. A thread that has come and gone
// between two looks is missed.
type Delays struct {
	proc  procfs.FS
	known bool
	// What each thread of each process had waited at the look before, in ns.
	processes map[int]map[int]uint64
}

// NewDelays returns one that has not looked yet.
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

// Since returns how long the threads of the processes waited since the look before,
// all together: two threads that waited for a second are two seconds. A process that
// was not in the look before adds nothing yet, one that is gone nothing any more.
// Known is false where the kernel does not count it.
func (d *Delays) Since(pids []int) (waited time.Duration, known bool) {
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
				continue // it has ended
			}
			after[t.PID] = stat.WaitingNanoseconds
			if !seen {
				continue
			}
			if was := before[t.PID]; was <= stat.WaitingNanoseconds {
				waited += time.Duration(stat.WaitingNanoseconds - was)
			} else { // another thread with the number of one that has ended
				waited += time.Duration(stat.WaitingNanoseconds)
			}
		}
		now[pid] = after
	}
	d.processes = now
	return waited, true
}
