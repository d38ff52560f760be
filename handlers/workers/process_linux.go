package workers

import "syscall"

// processAttributes gives a worker a process group, and lets it die with us.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
