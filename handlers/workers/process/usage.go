package process

import (
	"sync"
	"time"

	"github.com/prometheus/procfs"
)

// Usage is the resource use of a pool's processes.
type Usage struct {
	// CPU is the time of all processes since the pool began, including the children that they
	// waited for. It never falls.
	CPU time.Duration
	// Known is set if the other fields could be read. That works on Linux.
	Known bool
	// Memory is the sum over the running processes.
	Memory Memory
	// Largest is the resident memory of the largest process, in bytes.
	Largest uint64
}

// Memory is an amount of memory, in bytes.
type Memory struct {
	// Resident is the resident memory; shared memory counts for each process.
	Resident uint64
	// Anonymous is the part of Resident without a file: mostly the heap.
	Anonymous uint64
	// Proportional is Resident, with shared memory divided among the processes that share
	// it; 0 if the kernel does not report it.
	Proportional uint64
}

// Plus adds the usage of other processes.
func (u Usage) Plus(o Usage) Usage {
	u.CPU += o.CPU
	u.Known = u.Known && o.Known
	u.Memory.Resident += o.Memory.Resident
	u.Memory.Anonymous += o.Memory.Anonymous
	u.Memory.Proportional += o.Memory.Proportional
	u.Largest = max(u.Largest, o.Largest)
	return u
}

// accounts has the usage of all processes of a pool. The zero value has none.
type accounts struct {
	mu       sync.Mutex
	live     map[*Process]time.Duration // the CPU time last read of each
	ended    time.Duration              // the CPU time of those that have ended
	reported time.Duration              // the highest value returned, so that it never falls
}

func (a *accounts) addProcess(p *Process) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.live == nil {
		a.live = make(map[*Process]time.Duration)
	}
	a.live[p] = 0
}

func (a *accounts) removeProcess(p *Process, used time.Duration) {
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
		} else if !hasProc() {
			u.Known = false
		}
		u.CPU += used
	}
	// A process that was just collected may be neither in /proc nor in ended yet.
	a.reported = max(a.reported, u.CPU)
	u.CPU = a.reported
	return u
}

func (a *accounts) cpuTime() time.Duration {
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
	a.reported = max(a.reported, sum)
	return a.reported
}

// cpuOf returns the processor time of a process, including the children that it waited for.
func cpuOf(proc procfs.Proc) (time.Duration, error) {
	stat, err := proc.Stat()
	if err != nil {
		return 0, err
	}
	const tick = time.Second / 100 // on Linux, everywhere
	children := time.Duration(max(stat.CUTime, 0)+max(stat.CSTime, 0)) * tick
	return time.Duration(stat.UTime+stat.STime)*tick + children, nil
}

// readUsage returns the resource use of a process.
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
	if rollup, err := proc.ProcSMapsRollup(); err == nil { // some kernels do not have it, and some forbid it
		m.Proportional = rollup.Pss
	}
	return cpu, m, nil
}

// hasProc reports whether this system has a /proc.
func hasProc() bool {
	_, err := procfs.Self()
	return err == nil
}

// AnonymousMemory returns the anonymous memory of a process in bytes; 0 if it cannot be read.
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
