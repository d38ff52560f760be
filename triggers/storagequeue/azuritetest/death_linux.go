package azuritetest

import (
	"os/exec"
	"syscall"
)

// dieWithUs has the process die with the thread that starts it.
func dieWithUs(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
