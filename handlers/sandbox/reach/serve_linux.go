package reach

import (
	"errors"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Serve performs the calls that a listener receives. It returns when all processes with the filter
// have ended, or the listener is closed. The listener must be non-blocking. Serve closes it; later
// calls fail with ENOSYS.
func Serve(listener *os.File, rules Rules) {
	conn, err := listener.SyscallConn()
	if err != nil {
		return // the listener is closed
	}
	s := &server{rules: rules, pidfd: -1, waitSlots: make(chan struct{}, maxWaiting)}
	_ = conn.Read(func(fd uintptr) (end bool) { return s.receiveCalls(int(fd), conn) })
	s.closePidfd()
	_ = listener.Close() // so that waiting calls end
	s.waiting.Wait()
}

// receiveCalls handles all pending calls. It reports whether there will be no more.
func (s *server) receiveCalls(listener int, conn syscall.RawConn) (end bool) {
	for {
		ready := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		switch n, err := unix.Poll(ready, 0); {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return true
		case n == 0:
			return false
		case ready[0].Revents&unix.POLLIN == 0:
			return true // no process with the filter is left
		}
		var n notification
		switch err := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n)); err { //nolint:gosec // the kernel takes it so
		case 0:
		case unix.EINTR, unix.ENOENT: // the caller was killed
			continue
		default:
			return true
		}
		c := &call{server: s, notification: n, conn: conn, socket: -1}
		if err := c.performCall(listener); err != errPending {
			c.sendResponse(listener, err)
		}
	}
}

// performCall performs the call if it is allowed. The memory that it reads is the caller's,
// provided that the caller still waits afterwards.
func (c *call) performCall(listener int) (err syscall.Errno) {
	if c.socket, err = c.server.duplicateFD(c.pid, int(int32(c.args[0]))); err != 0 {
		return err
	}
	if c.server.rules.UnixSockets {
		if err := c.inspectSocket(); err != 0 {
			return err
		}
		if c.family == unix.AF_UNIX {
			return errLetThrough
		}
	}
	switch c.nr {
	case unix.SYS_CONNECT:
		return c.connect(listener)
	case unix.SYS_SENDTO:
		m := message{flags: int(int32(c.args[3])), pieces: []unix.RemoteIovec{{Base: uintptr(c.args[1]), Len: clamp(c.args[2])}}}
		if m.name, err = c.readName(c.args[4], uint32(c.args[5])); err != 0 {
			return err
		}
		return c.sendMessage(listener, &m)
	case unix.SYS_SENDMSG:
		m, err := c.readMessage(c.args[1], c.args[2])
		if err != 0 {
			return err
		}
		return c.sendMessage(listener, m)
	case unix.SYS_SENDMMSG:
		// Only the first message is sent: sending fewer than requested is normal.
		if c.args[2]&0xffffffff == 0 {
			return 0
		}
		m, err := c.readMessage(c.args[1], c.args[3])
		if err != 0 {
			return err
		}
		c.length = c.args[1] + uint64(unsafe.Sizeof(unix.Msghdr{}))
		return c.sendMessage(listener, m)
	}
	return unix.ENOSYS
}
