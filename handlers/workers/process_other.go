//go:build unix && !linux

package workers

import "syscall"

// processAttributes gives a worker a process group. That the daemon is gone it
// sees by its socket.
func processAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
