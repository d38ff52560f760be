//go:build !linux

package httphandler

import "net"

// nothingAcked returns false: this is known only on Linux.
func nothingAcked(net.Conn, uint64) bool { return false }
