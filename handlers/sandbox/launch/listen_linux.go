package launch

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Listener is the byte that the stage sends together with the filter's listener, which receives
// the calls that the daemon performs. It is sent before any other report.
const Listener = 'l'

// installFilter activates a filter. If the daemon performs calls, it receives the filter's listener,
// and installFilter tests such a call.
func installFilter(s Spec, program *unix.SockFprog) error {
	flags := 0
	fds, sent := make(chan int), make(chan error)
	if s.Calls.Addresses {
		flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
		ready := make(chan struct{})
		go func() { // sendmsg is filtered too, so it runs on a thread without the filter
			runtime.LockOSThread()
			close(ready)
			sent <- unix.Sendmsg(s.socket, []byte{Listener}, unix.UnixRights(<-fds), nil, 0)
		}()
		<-ready
	}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), uintptr(unsafe.Pointer(program))) //nolint:gosec // the kernel takes it so
	if errno != 0 {
		return errno
	}
	if !s.Calls.Addresses {
		return nil
	}
	fds <- int(fd)
	if err := errors.Join(<-sent, unix.Close(int(fd))); err != nil {
		return fmt.Errorf("handing its listener over: %w", err)
	}
	return tryLinkLocal()
}

// tryLinkLocal connects a UDP socket, which sends nothing, to an address that must be blocked.
func tryLinkLocal() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	switch err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{169, 254, 169, 254}, Port: 80}); {
	case errors.Is(err, unix.EACCES):
		return nil
	case err == nil:
		return errors.New("link-local addresses are not blocked")
	default:
		return fmt.Errorf("to block link-local addresses the daemon must see the connections of its workers (pidfd_getfd, process_vm_readv), and that fails: %w; grant it CAP_SYS_PTRACE (a container: --cap-add SYS_PTRACE), or set sandbox.link_local: true", os.NewSyscallError("connect", err))
	}
}
