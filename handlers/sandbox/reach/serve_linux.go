package reach

import (
	"errors"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Serve makes the calls that come from a listener, which must be non-blocking, until all
// processes have ended that they come from, or the listener is closed. It closes it: calls
// that still come fail with ENOSYS.
func Serve(listener *os.File, rules Rules) {
	conn, err := listener.SyscallConn()
	if err != nil {
		return // it is closed
	}
	s := &server{rules: rules, pidfd: -1, room: make(chan struct{}, maxWaiting)}
	_ = conn.Read(func(fd uintptr) (end bool) { return s.receive(int(fd), conn) })
	s.forget()
	_ = listener.Close() // for those that wait
	s.waiting.Wait()
}

// receive answers all calls that wait. It reports whether there will be no more.
func (s *server) receive(listener int, conn syscall.RawConn) (end bool) {
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
			return true // nobody is there any more
		}
		var n notification
		switch err := control(listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n)); err { //nolint:gosec // the kernel takes it so
		case 0:
		case unix.EINTR, unix.ENOENT: // the caller was killed
			continue
		default:
			return true
		}
		c := &call{server: s, notification: n, conn: conn, socket: -1}
		if err := c.make(listener); err != errWaits {
			c.answer(listener, err)
		}
	}
}

// make makes the call, as far as that is allowed. What it reads of the worker is the
// worker's, if that still waits afterwards.
func (c *call) make(listener int) (err syscall.Errno) {
	if c.socket, err = c.server.descriptor(c.pid, int(int32(c.args[0]))); err != 0 {
		return err
	}
	if c.server.rules.UnixSockets {
		if err := c.look(); err != 0 {
			return err
		}
		if c.family == unix.AF_UNIX {
			return errOwn
		}
	}
	switch c.nr {
	case unix.SYS_CONNECT:
		return c.connect(listener)
	case unix.SYS_SENDTO:
		m := message{flags: int(int32(c.args[3])), pieces: []unix.RemoteIovec{{Base: uintptr(c.args[1]), Len: clamp(c.args[2])}}}
		if m.name, err = c.name(c.args[4], uint32(c.args[5])); err != 0 {
			return err
		}
		return c.send(listener, &m)
	case unix.SYS_SENDMSG:
		m, err := c.message(c.args[1], c.args[2])
		if err != 0 {
			return err
		}
		return c.send(listener, m)
	case unix.SYS_SENDMMSG:
		// The first is sent: that fewer are than could be is usual.
		if c.args[2]&0xffffffff == 0 {
			return 0
		}
		m, err := c.message(c.args[1], c.args[3])
		if err != 0 {
			return err
		}
		c.length = c.args[1] + uint64(unsafe.Sizeof(unix.Msghdr{}))
		return c.send(listener, m)
	}
	return unix.ENOSYS
}
