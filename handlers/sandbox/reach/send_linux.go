package reach

import (
	"encoding/binary"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// message is a message that a worker sends.
type message struct {
	name    []byte
	control []byte
	pieces  []unix.RemoteIovec // the data, in the worker's memory
	flags   int
}

// readMessage copies the head of a message. Its data is not copied yet.
func (c *call) readMessage(from, flags uint64) (m *message, err syscall.Errno) {
	var head unix.Msghdr
	raw := make([]byte, unsafe.Sizeof(head))
	if err := c.readMemory(from, raw); err != 0 {
		return nil, err
	}
	word := func(at uintptr) uint64 { return binary.NativeEndian.Uint64(raw[at:]) }
	m = &message{flags: int(int32(flags))}
	if m.name, err = c.readName(word(unsafe.Offsetof(head.Name)), binary.NativeEndian.Uint32(raw[unsafe.Offsetof(head.Namelen):])); err != 0 {
		return nil, err
	}
	pieces, controls := word(unsafe.Offsetof(head.Iovlen)), word(unsafe.Offsetof(head.Controllen))
	if pieces > maxVectors {
		return nil, unix.EMSGSIZE
	}
	if controls > maxControl {
		return nil, unix.ENOBUFS
	}
	vectors := make([]byte, 16*pieces) // of struct iovec
	if err := c.readMemory(word(unsafe.Offsetof(head.Iov)), vectors); err != 0 {
		return nil, err
	}
	for ; len(vectors) > 0; vectors = vectors[16:] {
		base, size := binary.NativeEndian.Uint64(vectors), binary.NativeEndian.Uint64(vectors[8:])
		if size > 0 {
			m.pieces = append(m.pieces, unix.RemoteIovec{Base: uintptr(base), Len: clamp(size)})
		}
	}
	if head := word(unsafe.Offsetof(head.Control)); head != 0 && controls > 0 {
		m.control = make([]byte, controls)
		err = c.readMemory(head, m.control)
	}
	return m, err
}

// firstPieces returns the pieces of the first n bytes, without removing them.
func (m *message) firstPieces(n int) (out []unix.RemoteIovec, size int) {
	for _, p := range m.pieces {
		if size == n {
			break
		}
		p.Len = min(p.Len, n-size)
		out, size = append(out, p), size+p.Len
	}
	return out, size
}

// dropBytes removes the first n bytes.
func (m *message) dropBytes(n int) {
	for n > 0 {
		p := &m.pieces[0]
		if p.Len > n {
			p.Base, p.Len = p.Base+uintptr(n), p.Len-n
			return
		}
		n -= p.Len
		m.pieces = m.pieces[1:]
	}
}

func (m *message) byteCount() (n int) {
	for _, p := range m.pieces {
		n += p.Len
	}
	return n
}

// sendMessage sends a message. Most messages have no address and no control data, and fit in one
// chunk. For those, the socket is not inspected.
func (c *call) sendMessage(listener int, m *message) syscall.Errno {
	if m.flags&unix.MSG_ZEROCOPY != 0 {
		return unix.ENOBUFS // programs then fall back to copying
	}
	large := m.byteCount() > maxChunk
	if m.name != nil || m.control != nil || large {
		if err := c.checkMessage(m); err != 0 {
			return err
		}
		if large && c.kind != unix.SOCK_STREAM {
			return unix.EMSGSIZE
		}
	}
	err := c.sendChunk(listener, m, &c.server.data)
	if err != 0 && err != unix.EAGAIN || err == 0 && len(m.pieces) == 0 || m.flags&unix.MSG_DONTWAIT != 0 {
		return err
	}
	flags, fcntlErr := unix.FcntlInt(uintptr(c.socket), unix.F_GETFL, 0)
	if fcntlErr != nil {
		return errnoOf(fcntlErr)
	}
	if flags&unix.O_NONBLOCK != 0 {
		return err
	}
	var data []byte
	return c.continueLater(func(listener int) syscall.Errno {
		for {
			if err := c.sendChunk(listener, m, &data); err != 0 || len(m.pieces) == 0 {
				return err
			}
		}
	})
}

// checkMessage returns an error for addresses that are not allowed. It also refuses control messages
// that change the destination, such as source routes, or that the daemon may send and the worker
// may not. It replaces descriptors with the daemon's duplicates.
func (c *call) checkMessage(m *message) syscall.Errno {
	if err := c.inspectSocket(); err != 0 {
		return err
	}
	switch {
	case m.name == nil:
	case c.isInternet() && c.kind == unix.SOCK_STREAM:
		m.name = nil // it has no effect
	case c.isInternet():
		to, known := parseAddress(m.name)
		if !known {
			return unix.EINVAL
		}
		if !c.server.rules.allowsAddress(to, false) {
			return unix.EACCES
		}
	case c.isKernel(m.name):
		m.name = nil // with an address, the kernel would check the daemon's rights, otherwise the worker's
	default:
		return unix.EACCES
	}
	if len(m.control) == 0 {
		return 0
	}
	messages, err := unix.ParseSocketControlMessage(m.control)
	if err != nil {
		return unix.EINVAL
	}
	for _, m := range messages {
		switch {
		case c.isInternet() && harmless[[2]int32{m.Header.Level, m.Header.Type}]:
		case c.family == unix.AF_UNIX && m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_RIGHTS:
			for data := m.Data; len(data) >= 4; data = data[4:] {
				fd, err := c.server.duplicateFD(c.pid, int(int32(binary.NativeEndian.Uint32(data))))
				if err != 0 {
					return err
				}
				c.files = append(c.files, fd)
				binary.NativeEndian.PutUint32(data, uint32(fd))
			}
		default:
			return unix.EPERM
		}
	}
	return 0
}

// harmless are the control messages that programs send with data: the outgoing interface, the
// source address, the hop limit, and the segmentation.
var harmless = map[[2]int32]bool{
	{unix.SOL_IP, unix.IP_PKTINFO}: true, {unix.SOL_IP, unix.IP_TOS}: true, {unix.SOL_IP, unix.IP_TTL}: true,
	{unix.SOL_IPV6, unix.IPV6_PKTINFO}: true, {unix.SOL_IPV6, unix.IPV6_HOPLIMIT}: true, {unix.SOL_IPV6, unix.IPV6_TCLASS}: true, {unix.SOL_IPV6, unix.IPV6_DONTFRAG}: true,
	{unix.SOL_UDP, unix.UDP_SEGMENT}: true,
}

// sendChunk sends a message, or the first chunk of it, without waiting. It copies the data to a
// buffer, which grows if necessary.
func (c *call) sendChunk(listener int, m *message, buffer *[]byte) syscall.Errno {
	from, size := m.firstPieces(maxChunk)
	if size > len(*buffer) {
		*buffer = make([]byte, max(size, 4<<10))
	}
	data := (*buffer)[:size]
	if err := c.gatherMemory(from, data); err != 0 {
		return err
	}
	if !c.isWaiting(listener) {
		return unix.ESRCH
	}
	head := unix.Msghdr{Name: unsafe.SliceData(m.name), Namelen: uint32(len(m.name)), Control: unsafe.SliceData(m.control)} //nolint:gosec // the kernel takes it so
	head.SetControllen(len(m.control))
	if size > 0 {
		vector := unix.Iovec{Base: &data[0]}
		vector.SetLen(size)
		head.Iov = &vector
		head.SetIovlen(1)
	}
	n, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(c.socket), uintptr(unsafe.Pointer(&head)), uintptr(m.flags|unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)) //nolint:gosec // the kernel takes it so
	if errno != 0 {
		return errno
	}
	c.sent += int(n)
	m.dropBytes(int(n))
	m.control = nil
	return 0
}
