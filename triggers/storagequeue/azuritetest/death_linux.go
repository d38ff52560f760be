package azuritetest

import (
	"os/exec"
	"syscall"
)

// dieWithUs makes the kernel kill the process when the thread that starts it ends.
func dieWithUs(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
