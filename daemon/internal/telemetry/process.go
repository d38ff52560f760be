package telemetry

import (
	"syscall"
	"time"
)

// ProcessStart is when this process started to count.
var ProcessStart = time.Now()

// ProcessCPU returns the CPU time of this process; 0 if it cannot be read.
func ProcessCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
