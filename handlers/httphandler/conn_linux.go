package httphandler

import (
	"net"

	"golang.org/x/sys/unix"
)

// nothingAcked reports whether the peer has received nothing beyond the first sent bytes: TCP has no
// acknowledgement of them.
func nothingAcked(c net.Conn, sent uint64) bool {
	if _, tcp := c.(*net.TCPConn); !tcp {
		return false
	}
	var info *unix.TCPInfo
	var err error
	if !onSocket(c, func(fd int) { info, err = unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO) }) || err != nil {
		return false
	}
	return info.Bytes_acked <= sent+1 // the SYN counts as one byte
}
