package childproc

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// sendBuffer is the size that the send buffer of each end of a Socketpair is raised to, in bytes.
// With Linux's default of 208 KiB, a writer of bodies of 10 kB waits for the reader after every 20 of
// them. The kernel uses the memory only while data is in transit, twice as much for its own accounting.
const sendBuffer = 1 << 20

// Socketpair returns the two ends of a stream socket. A child inherits theirs.
func Socketpair() (ours *net.UnixConn, theirs *os.File, err error) {
	syscall.ForkLock.RLock() // prevents a fork between the calls
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("making a socket: %w", withAdvice(err))
	}
	raiseSendBuffer(fds[0])
	raiseSendBuffer(fds[1])
	file := os.NewFile(uintptr(fds[0]), "child")
	theirs = os.NewFile(uintptr(fds[1]), "parent")
	conn, err := net.FileConn(file)
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("making a socket: %w", withAdvice(err)), theirs.Close())
	}
	return conn.(*net.UnixConn), theirs, nil
}

// raiseSendBuffer raises a socket's send buffer to sendBuffer, or as far as the kernel allows. Linux
// grants at most net.core.wmem_max, without an error. Others, such as macOS, refuse what is too much, so
// smaller sizes are tried. A smaller buffer only costs speed: writers wait more often. The receive buffer
// does not matter, because what is in transit between two local stream sockets counts for the sender.
func raiseSendBuffer(fd int) {
	for size := sendBuffer; size > sendBuffer/16; size /= 2 {
		before, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
		if err != nil || before >= size {
			return
		}
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, size) == nil {
			return
		}
	}
}
