package sandbox

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// socketpair returns the two ends of the socket to a launch stage. Reads from the first one can
// have a deadline.
func socketpair() (ours, theirs *os.File, err error) {
	syscall.ForkLock.RLock() // prevents a fork between the calls
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("making the launch stage's socket: %w", err)
	}
	theirs = os.NewFile(uintptr(fds[1]), "launch")
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return os.NewFile(uintptr(fds[0]), "launch"), theirs, fmt.Errorf("making the launch stage's socket: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "launch"), theirs, nil
}
