package reach

import (
	"encoding/binary"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// maxName is the size of struct sockaddr_storage.
	maxName = 128
	// maxControl bounds a message's control data, in bytes: room for more than 253 descriptors.
	maxControl = 4 << 10
	// maxVectors is the kernel's bound on the pieces of a message.
	maxVectors = 1024
	// maxChunk bounds the bytes of a stream sent at once: no IP datagram is larger.
	maxChunk = 64 << 10
)

// inspectSocket reads the family and the type of the socket.
func (c *call) inspectSocket() syscall.Errno {
	var err error
	if c.family, err = unix.GetsockoptInt(c.socket, unix.SOL_SOCKET, unix.SO_DOMAIN); err == nil {
		c.kind, err = unix.GetsockoptInt(c.socket, unix.SOL_SOCKET, unix.SO_TYPE)
	}
	return errnoOf(err)
}

// readMemory copies memory of the worker.
func (c *call) readMemory(from uint64, to []byte) syscall.Errno {
	return c.gatherMemory([]unix.RemoteIovec{{Base: uintptr(from), Len: len(to)}}, to)
}

func (c *call) gatherMemory(from []unix.RemoteIovec, to []byte) syscall.Errno {
	if len(to) == 0 {
		return 0
	}
	local := unix.Iovec{Base: &to[0]}
	local.SetLen(len(to))
	n, err := unix.ProcessVMReadv(int(c.pid), []unix.Iovec{local}, from, 0)
	if err == nil && n < len(to) {
		return unix.EFAULT
	}
	return errnoOf(err)
}

// readName copies an address; nil if there is none.
func (c *call) readName(from uint64, size uint32) ([]byte, syscall.Errno) {
	if from == 0 || size == 0 {
		return nil, 0
	}
	if size > maxName {
		return nil, unix.EINVAL
	}
	out := make([]byte, size)
	return out, c.readMemory(from, out)
}

func (c *call) isInternet() bool { return c.family == unix.AF_INET || c.family == unix.AF_INET6 }

// connect connects the socket.
func (c *call) connect(listener int) syscall.Errno {
	name, err := c.readName(c.args[1], uint32(c.args[2]))
	if err == 0 {
		err = c.inspectSocket()
	}
	switch {
	case err != 0:
		return err
	case len(name) < 2:
		return unix.EINVAL
	case c.isInternet() && binary.NativeEndian.Uint16(name) == unix.AF_UNSPEC: // this disconnects
	case c.isInternet():
		to, known := parseAddress(name)
		if !known {
			return unix.EAFNOSUPPORT
		}
		if !c.server.rules.allowsAddress(to, c.kind == unix.SOCK_STREAM) {
			return unix.EACCES
		}
	case !c.isKernel(name):
		return unix.EACCES
	}
	if !c.isWaiting(listener) {
		return unix.ESRCH
	}
	blocking := false
	try := func(int) syscall.Errno {
		c.server.mode.Lock()
		defer c.server.mode.Unlock()
		flags, fcntlErr := unix.FcntlInt(uintptr(c.socket), unix.F_GETFL, 0)
		if fcntlErr != nil {
			return errnoOf(fcntlErr)
		}
		if c.kind == unix.SOCK_STREAM && flags&unix.O_NONBLOCK == 0 {
			blocking = true
			_, _ = unix.FcntlInt(uintptr(c.socket), unix.F_SETFL, flags|unix.O_NONBLOCK)
			defer func() { _, _ = unix.FcntlInt(uintptr(c.socket), unix.F_SETFL, flags) }()
		}
		_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(c.socket), uintptr(unsafe.Pointer(&name[0])), uintptr(len(name))) //nolint:gosec // the kernel takes it so
		if blocking && (errno == unix.EINPROGRESS || errno == unix.EALREADY) {
			return unix.EAGAIN
		}
		return errno
	}
	if err := try(listener); !blocking || err != unix.EAGAIN {
		return err
	}
	return c.continueLater(try)
}

// isKernel reports whether an address is the kernel's end of a netlink socket.
func (c *call) isKernel(name []byte) bool {
	return c.family == unix.AF_NETLINK && len(name) >= unix.SizeofSockaddrNetlink &&
		binary.NativeEndian.Uint16(name) == unix.AF_NETLINK && !slices.ContainsFunc(name[4:12], func(b byte) bool { return b != 0 })
}

func clamp(n uint64) int { return int(min(n, 1<<31-1)) }
