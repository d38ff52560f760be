package process

import (
	"sync"
	"time"

	"github.com/prometheus/procfs"
)

// Usage is what a pool's processes have used, and use.
type Usage struct {
	// CPU is the time of all processes that there ever were, and of the children
	// that they waited for. It does not fall.
	CPU time.Duration
	// Known says that the rest could be read, which is so on Linux.
	Known bool
	// Memory is that of the living processes together.
	Memory Memory
	// Largest is what is resident of the one that has most, in bytes.
	Largest uint64
}

// Memory is in bytes.
type Memory struct {
	// Resident is what is in memory; what processes share counts for each.
	Resident uint64
	// Anonymous is what of that belongs to no file: the heap, mostly.
	Anonymous uint64
	// Proportional is Resident with what is shared divided among those that share
	// it; 0 where the kernel does not tell.
	Proportional uint64
}

// Plus adds what other processes use.
func (u Usage) Plus(o Usage) Usage {
	u.CPU += o.CPU
	u.Known = u.Known && o.Known
	u.Memory.Resident += o.Memory.Resident
	u.Memory.Anonymous += o.Memory.Anonymous
	u.Memory.Proportional += o.Memory.Proportional
	u.Largest = max(u.Largest, o.Largest)
	return u
}

// accounts are of all processes of a pool. The zero value has none.
type accounts struct {
	mu    sync.Mutex
	live  map[*Process]time.Duration // and the CPU time that each was seen to have used
	ended time.Duration              // what those used that are gone
	shown time.Duration              // at most, so that it does not fall
}

func (a *accounts) add(p *Process) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.live == nil {
		a.live = make(map[*Process]time.Duration)
	}
	a.live[p] = 0
}

func (a *accounts) remove(p *Process, used time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.live, p)
	a.ended += used
}

func (a *accounts) usage() Usage {
	a.mu.Lock()
	defer a.mu.Unlock()
	u := Usage{CPU: a.ended, Known: true}
	for p, used := range a.live {
		if now, memory, err := readUsage(p.PID); err == nil {
			used = max(used, now)
			u.Memory.Resident += memory.Resident
			u.Memory.Anonymous += memory.Anonymous
			u.Memory.Proportional += memory.Proportional
			u.Largest = max(u.Largest, memory.Resident)
			a.live[p] = used
		} else if !readable() {
			u.Known = false
		}
		u.CPU += used
	}
	// A process that has just been collected is neither there nor in ended yet.
	a.shown = max(a.shown, u.CPU)
	u.CPU = a.shown
	return u
}

func (a *accounts) cpu() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	sum := a.ended
	for p, used := range a.live {
		if proc, err := procfs.NewProc(p.PID); err == nil {
			if now, err := cpuOf(proc); err == nil {
				used = max(used, now)
				a.live[p] = used
			}
		}
		sum += used
	}
	a.shown = max(a.shown, sum)
	return a.shown
}

// cpuOf is the processor time of a process, and of the children that it waited for.
func cpuOf(proc procfs.Proc) (time.Duration, error) {
	stat, err := proc.Stat()
	if err != nil {
		return 0, err
	}
	const tick = time.Second / 100 // on Linux, everywhere
	children := time.Duration(max(stat.CUTime, 0)+max(stat.CSTime, 0)) * tick
	return time.Duration(stat.UTime+stat.STime)*tick + children, nil
}

// readUsage reads what a process uses.
func readUsage(pid int) (cpu time.Duration, m Memory, err error) {
	proc, err := procfs.NewProc(pid)
	if err != nil {
		return 0, m, err
	}
	if cpu, err = cpuOf(proc); err != nil {
		return 0, m, err
	}
	status, err := proc.NewStatus()
	if err != nil {
		return 0, m, err
	}
	m.Resident, m.Anonymous = status.VmRSS, status.RssAnon
	if rollup, err := proc.ProcSMapsRollup(); err == nil { // some kernels have none, and some forbid it
		m.Proportional = rollup.Pss
	}
	return cpu, m, nil
}

// readable reports whether this system has a /proc.
func readable() bool {
	_, err := procfs.Self()
	return err == nil
}

// AnonymousMemory is the anonymous memory of a process in bytes; 0 if it cannot be read.
func AnonymousMemory(pid int) uint64 {
	proc, err := procfs.NewProc(pid)
	if err != nil {
		return 0
	}
	status, err := proc.NewStatus()
	if err != nil {
		return 0
	}
	return status.RssAnon
}
