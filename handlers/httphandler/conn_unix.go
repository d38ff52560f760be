//go:build unix

package httphandler

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// peerClosed reports whether the peer has closed an idle connection, or has sent unexpected data on
// it.
func peerClosed(c net.Conn) bool {
	var err error
	n := 0
	if !onSocket(c, func(fd int) { n, _, err = unix.Recvfrom(fd, make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT) }) {
		return true
	}
	return err == nil || n > 0 || !errors.Is(err, unix.EAGAIN)
}

// onSocket runs f on the connection's file descriptor, and reports whether that succeeded.
func onSocket(c net.Conn, f func(fd int)) bool {
	s, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return false
	}
	return raw.Control(func(fd uintptr) { f(int(fd)) }) == nil
}
