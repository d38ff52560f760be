// Package reach decides which addresses the workers of a strict sandbox reach, and makes
// the calls that name one for them.
//
// A filter of seccomp sends the calls connect, sendto with an address, sendmsg and
// sendmmsg of a worker and its children to the daemon. Serve copies the address out of the
// worker's memory, checks it, and makes the call itself with the copy, on a duplicate
// of the worker's socket: a thread that changes the address or the socket in the meantime
// changes nothing. Serve runs in one goroutine for each listener, and starts one more for
// each call that has to wait, as a blocking connect does.
package reach

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// Rules are the addresses that a worker reaches. It never reaches link-local ones.
type Rules struct {
	// TCP are the ports that can be connected to; nil is any.
	TCP []int
	// UnixSockets lets sockets be used that are files. The kernel makes those calls as
	// the worker's own, since who calls counts. A thread that exchanges the socket or the
	// address while the daemon looks gets past the check then, but not by TCP: landlock
	// forbids the worker's own TCP connections.
	UnixSockets bool
}

// blocked are the link-local addresses (RFC 3927, RFC 4291), and those at which clouds have
// the same services in IPv6 (AWS, Google Cloud).
var blocked = []netip.Prefix{
	netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("fd00:ec2::/32"), netip.MustParsePrefix("fd20:ce::254/128"),
}

// nameServers is the file that lists the machine's.
var nameServers = "/etc/resolv.conf"

const domain = 53 // the port of name servers

// allow reports whether an address may be reached.
func (r Rules) allow(to netip.AddrPort, tcp bool) bool {
	if tcp && r.TCP != nil && !slices.Contains(r.TCP, int(to.Port())) {
		return false
	}
	return !slices.ContainsFunc(blocked, func(p netip.Prefix) bool { return p.Contains(to.Addr()) }) ||
		to.Port() == domain && isNameServer(to.Addr())
}

// isNameServer reads the file anew, since it changes while the daemon runs.
func isNameServer(addr netip.Addr) bool {
	text, err := os.ReadFile(nameServers)
	if err != nil {
		return false
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if server, err := netip.ParseAddr(fields[1]); err == nil && server.Unmap().WithZone("") == addr {
			return true
		}
	}
	return false
}

const (
	unspecified = 0  // AF_UNSPEC, which means AF_INET where a message has an address
	inet        = 2  // AF_INET
	inet6       = 10 // AF_INET6 of Linux
)

// address is that of a struct sockaddr; false if it is of another family, or cut off.
func address(name []byte) (netip.AddrPort, bool) {
	if len(name) < 8 {
		return netip.AddrPort{}, false
	}
	port := binary.BigEndian.Uint16(name[2:])
	switch family := binary.NativeEndian.Uint16(name); {
	case family == inet6 && len(name) >= 24:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(name[8:24])).Unmap(), port), true
	case family == inet || family == unspecified:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(name[4:8])), port), true
	}
	return netip.AddrPort{}, false
}
