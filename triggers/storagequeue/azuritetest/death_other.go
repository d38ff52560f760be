//go:build !linux

package azuritetest

import "os/exec"

// dieWithUs is Linux's alone; elsewhere a test that is killed leaves the process behind.
func dieWithUs(*exec.Cmd) {}
