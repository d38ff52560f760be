package process

import (
	"strings"

	"github.com/prometheus/procfs"
)

// Threads is the state of all threads of a process.
type Threads struct {
	Known   bool
	Stopped bool // by a signal; not by a debugger
	Runs    bool // one thread runs, or waits for a processor
	Asleep  bool // one thread is in a kernel wait that signals cannot interrupt
	Used    uint // processor time of all threads, in ticks
}

func (t Threads) String() string {
	switch {
	case !t.Known:
		return "unknown"
	case t.Stopped:
		return "stopped"
	case t.Runs:
		return "running"
	case t.Asleep:
		return "in the kernel"
	}
	return "waiting"
}

// ThreadState reads the state of the process's threads.
func (p *Process) ThreadState() (t Threads) {
	all, err := procfs.AllThreads(p.PID)
	if err != nil {
		return t
	}
	for _, thread := range all {
		stat, err := thread.Stat()
		if err != nil {
			continue
		}
		t.Known = true
		t.Used += stat.UTime + stat.STime
		switch {
		case strings.HasPrefix(stat.State, "T"):
			t.Stopped = true
		case strings.HasPrefix(stat.State, "R"):
			t.Runs = true
		case strings.HasPrefix(stat.State, "D"):
			t.Asleep = true
		}
	}
	t.Stopped = t.Stopped && !t.Runs
	return t
}
