//go:build !linux

package httphandler

import "net"

// unread returns false: this is known only on Linux.
func unread(net.Conn, uint64) bool { return false }
