package workers

import (
	"fmt"
	"strings"
	"syscall"

	"github.com/drover-run/drover/handlers/childproc"
)

// This file says of workers that took too much memory how much that was.

// heapLimit is what Node.js writes before it ends itself at its heap limit.
const heapLimit = "heap out of memory"

// weigh adds to how a process ended what memory it had, where that is why.
func (p *process) weigh(exit childproc.Exit, limit int64) {
	most := ""
	if exit.MaxRSS > 0 {
		most = inMiB(uint64(exit.MaxRSS)) + " were resident at most"
	}
	switch {
	case p.cause == CauseOOM:
		p.state = fmt.Sprintf("it exceeded limits.memory (%s), and the kernel killed it", inMiB(uint64(limit)))
	case p.cause == CauseSignal && exit.Status.Signal() == syscall.SIGABRT && strings.Contains(p.lastWords(), heapLimit):
		p.state, p.cause = p.state+": it exceeded the heap limit of Node.js (--max-old-space-size)", CauseOOM
	case p.cause != CauseMemory:
		return
	}
	if most != "" {
		p.state += "; " + most
	}
}

// weight is what memory a living process has, for a detail; "" if that is not known.
func (p *process) weight(limit int64) string {
	_, memory, err := look(p.pid)
	if err != nil {
		return ""
	}
	text := "its worker has " + inMiB(memory.Resident) + " resident"
	if limit > 0 {
		text += fmt.Sprintf(", where limits.memory is %s", inMiB(uint64(limit)))
	}
	return text
}

func inMiB(bytes uint64) string { return fmt.Sprintf("%d MiB", (bytes+1<<19)>>20) }

// memoryLimit is limits.memory of the pool's workers; 0 if there is none.
func (p *Pool) memoryLimit() int64 {
	if p.cfg.Confine == nil {
		return 0
	}
	return p.cfg.Confine.Memory()
}
