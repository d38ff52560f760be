package httphandler

import (
	"net"

	"golang.org/x/sys/unix"
)

// holdUntilClose holds what is written to a connection until it is closed: the last bytes and the end of
// the connection arrive together.
func holdUntilClose(c net.Conn) {
	onSocket(c, func(fd int) { _ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_CORK, 1) })
}
