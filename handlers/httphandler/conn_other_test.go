//go:build !linux

package httphandler

import "net"

// holdUntilClose does nothing: only Linux can hold the last bytes.
func holdUntilClose(net.Conn) {}
