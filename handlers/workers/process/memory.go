package process

import (
	"fmt"
	"strings"
	"syscall"

	"github.com/drover-run/drover/handlers/childproc"
)

// heapLimit is the message of Node.js when it ends at its heap limit.
const heapLimit = "heap out of memory"

// addMemory adds the memory use of a process to its exit, if memory ended it.
func (p *Process) addMemory(exit childproc.Exit) {
	most := ""
	if exit.MaxRSS > 0 {
		most = inMiB(uint64(exit.MaxRSS)) + " were resident at most"
	}
	switch {
	case p.cause == CauseOOM:
		p.state = fmt.Sprintf("it exceeded limits.memory (%s), and the kernel killed it", inMiB(uint64(p.memoryLimit)))
	case p.cause == CauseSignal && exit.Status.Signal() == syscall.SIGABRT && strings.Contains(p.LastLines(), heapLimit):
		p.state, p.cause = p.state+": it exceeded the heap limit of Node.js (--max-old-space-size)", CauseOOM
	case p.cause != CauseMemory:
		return
	}
	if most != "" {
		p.state += "; " + most
	}
}

// DescribeMemory returns a sentence about the memory use of a running process; "" if it is
// unknown.
func (p *Process) DescribeMemory() string {
	_, memory, err := readUsage(p.PID)
	if err != nil {
		return ""
	}
	text := "its worker has " + inMiB(memory.Resident) + " resident"
	if p.memoryLimit > 0 {
		text += fmt.Sprintf(", where limits.memory is %s", inMiB(uint64(p.memoryLimit)))
	}
	return text
}

func inMiB(bytes uint64) string { return fmt.Sprintf("%d MiB", (bytes+1<<19)>>20) }
