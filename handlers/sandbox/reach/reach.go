// Package reach checks the addresses that workers of a strict sandbox use, and performs for them the
// system calls that name an address.
//
// A seccomp filter sends the calls connect, sendto with an address, sendmsg and sendmmsg of a
// worker and its children to the daemon. Serve copies the address out of the worker's memory,
// checks it, and performs the call with the copy on a duplicate of the worker's socket. So a
// thread that changes the address or the socket in the meantime has no effect. Serve runs in one
// goroutine per listener. Each call that must wait, such as a blocking connect, gets a goroutine of
// its own.
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

// Rules are the addresses that a worker may reach. Link-local ones are always blocked.
type Rules struct {
	// TCP are the ports to which connections are allowed; nil is any.
	TCP []int
	// UnixSockets allows sockets in the file system. The kernel performs those calls as the
	// worker's own, because the caller's identity matters. A thread that replaces the socket or the
	// address during the check can evade it, but not for TCP: landlock blocks the worker's own TCP
	// connections.
	UnixSockets bool
}

// blocked are the link-local addresses (RFC 3927, RFC 4291), and the IPv6 addresses of the
// same services in clouds (AWS, Google Cloud).
var blocked = []netip.Prefix{
	netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("fd00:ec2::/32"), netip.MustParsePrefix("fd20:ce::254/128"),
}

// nameServers is the file that lists the name servers.
var nameServers = "/etc/resolv.conf"

const domain = 53 // the port of name servers

// allowsAddress reports whether an address may be reached.
func (r Rules) allowsAddress(to netip.AddrPort, tcp bool) bool {
	if tcp && r.TCP != nil && !slices.Contains(r.TCP, int(to.Port())) {
		return false
	}
	return !slices.ContainsFunc(blocked, func(p netip.Prefix) bool { return p.Contains(to.Addr()) }) ||
		to.Port() == domain && isNameServer(to.Addr())
}

// isNameServer reads the file each time, because it can change while the daemon runs.
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
	unspecified = 0  // AF_UNSPEC, which means AF_INET in the address of a message
	inet        = 2  // AF_INET
	inet6       = 10 // AF_INET6 on Linux
)

// parseAddress parses a struct sockaddr; false if it has another family, or is truncated.
func parseAddress(name []byte) (netip.AddrPort, bool) {
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
